//! Times that are kept over a restart of the daemon: when a drain is over, when an unconfirmed change is taken back.
//!
//! The wall clock can be set, and a clock that only counts starts anew with the machine. So a moment has both, and the boot
//! that it belongs to: within a boot the counting clock holds, whatever somebody sets the wall clock to; after another boot
//! there is only the wall clock.
//!
//! `LBD_CLOCK_FILE` in the environment names a file. While that says a number of seconds, this process takes the wall clock to be
//! so many ahead, or behind: a machine's clock is not for tests to set. Nobody sets it but they.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The environment variable.
pub const VARIABLE: &str = "LBD_CLOCK_FILE";

/// What the wall clock says.
pub fn wall_clock() -> SystemTime {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let now = SystemTime::now();
    let Some(file) = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)) else {
        return now;
    };
    let text = fs::read_to_string(file).unwrap_or_default();
    let ahead: i64 = text.trim().parse().unwrap_or(0);
    let by = Duration::from_secs(ahead.unsigned_abs());
    let set = if ahead < 0 {
        now.checked_sub(by)
    } else {
        now.checked_add(by)
    };
    set.unwrap_or(now)
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// The boot; 0: unknown.
    boot: u64,
    /// Milliseconds since that boot, those asleep included.
    since_boot: u64,
    /// Milliseconds since 1970 by the wall clock.
    wall: u64,
}

/// What tells the time; tests have their own.
pub trait Clock: Send {
    /// Now.
    fn now(&self) -> Moment;
}

/// This machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock {
    boot: u64,
}

impl HostClock {
    /// Finds out which boot this is.
    pub fn new() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        Self {
            boot: u64::from_str_radix(&digits, 16).unwrap_or(0),
        }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now(&self) -> Moment {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        let wall = wall_clock().duration_since(UNIX_EPOCH);
        Moment {
            // Without the counting clock there is only the other one.
            boot: if since_boot.is_ok() { self.boot } else { 0 },
            since_boot: milliseconds(since_boot.unwrap_or_default()),
            wall: milliseconds(wall.unwrap_or_default()),
        }
    }
}

impl Moment {
    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let time = milliseconds(time);
        Self {
            boot: self.boot,
            since_boot: self.since_boot.saturating_add(time),
            wall: self.wall.saturating_add(time),
        }
    }

    /// How long until then; zero: it is past.
    #[must_use]
    pub fn left(self, now: Self) -> Duration {
        let left = if self.boot == now.boot && self.boot != 0 {
            self.since_boot.saturating_sub(now.since_boot)
        } else {
            self.wall.saturating_sub(now.wall)
        };
        Duration::from_millis(left)
    }

    /// Whether it is past.
    #[must_use]
    pub fn is_past(self, now: Self) -> bool {
        self.left(now).is_zero()
    }

    #[cfg(test)]
    pub(crate) fn test(boot: u64, since_boot: u64, wall: u64) -> Self {
        Self {
            boot,
            since_boot: since_boot * 1000,
            wall: wall * 1000,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn setting_the_wall_clock_changes_nothing_within_a_boot() {
        let then = Moment::test(7, 100, 5000).after(MINUTE);
        for wall in [0, 5000, 1_000_000] {
            assert_eq!(then.left(Moment::test(7, 110, wall)), Duration::from_secs(50));
            assert!(!then.is_past(Moment::test(7, 159, wall)));
            assert!(then.is_past(Moment::test(7, 160, wall)));
        }
    }

    #[test]
    fn after_another_boot_the_wall_clock_counts() {
        let then = Moment::test(7, 100, 5000).after(MINUTE);
        assert_eq!(then.left(Moment::test(8, 1, 5010)), Duration::from_secs(50));
        assert!(then.is_past(Moment::test(8, 1, 5060)));
        let unknown = Moment::test(0, 100, 5000).after(MINUTE);
        assert_eq!(unknown.left(Moment::test(0, 500, 5010)), Duration::from_secs(50));
    }

    #[test]
    fn this_machine_has_a_boot_and_its_time_goes_on() {
        let clock = HostClock::new();
        let one = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        let other = clock.now();
        assert!(one.boot != 0 && one.boot == HostClock::new().now().boot);
        assert!(other.since_boot > one.since_boot && other.wall > 1_700_000_000_000);
    }

    #[test]
    fn is_kept_as_it_is() {
        let moment = HostClock::new().now();
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment);
    }
}
