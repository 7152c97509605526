//! The connection table's clock: 16 bits that advance about every four seconds.
//!
//! A tick is a power of two of the kernel's jiffies, so that reading it costs a load and a shift. 65,536 ticks are then
//! at least three days, and a deadline may lie up to half of that ahead.

/// A point in time, in ticks, modulo 2^16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(pub u16);

/// The longest timeout, in ticks. With its [`slack`] a deadline lies half of the wrap ahead at most, which is the most that
/// [`Tick::is_past`] can tell; the other half is the time that the daemon has to sweep an expired entry before it would look alive
/// again.
pub const MAX_TIMEOUT: u16 = 30_840;
const _: () = assert!(MAX_TIMEOUT + slack(MAX_TIMEOUT) == 0x7fff);

impl Tick {
    /// The tick of a moment in jiffies, where a tick lasts `1 << shift` of them.
    #[inline(always)]
    pub fn from_jiffies(jiffies: u64, shift: u32) -> Self {
        Self((jiffies >> (shift & 63)) as u16)
    }

    /// This tick, `ticks` later.
    #[inline(always)]
    pub fn after(self, ticks: u16) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Whether this tick lies before `now`.
    #[inline(always)]
    pub fn is_past(self, now: Self) -> bool {
        self.until(now) < 0
    }

    /// Ticks from `now` until this one; negative: it is over.
    #[inline(always)]
    pub fn until(self, now: Self) -> i16 {
        self.0.wrapping_sub(now.0) as i16
    }
}

/// By how much the deadline of an established connection may be later than its timeout says: a sixteenth, of timeouts from a
/// minute on. Its packets need not change the entry until as much time has passed.
#[inline(always)]
pub const fn slack(timeout: u16) -> u16 {
    timeout >> 4
}

/// How many bits to shift jiffies by so that 2^16 ticks last at least three days (259,200 s).
pub const fn shift_for(hz: u32) -> u32 {
    let mut shift = 0;
    while ((1u64 << shift) << 16) < 259_200 * hz as u64 {
        shift += 1;
    }
    shift
}

/// A timeout in ticks: rounded up, and one more, since the present tick is already partly over.
pub const fn ticks_for(seconds: u64, hz: u32) -> u16 {
    let ticks = (seconds * hz as u64).div_ceil(1 << shift_for(hz)) + 1;
    if ticks > MAX_TIMEOUT as u64 {
        MAX_TIMEOUT
    } else {
        ticks as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_about_four_seconds_at_every_usual_hz() {
        for (hz, seconds) in [(100, 5.12), (250, 4.096), (300, 6.8267), (1000, 4.096)] {
            let tick = f64::from(1u32 << shift_for(hz)) / f64::from(hz);
            assert!((tick - seconds).abs() < 0.001, "{hz}: {tick}");
            assert!(tick * 65536.0 >= 259_200.0);
        }
    }

    #[test]
    fn a_timeout_never_ends_early() {
        for hz in [100, 250, 300, 1000] {
            for seconds in [5, 30, 120, 7440, 86_400] {
                let tick = f64::from(1u32 << shift_for(hz)) / f64::from(hz);
                let shortest = f64::from(ticks_for(seconds, hz) - 1) * tick;
                assert!(shortest >= seconds as f64 && shortest < seconds as f64 + 2.0 * tick);
            }
        }
    }

    #[test]
    fn deadlines_survive_the_wrap() {
        let now = Tick(0xfffe);
        assert!(!now.after(5).is_past(now));
        assert!(!now.after(5).is_past(now.after(5)));
        assert!(now.after(5).is_past(now.after(6)));
        assert!(!now.after(MAX_TIMEOUT + slack(MAX_TIMEOUT)).is_past(now));
    }
}
