//! A tick of the connection table's clock lasts as long as the daemon believes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lb::dataplane::Dataplane;
use lb_common::tick::Tick;
use lb_tests::harness::Case;

use crate::verifier::{SMALLEST, object};

pub fn cases() -> Vec<Case> {
    vec![Case::new("clock::a_tick_lasts_as_long_as_it_is_said_to", tick)]
}

/// Linux's tick rates differ by a fifth at least. A busy machine may see a tick late.
const TOLERANCE: f64 = 0.09;

fn tick() -> anyhow::Result<()> {
    let dataplane = Dataplane::load(&object()?, SMALLEST)?;
    let expected = dataplane.clock().duration(1);
    let mut began = next(&dataplane)?;
    let mut ratio = 0.0;
    for _ in 0..3 {
        let ended = next(&dataplane)?;
        ratio = (ended - began).as_secs_f64() / expected.as_secs_f64();
        if (ratio - 1.0).abs() < TOLERANCE {
            return Ok(());
        }
        began = ended;
    }
    ensure!(
        false,
        "a tick should last {expected:?}, and lasts {ratio:.2} times that"
    );
    Ok(())
}

/// When the next tick begins.
fn next(dataplane: &Dataplane) -> anyhow::Result<Instant> {
    let limit = Instant::now() + Duration::from_secs(30);
    let Tick(before) = dataplane.now().context("no time")?;
    while dataplane.now()?.0 == before {
        ensure!(Instant::now() < limit, "no tick has passed in half a minute");
        sleep(Duration::from_millis(5));
    }
    Ok(Instant::now())
}
