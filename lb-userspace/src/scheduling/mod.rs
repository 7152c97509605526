//! Slot tables: every scheduler is a sequence of backend ids that the program deals connections out by.

mod least_connections;
mod maglev;
mod random;
mod round_robin;
mod source_hash;

use std::net::SocketAddr;

use lb_common::abi::Choice;

use crate::config::Scheduler;

pub use maglev::{TABLE_SIZES, table_size};
use round_robin::{common_divisor, slots_needed};

/// Up to so many slots the shares of a service are multiplied while one of them grows, so that a tenth of a small share is
/// not nothing.
pub const GROWING: usize = 1000;

/// A backend that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its id in the kernel's tables: the present run's, and this balancer's alone.
    pub id: u16,
    /// Its address and port: the same in every run, on every balancer.
    pub endpoint: SocketAddr,
    /// Its share of new connections relative to the others; 0: none.
    pub share: u16,
}

/// The slots of a service; empty if no candidate has a share. The candidates are all of its backends, those without a share
/// included: how many there are decides how large a hash table is.
pub fn slots(scheduler: Scheduler, candidates: &[Candidate]) -> Vec<u16> {
    match scheduler {
        Scheduler::RoundRobin => round_robin::slots(candidates),
        Scheduler::LeastConnections => least_connections::slots(candidates),
        Scheduler::Random => random::slots(candidates),
        Scheduler::Maglev => maglev::slots(candidates),
        Scheduler::SourceHash => source_hash::slots(candidates),
    }
}

/// The scheduler whose choice is this one, if it chooses by hashing.
pub fn hashing(choice: u32) -> Option<Scheduler> {
    [Scheduler::Maglev, Scheduler::SourceHash]
        .into_iter()
        .find(|scheduler| self::choice(Some(*scheduler)) as u32 == choice)
}

/// How the program takes a slot. `None`: of a service that has none.
pub fn choice(scheduler: Option<Scheduler>) -> Choice {
    match scheduler {
        None | Some(Scheduler::RoundRobin) => Choice::Cursor,
        Some(Scheduler::LeastConnections) => Choice::Least,
        Some(Scheduler::Maglev) => Choice::Hash,
        Some(Scheduler::SourceHash) => Choice::Source,
        Some(Scheduler::Random) => Choice::Random,
    }
}

/// How many slots of the program's pool a service with backends of these weights may take, those before the last change
/// included; `grows`: its backends' shares do after a recovery.
pub fn room(scheduler: Scheduler, weights: impl Iterator<Item = u16> + Clone, grows: bool) -> usize {
    if scheduler.hashes() {
        2 * table_size(weights.count())
    } else if grows {
        weights.map(usize::from).sum::<usize>().max(GROWING)
    } else {
        slots_needed(weights)
    }
}

/// Each id so often as its share says, divided by the shares' common divisor; in no particular order.
fn by_share(candidates: &[Candidate]) -> Vec<u16> {
    let divisor = common_divisor(candidates.iter().map(|it| it.share));
    let times = |it: &Candidate| std::iter::repeat_n(it.id, usize::from(it.share / divisor));
    candidates.iter().flat_map(times).collect()
}

#[cfg(test)]
fn candidates(shares: &[u16]) -> Vec<Candidate> {
    (1..)
        .zip(shares)
        .map(|(id, share)| Candidate {
            id,
            endpoint: SocketAddr::from(([198, 18, (id / 250) as u8, (id % 250) as u8], 443)),
            share: *share,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Scheduler; 5] = [
        Scheduler::RoundRobin,
        Scheduler::LeastConnections,
        Scheduler::Random,
        Scheduler::Maglev,
        Scheduler::SourceHash,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whoever has a share has a slot, whoever has none has none; and there is always as much room as was reckoned.
        #[test]
        fn slots_are_theirs_who_have_a_share(shares in prop::collection::vec(0u16..=256, 0..40)) {
            let candidates = candidates(&shares);
            for scheduler in ALL {
                let slots = slots(scheduler, &candidates);
                for it in &candidates {
                    prop_assert_eq!(slots.contains(&it.id), it.share > 0, "{:?} {}", scheduler, it.id);
                }
                let copies = if scheduler.hashes() { 2 } else { 1 };
                let room = |grows| room(scheduler, shares.iter().copied(), grows);
                prop_assert!(slots.len() * copies <= room(false) && room(false) <= room(true));
            }
        }
    }

    #[test]
    fn as_many_services_and_backends_as_there_may_be_fit_however_they_are_distributed() {
        const POOL: usize = (lb_common::abi::SLOT_LINES * lb_common::abi::SLOTS_PER_LINE) as usize;
        const SERVICES: usize = 1024;
        const BACKENDS: usize = 4096;
        let of = |backends: usize| room(Scheduler::Maglev, std::iter::repeat_n(1, backends), true);
        assert!(SERVICES * of(BACKENDS / SERVICES) <= POOL);
        // No backend costs more than the pool has for each of as many as there may be.
        for backends in 1..=BACKENDS {
            assert!(of(backends) * BACKENDS <= backends * POOL, "{backends}");
        }
    }
}
