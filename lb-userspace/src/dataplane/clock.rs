//! The connection table's clock, as seen from user space: the kernel's jiffies, asked for through the program itself.

use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::tick::{Tick, shift_for, ticks_for};

use super::DataplaneError;

/// Tick rates that Linux can be configured with.
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// At 100 Hz, an error of one in fifteen: the rates are further apart than that.
const MEASURE: Duration = Duration::from_millis(150);
/// The shortest frame that the program runner takes.
const FRAME: [u8; 14] = [0; 14];

/// How long a tick lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    hz: u32,
}

impl Clock {
    /// Measures the kernel's tick rate with the object's clock program; takes 150 ms.
    pub(super) fn measure(program: &Xdp) -> Result<Self, DataplaneError> {
        let (first, started) = (jiffies(program)?, Instant::now());
        std::thread::sleep(MEASURE);
        let (last, elapsed) = (jiffies(program)?, started.elapsed());
        let measured = last.wrapping_sub(first) as f64 / elapsed.as_secs_f64();
        RATES
            .into_iter()
            .find(|rate| (0.91..1.09).contains(&(measured / f64::from(*rate))))
            .map(|hz| Self { hz })
            .ok_or_else(|| DataplaneError::Clock(format!("{measured:.0} Hz is none that Linux can have")))
    }

    /// That of a kernel with this tick rate, in Hz.
    pub(super) fn of(hz: u32) -> Option<Self> {
        RATES.contains(&hz).then_some(Self { hz })
    }

    /// The kernel's tick rate, in Hz.
    pub(super) fn hz(self) -> u32 {
        self.hz
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
