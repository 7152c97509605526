//! Slow start: after a recovery a backend's share grows from a tenth to the whole, in tenths, so that what is cold there gets
//! warm. Pure: times are given.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{DesiredBackend, DesiredService};
use crate::api::types::BackendState;
use crate::health::TargetId;
use crate::scheduling::GROWING;

/// The whole share.
const WHOLE: u16 = 10;
/// Up to so many slots a service's shares are multiplied.
const SLOTS: u32 = GROWING as u32;

/// When backends recovered that have not their whole share yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recoveries(HashMap<TargetId, Instant>);

impl Recoveries {
    /// Those after a change of the desired state from `before` to `after`.
    #[must_use]
    pub fn after(&self, before: &[DesiredService], after: &[DesiredService], now: Instant) -> Self {
        let failed: HashMap<TargetId, bool> = backends(before)
            .map(|(id, _, backend)| (id, has_failed(backend)))
            .collect();
        let mut recoveries = HashMap::new();
        for (id, slow_start, backend) in backends(after) {
            if slow_start.is_zero() || has_failed(backend) {
                continue;
            }
            let known = self.0.get(&id).copied();
            let recovered = if failed.get(&id) == Some(&true) {
                Some(now)
            } else {
                known
            };
            if let Some(recovered) = recovered
                && tenths(now.saturating_duration_since(recovered), slow_start) < WHOLE
            {
                recoveries.insert(id, recovered);
            }
        }
        Self(recoveries)
    }

    /// Those that were so far when an earlier daemon noted it.
    #[must_use]
    pub fn known(recovering: impl IntoIterator<Item = (TargetId, Duration)>, now: Instant) -> Self {
        let since = |(id, elapsed)| Some((id, now.checked_sub(elapsed)?));
        Self(recovering.into_iter().filter_map(since).collect())
    }

    /// For how long they have been up.
    pub fn elapsed(&self, now: Instant) -> impl Iterator<Item = (TargetId, Duration)> {
        self.0
            .iter()
            .map(move |(id, since)| (id.clone(), now.saturating_duration_since(*since)))
    }

    /// Whether any backend has not its whole share: then shares change as time goes by.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Gives recovered backends what they may have of their shares now.
    pub fn apply(&self, services: &mut [DesiredService], now: Instant) {
        for desired in services {
            let tenths: Vec<_> = backends(std::slice::from_ref(desired))
                .map(|(id, slow_start, backend)| {
                    let recovered = self.0.get(&id).filter(|_| backend.share > 0)?;
                    let tenths = tenths(now.saturating_duration_since(*recovered), slow_start);
                    (tenths < WHOLE).then_some(tenths)
                })
                .collect();
            if tenths.iter().all(Option::is_none) {
                continue;
            }
            let sum: u32 = desired.backends.iter().map(|it| u32::from(it.share)).sum();
            let times = (SLOTS / sum.max(1)).clamp(1, u32::from(WHOLE)) as u16;
            for (backend, tenths) in desired.backends.iter_mut().zip(tenths) {
                backend.slow_start = tenths.map(|tenths| (tenths * 10) as u8);
                backend.share *= times;
                if let Some(tenths) = tenths {
                    backend.share = (backend.share * tenths).div_ceil(WHOLE);
                }
            }
        }
    }
}

/// Every backend, with the time that its share takes to grow.
fn backends(services: &[DesiredService]) -> impl Iterator<Item = (TargetId, Duration, &DesiredBackend)> {
    services.iter().flat_map(|desired| {
        let service = &desired.service;
        service
            .backends
            .iter()
            .zip(&desired.backends)
            .map(|(backend, state)| {
                let id = TargetId {
                    service: service.name.clone(),
                    backend: backend.name.clone(),
                };
                (id, service.slow_start, state)
            })
    })
}

fn has_failed(backend: &DesiredBackend) -> bool {
    matches!(backend.state, BackendState::Down | BackendState::Disabled)
}

