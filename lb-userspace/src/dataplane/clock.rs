//! The connection table's clock, as seen from user space: the kernel's jiffies, asked for through the program itself.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::tick::{Tick, shift_for, ticks_for};
use nix::time::{ClockId, clock_getres};

use super::DataplaneError;

/// Tick rates that Linux can be configured with.
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// The shortest frame that the program runner takes.
const FRAME: [u8; 14] = [0; 14];

/// How long a tick lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    hz: u32,
}

impl Clock {
    /// That of the running kernel. Its coarse clocks advance with its jiffies, and say how long one lasts (`clock_getres(2)`,
    /// since 2.6.32). To measure that instead would need a machine that is not busy: jiffies of a virtual one stand still
    /// while its other processors wait for their turn.
    pub(super) fn of_this_kernel() -> Result<Self, DataplaneError> {
        let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .map_err(|error| DataplaneError::Clock(error.to_string()))?;
        Self::with_jiffies_of(Duration::from(jiffy))
            .ok_or_else(|| DataplaneError::Clock(format!("a jiffy of {jiffy} is none that Linux can have")))
    }

    fn with_jiffies_of(length: Duration) -> Option<Self> {
        let hz = (1.0 / length.as_secs_f64()).round();
        let hz = RATES.into_iter().find(|rate| f64::from(*rate) == hz)?;
        Some(Self { hz })
    }

    /// How far jiffies are shifted to make a tick.
    pub(super) fn shift(self) -> u32 {
        shift_for(self.hz)
    }

    /// A timeout in ticks, never shorter than asked for.
    pub fn ticks(self, timeout: Duration) -> u16 {
        ticks_for(timeout.as_secs(), self.hz)
    }

    /// How long so many ticks last.
    pub fn duration(self, ticks: u16) -> Duration {
        let jiffies = u64::from(ticks) << self.shift();
        Duration::from_millis(jiffies * 1000 / u64::from(self.hz))
    }

    /// When so much time from now will have passed, in jiffies.
    pub(super) fn jiffies_after(self, program: &Xdp, time: Duration) -> Result<u64, DataplaneError> {
        let jiffies_of_time = time.as_millis() as u64 * u64::from(self.hz) / 1000;
        Ok(jiffies(program)?.wrapping_add(jiffies_of_time))
    }

    /// What time it is in the table.
    pub(super) fn now(self, program: &Xdp) -> Result<Tick, DataplaneError> {
        Ok(Tick::from_jiffies(jiffies(program)?, self.shift()))
    }
}

fn jiffies(program: &Xdp) -> Result<u64, DataplaneError> {
    let mut out = FRAME;
    let options = TestRunOptions {
        data_in: Some(&FRAME),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    };
    program
        .test_run(options)
        .map_err(|source| DataplaneError::Program {
            program: super::load::CLOCK,
            source: Box::new(source),
        })?;
    let [a, b, c, d, e, f, g, h, ..] = out;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_told_by_the_length_of_a_jiffy() {
        // As the kernel rounds them, in nanoseconds.
        for (jiffy, hz) in [
            (10_000_000, 100),
            (4_000_000, 250),
            (3_333_333, 300),
            (1_000_000, 1000),
        ] {
            let clock = Clock::with_jiffies_of(Duration::from_nanos(jiffy));
            assert_eq!(clock, Some(Clock { hz }));
        }
        for jiffy in [0, 1, 5_000_000, 1_000_000_000] {
            assert_eq!(Clock::with_jiffies_of(Duration::from_nanos(jiffy)), None);
        }
    }
}
