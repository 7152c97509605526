//! What is done once a second: what changes by itself, as time goes by and connections end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Engine, HOUSEKEEPING, leaving_vips};
use crate::config::Scheduler;
use crate::host_checks;
use crate::observed_state::Observed;

/// Every how many times timed-out entries are swept; they must be within 2^15 ticks, a day and a half, of their end.
const SWEEP_EVERY: u32 = 60;
/// Counting connections for the choice of the least loaded takes at most one part in so many of a processor's time.
const COUNTING_SHARE: u32 = 20;

/// What the housekeeping remembers from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    times: u32,
    /// When connections are counted again for the choice of the least loaded; `None`: at once.
    next_count: Option<Instant>,
    flooded: bool,
}

impl Engine {
    /// Sweeps, lets go of what has left and whose last connection has ended, lets shares grow, tells the program how many
    /// connections backends have, and warns of what is new.
    pub(super) async fn keep_house(&mut self) {
        self.housekeeping.times = self.housekeeping.times.wrapping_add(1);
        // What is leaving waits for its last entry, also for one that has timed out.
        if (self.identities.has_departures() || self.housekeeping.times.is_multiple_of(SWEEP_EVERY))
            && let Ok(now) = self.dataplane.now()
        {
            let swept = self.dataplane.connections().sweep(now);
            tracing::debug!(swept, "swept timed-out connections");
        }
        if self.ledger.is_over() {
            self.take_back().await;
        }
        if self.recoveries.any() || self.deadline_has_passed() {
            self.reconcile();
        }
        if self.identities.has_departures()
            && let Some(observed) = self.observe()
        {
            self.see_off(&observed).await;
        }
        self.tell_loads();
        self.tell_floods();
        self.warn();
    }

    /// Takes what has left, and has no connection left, out of the tables.
    async fn see_off(&mut self, observed: &Observed) {
        let mut identities = self.identities.clone();
        identities.give_back(observed);
        let changed = identities.let_go(observed, |id| self.counters(id));
        let before = std::mem::replace(&mut self.identities, identities);
        if !changed {
            return;
        }
        if !self.reconcile() {
            // The tables still hold them, so their numbers are not free.
            self.identities = before;
            return;
        }
        let leaving = leaving_vips(&self.identities);
        if let Err(error) = self.vips.set(&self.file.services, &leaving).await {
            tracing::error!(%error, "cannot take off the VIPs that nobody needs any more");
        }
    }

    /// The program only adds up what it opens; what has ended is seen here.
    fn tell_loads(&mut self) {
        let by_load = |service: &crate::config::Service| service.scheduler == Scheduler::LeastConnections;
        let start = Instant::now();
        let is_due = self.housekeeping.next_count.is_none_or(|due| due <= start);
        if !is_due || !self.effective.services.iter().any(by_load) {
            return;
        }
        if let Some(observed) = self.observe() {
            self.dataplane.set_loads(|id| observed.open(id));
        }
        let pause = Duration::max(start.elapsed() * COUNTING_SHARE, HOUSEKEEPING / 2);
        self.housekeeping.next_count = Some(start + pause);
    }

    /// Logs when a flood begins and ends.
    fn tell_floods(&mut self) {
        let Ok(now) = self.dataplane.now() else { return };
        let flooded = self.dataplane.is_flooded(now);
        if flooded == self.housekeeping.flooded {
            return;
        }
        self.housekeeping.flooded = flooded;
        let evicted = self.dataplane.counters().evicted().unwrap_or_default();
        if flooded {
            tracing::warn!(
                evicted,
                "the connection table is full of half-open connections that make room for each other: backends are chosen \
                 by hashing until that is over"
            );
        } else {
            tracing::info!(evicted, "the flood of half-open connections is over");
        }
    }

    /// Logs each warning when it appears. The first second is for neighbours to answer.
    fn warn(&mut self) {
        if self.started.elapsed() < 2 * HOUSEKEEPING {
            return;
        }
        let warnings: BTreeSet<_> = host_checks::warnings(&self.effective, &self.hops)
            .into_iter()
            .collect();
        for warning in warnings.difference(&self.warned) {
            tracing::warn!("{warning}");
        }
        self.warned = warnings;
    }
}
