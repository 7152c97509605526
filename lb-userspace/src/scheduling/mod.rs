//! Slot tables: every scheduler is a sequence of backend ids that the program deals connections out by.

mod round_robin;

use std::net::SocketAddr;

use lb_common::abi::Choice;

use crate::config::Scheduler;

pub use round_robin::{slots_needed, weighted_round_robin};

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

/// The slots of a service.
pub fn slots(scheduler: Scheduler, candidates: &[Candidate]) -> Vec<u16> {
    let weights: Vec<_> = candidates.iter().map(|it| (it.id, it.share)).collect();
    let _ = scheduler;
    weighted_round_robin(&weights)
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