/// How much of its share a backend has: a tenth at first, all of it when the time is over.
fn tenths(since: Duration, slow_start: Duration) -> u16 {
    if since >= slow_start {
        return WHOLE;
    }
    let steps = u128::from(WHOLE - 1) * since.as_millis() / slow_start.as_millis().max(1);
    1 + steps.min(u128::from(WHOLE - 1)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::test_config;

    const SLOW: Duration = Duration::from_secs(90);

    /// `www` with `web1` and `web2` of these states and weights.
    fn services(states: [BackendState; 2], weights: [u16; 2]) -> Vec<DesiredService> {
        let mut service = test_config().services.remove(0);
        service.slow_start = SLOW;
        let backends = (0..2)
            .map(|i| DesiredBackend {
                state: states[i],
                share: if states[i] == BackendState::Up {
                    weights[i]
                } else {
                    0
                },
                slow_start: None,
                up: states[i] == BackendState::Up,
                reset: false,
                drain_until: None,
                overdue: false,
            })
            .collect();
        vec![DesiredService { service, backends }]
    }

    fn shares(services: &[DesiredService]) -> [u16; 2] {
        [services[0].backends[0].share, services[0].backends[1].share]
    }

    #[test]
    fn a_share_grows_in_tenths() {
        use BackendState::{Disabled, Down, Up};
        for failed in [Down, Disabled] {
            let start = Instant::now();
            let (before, after) = (services([failed, Up], [1, 1]), services([Up, Up], [1, 1]));
            let recoveries = Recoveries::default().after(&before, &after, start);
            assert!(recoveries.any());
            for (seconds, expected) in [
                (0, [1, 10]),
                (9, [1, 10]),
                (10, [2, 10]),
                (45, [5, 10]),
                (89, [9, 10]),
            ] {
                let now = start + Duration::from_secs(seconds);
                let recoveries = recoveries.after(&after, &after, now);
                let mut after = after.clone();
                recoveries.apply(&mut after, now);
                assert_eq!(shares(&after), expected, "{seconds} s");
                assert_eq!(after[0].backends[0].slow_start, Some(10 * expected[0] as u8));
                assert_eq!(after[0].backends[1].slow_start, None);
            }
            let over = start + SLOW;
            let recoveries = recoveries.after(&after, &after, over);
            assert!(!recoveries.any());
            let mut whole = after.clone();
            recoveries.apply(&mut whole, over);
            assert_eq!(whole, after);
        }
    }

    #[test]
    fn what_is_no_recovery() {
        use BackendState::{Checking, Down, Draining, Up};
        let now = Instant::now();
        for first in [Checking, Draining, Up] {
            let (before, after) = (services([first, Up], [1, 1]), services([Up, Up], [1, 1]));
            assert!(
                !Recoveries::default().after(&before, &after, now).any(),
                "{first:?}"
            );
        }
        let (down, mut up) = (services([Down, Up], [1, 1]), services([Up, Up], [1, 1]));
        assert!(!Recoveries::default().after(&[], &up, now).any(), "a new backend");
        let recoveries = Recoveries::default().after(&down, &up, now);
        assert!(!recoveries.after(&up, &down, now).any(), "it failed again");
        up[0].service.slow_start = Duration::ZERO;
        assert!(
            !Recoveries::default().after(&down, &up, now).any(),
            "not asked for"
        );
    }

    #[test]
    fn a_recovered_backend_that_gets_nothing_gets_nothing() {
        use BackendState::{Down, Draining, Up};
        let now = Instant::now();
        let (before, mut after) = (services([Down, Up], [3, 3]), services([Draining, Up], [3, 3]));
        let recoveries = Recoveries::default().after(&before, &after, now);
        recoveries.apply(&mut after, now);
        assert_eq!(shares(&after), [0, 3]);
    }

    proptest! {
        /// Never more than its weight says and never nothing, and the more the later; slots stay few.
        #[test]
        fn growing(weights in [1u16..=256, 1u16..=256], mut seconds in prop::collection::vec(0u64..100, 2..6)) {
            use BackendState::{Down, Up};
            let start = Instant::now();
            let (before, after) = (services([Down, Up], weights), services([Up, Up], weights));
            let recoveries = Recoveries::default().after(&before, &after, start);
            seconds.sort_unstable();
            let mut last = 0.0;
            for second in seconds {
                let now = start + Duration::from_secs(second);
                let mut services = after.clone();
                recoveries.apply(&mut services, now);
                let [recovering, other] = shares(&services).map(f64::from);
                prop_assert!(recovering >= 1.0);
                let whole = f64::from(weights[0]) / f64::from(weights[1]);
                prop_assert!(recovering / other >= last && recovering / other <= whole + 1e-9);
                prop_assert!(recovering + other <= f64::from(SLOTS).max(f64::from(weights[0] + weights[1])));
                last = recovering / other;
            }
        }
    }
}
