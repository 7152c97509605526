//! Waiting for the kernel's jiffies, by which the program limits what it does how often.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::time::{ClockId, clock_gettime};

/// Waits until there has been another jiffy at least, of 1 to 10 ms. To sleep so long does not do: jiffies of a virtual machine
/// stand still while the processor that counts them waits for its turn. The coarse clock advances with them.
pub fn next() -> anyhow::Result<()> {
    let limit = Instant::now() + Duration::from_secs(30);
    let now = || clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    let before = now()?;
    while now()? == before {
        ensure!(Instant::now() < limit, "no jiffy has passed in half a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
