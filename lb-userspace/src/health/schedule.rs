//! When a backend is asked: at once, then again and again, a little out of step with the others.

use std::future::Future;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// From the start of one probe to the start of the next: `interval` and a random part of `jitter`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    pub(super) interval: Duration,
    pub(super) jitter: Duration,
}

impl Rhythm {
    /// Before the first probe: a spread, so that a start with many backends is no burst.
    fn first(self) -> Duration {
        part_of(self.jitter.min(self.interval))
    }

    fn next(self) -> Duration {
        self.interval + part_of(self.jitter)
    }
}

fn part_of(whole: Duration) -> Duration {
    whole.mul_f64(fastrand::f64())
}

/// Probes until `report` breaks. A probe that takes no longer than `interval` never delays the next one; a late start
/// (a busy host) is not made up for by a burst.
///
/// So a backend that fails at any moment has failed `fall` probes within
/// `fall × (interval + jitter) + timeout` of it.
pub(super) async fn run<F: Future>(
    rhythm: Rhythm,
    probe: impl Fn() -> F,
    mut report: impl FnMut(F::Output) -> ControlFlow<()>,
) {
    let mut start = Instant::now() + rhythm.first();
    loop {
        sleep_until(start).await;
        start = Instant::now() + rhythm.next();
        if report(probe().await).is_break() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::time::sleep;

    use super::super::state::{Outcome, State, Status};
    use super::*;

    const RHYTHM: Rhythm = Rhythm {
        interval: Duration::from_millis(1000),
        jitter: Duration::from_millis(300),
    };
    /// tokio's timer counts in whole milliseconds and rounds up: once for each start.
    const TIMER: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn starts_at_once_and_keeps_to_the_rhythm() {
        let begin = Instant::now();
        let mut starts = Vec::new();
        let probe = || async {
            let started = Instant::now();
            sleep(Duration::from_millis(fastrand::u64(0..1000))).await;
            started
        };
        run(RHYTHM, probe, |started| {
            starts.push(started);
            if starts.len() < 500 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .await;
        assert!(starts[0] - begin <= RHYTHM.jitter + TIMER);
        let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for gap in &gaps {
            assert!(
                (RHYTHM.interval..=RHYTHM.interval + RHYTHM.jitter + TIMER).contains(gap),
                "{gap:?}"
            );
        }
        let spread = gaps
            .iter()
            .max()
            .unwrap()
            .saturating_sub(*gaps.iter().min().unwrap());
        assert!(spread > RHYTHM.jitter / 2, "the jitter is used: {spread:?}");
    }

    /// The promise to the operator, over many moments of failure: a backend that hangs is down in time.
    #[tokio::test(start_paused = true)]
    async fn detects_a_failure_within_the_bound() {
        let timeout = Duration::from_millis(700);
        for _ in 0..300 {
            let fall = fastrand::u32(1..5);
            let begin = Instant::now();
            let fails_at = begin + Duration::from_micros(fastrand::u64(1..10_000_000));
            let probe = || async {
                // Healthy: answers in 20 ms. Failed, also in the midst of an answer: hangs until the timeout.
                let started = Instant::now();
                if started + Duration::from_millis(20) < fails_at {
                    sleep(Duration::from_millis(20)).await;
                    return Outcome::Success(String::new());
                }
                sleep(timeout).await;
                Outcome::Failure(String::new())
            };
            let mut state = State::new(SystemTime::UNIX_EPOCH);
            run(RHYTHM, probe, |outcome| {
                state.observe(outcome, SystemTime::UNIX_EPOCH, 2, fall);
                match state.health().status {
                    Status::Down => ControlFlow::Break(()),
                    Status::Up | Status::Checking => ControlFlow::Continue(()),
                }
            })
            .await;
            let took = Instant::now().saturating_duration_since(fails_at);
            let bound = (RHYTHM.interval + RHYTHM.jitter + TIMER) * fall + timeout + TIMER;
            assert!(took <= bound, "fall {fall}: took {took:?}, bound {bound:?}");
        }
    }
}
