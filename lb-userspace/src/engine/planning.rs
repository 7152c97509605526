//! The one way of every change: what is wanted ([`Goal`]) → what follows from it and what that does ([`Planned`]) → in force.

use std::collections::BTreeSet;

use super::{Engine, Goal, Next};
use crate::api::Refusal;
use crate::api::types::BackendState;
use crate::config::Config;
use crate::desired_state::DesiredService;
use crate::health::Status;
use crate::moment::Moment;
use crate::persisted::Overrides;
use crate::plan::{self, Outlook, Plan, State};
use crate::reconcile::{self, BackendIdentity, ServiceIdentity, ServiceKey};

/// Whose connections are reset at once when it leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Force {
    /// Nobody's.
    #[default]
    Nobody,
    /// Of all that leave now.
    AllLeaving,
    /// Of these, by the names of service and backend, also if they are leaving already.
    Named(BTreeSet<(String, String)>),
}

/// How far a plan looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// To what is in force at once, and not to who would move without state.
    Now,
    /// To what it comes to once backends are up that have not been probed yet.
    OnceUp,
}

/// A change that is thought through and not yet made.
pub(super) struct Planned {
    /// What it does.
    pub(super) plan: Plan,
    /// What is to be in force.
    pub(super) next: Next,
}

impl Engine {
    /// What is to be in force if nothing else is wanted.
    pub(super) fn goal(&self) -> Goal {
        Goal {
            file: self.file.clone(),
            overrides: self.overrides.clone(),
            handed_off: self.handed_off.clone(),
            force: Force::Nobody,
        }
    }

    /// Thinks a change through; touches nothing.
    ///
    /// # Errors
    /// What is wanted does not fit, or contradicts itself.
    pub(super) fn plan(&self, goal: Goal, ahead: Ahead) -> Result<Planned, Refusal> {
        let next = self.next(goal)?;
        if next.entries == self.published && next.desired == self.desired && next.file == self.file {
            let plan = Plan::default();
            return Ok(Planned { plan, next });
        }
        let before = State {
            desired: &self.desired,
            site: self.file.site.as_ref(),
            identities: &self.identities,
            entries: &self.published,
        };
        let after = State {
            desired: &next.desired,
            site: next.file.site.as_ref(),
            identities: &next.identities,
            entries: &next.entries,
        };
        let (was_to_be, is_to_be);
        // What changes by itself must not wait until all clients' hashes are computed.
        let mut outlook = Outlook {
            before: &next.entries,
            after: &next.entries,
            awaited: &[],
        };
        let awaited = awaited(&self.desired, &next.desired);
        if ahead == Ahead::OnceUp {
            outlook.before = &self.published;
            if has_unprobed(&self.desired) {
                let desired = self.once_up(&self.goal());
                was_to_be = reconcile::entries(&desired, &self.identities, &self.hops, &self.slot_tables).0;
                outlook.before = &was_to_be;
            }
            if has_unprobed(&next.desired) {
                let desired = self.once_up(&next.goal());
                is_to_be = reconcile::entries(&desired, &next.identities, &self.hops, &next.slot_tables).0;
                (outlook.after, outlook.awaited) = (&is_to_be, &awaited);
            }
        }
        let connections = || {
            let now = self.dataplane.now();
            let now = now.inspect_err(|error| tracing::error!(%error, "cannot read the connection table"));
            Some(self.dataplane.connections().iter(now.ok()?))
        };
        let (now, seed) = (self.ledger.now(), self.file.daemon.selection_seed);
        let plan = plan::make(before, after, outlook, now, seed, connections);
        Ok(Planned { plan, next })
    }

    /// Puts a planned change in force, with one flip of the tables, and logs it; `why` begins each line.
    pub(super) fn put_in_force(&mut self, planned: Planned, why: &str) -> Plan {
        let Planned { plan, next } = planned;
        for step in &plan.steps {
            // What probes find is in the log already; here is what comes of it.
            if why != PROBES || step.touches() {
                tracing::info!("{why}: {step}");
            }
        }
        self.commit(next);
        plan
    }

    /// The desired state with everybody up who has not been probed yet.
    fn once_up(&self, goal: &Goal) -> Vec<DesiredService> {
        let effective = crate::desired_state::with_overrides(&goal.file, &goal.overrides);
        self.desired(
            &effective,
            &goal.overrides,
            &goal.handed_off,
            |status| match status {
                Status::Checking => Status::Up,
                other => other,
            },
        )
    }

    /// When what is left of the connections of a backend is reset that leaves; `None`: never.
    pub(super) fn reset_at(
        &self,
        now: Moment,
        goal: &Goal,
        key: &ServiceKey,
        service: &ServiceIdentity,
        backend: &BackendIdentity,
    ) -> Option<Moment> {
        let forced = match &goal.force {
            Force::Nobody => false,
            Force::AllLeaving => backend.parting.is_none(),
            Force::Named(names) => names.contains(&(service.name.clone(), backend.name.clone())),
        };
        if forced {
            return Some(now);
        }
        if let Some(parting) = backend.parting {
            return parting.reset_at;
        }
        let timeout = drain_timeout(&goal.file, key).or_else(|| drain_timeout(&self.effective, key))?;
        let drained = |overrides: &Overrides| overrides.get(&service.name, &backend.name)?.drain;
        match drained(&self.overrides) {
            Some(drain) => drain.until(timeout),
            None => Some(now.after(timeout?)),
        }
    }

    /// Whether the time of something that drains or leaves has come since the tables were last made.
    pub(super) fn deadline_has_passed(&self) -> bool {
        let now = self.ledger.now();
        let mut drained = self.desired.iter().flat_map(|service| &service.backends);
        let backends = self
            .identities
            .services()
            .flat_map(|(_, it)| it.backends.values());
        let mut leaving = backends.filter_map(|backend| backend.parting);
        drained.any(|it| !it.overdue && it.drain_until.is_some_and(|until| until.is_past(now)))
            || leaving.any(|it| !it.resetting && it.reset_at.is_some_and(|until| until.is_past(now)))
    }
}

/// Why the tables change by themselves.
pub(super) const PROBES: &str = "health";

/// What a service says; the outer `None`: there is no such service.
#[allow(
    clippy::option_option,
    reason = "no service and no timeout are different answers"
)]
fn drain_timeout(config: &Config, key: &ServiceKey) -> Option<Option<std::time::Duration>> {
    let mut services = config.services.iter();
    let service = services.find(|service| ServiceKey::of(service) == *key)?;
    Some(service.drain_timeout)
}

fn has_unprobed(desired: &[DesiredService]) -> bool {
    desired
        .iter()
        .flat_map(|service| &service.backends)
        .any(|backend| backend.state == BackendState::Checking)
}

/// Those that have not been probed yet and were not there, or not waited for, before.
fn awaited(before: &[DesiredService], after: &[DesiredService]) -> Vec<(String, String)> {
    let unprobed = |desired: &[DesiredService]| -> BTreeSet<(String, String)> {
        let of = |service: &DesiredService| {
            let backends = service.service.backends.iter().zip(&service.backends);
            let unprobed = backends.filter(|(_, it)| it.state == BackendState::Checking);
            let names = unprobed.map(|(backend, _)| (service.service.name.clone(), backend.name.clone()));
            names.collect::<Vec<_>>()
        };
        desired.iter().flat_map(of).collect()
    };
    unprobed(after).difference(&unprobed(before)).cloned().collect()
}
