//! What should be: the file, with what was changed at run time, in the light of health. Pure.

mod slow_start;

pub use slow_start::Recoveries;

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use crate::api::types::BackendState;
use crate::config::{self, Config, OnDown, Ports, Protocol, WhenAllDown};
use crate::health::{Status, TargetId};
use crate::moment::Moment;
use crate::persisted::Overrides;

/// A service as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredService {
    /// Its settings; the backends are those in force, with the weights in force.
    pub service: config::Service,
    /// What each of the backends should be, in the same order.
    pub backends: Vec<DesiredBackend>,
}

/// What a backend should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DesiredBackend {
    /// What it is doing.
    pub state: BackendState,
    /// Its weight in the choice of backends, relative to the others of the service; 0: it gets no new connections.
    pub share: u16,
    /// While its share grows after a recovery: how much of its weight it has, in percent.
    pub slow_start: Option<u8>,
    /// Whether a SYN from a port that has a connection to it stays with it.
    pub up: bool,
    /// Whether its clients' next packets are answered with a RST.
    pub reset: bool,
    /// When what is left of its connections is reset, while it is drained by hand; `None`: never.
    pub drain_until: Option<Moment>,
    /// Whether that time has come.
    pub overdue: bool,
}

/// Everything that the desired state follows from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The file, with the overrides applied by [`with_overrides`].
    pub config: &'a Config,
    /// Changes made at run time.
    pub overrides: &'a Overrides,
    /// Web servers that a hand-off is busy with.
    pub handed_off: &'a BTreeSet<String>,
    /// The time.
    pub now: Moment,
}

/// The configuration with backends added, removed and reweighted at run time.
pub fn with_overrides(file: &Config, overrides: &Overrides) -> Config {
    let mut config = file.clone();
    for service in &mut config.services {
        let Some(changes) = overrides.backends.get(&service.name) else {
            continue;
        };
        service.backends.retain(|backend| {
            changes
                .get(&backend.name)
                .is_none_or(|change| !change.removed && change.added.is_none())
        });
        service
            .backends
            .extend(changes.values().filter_map(|change| change.added.clone()));
        for backend in &mut service.backends {
            if let Some(weight) = changes.get(&backend.name).and_then(|change| change.weight) {
                backend.weight = weight;
            }
        }
    }
    config
}

impl Inputs<'_> {
    /// Every service as it should be; `status` says what the probes of a backend say.
    pub fn desired(&self, status: impl Fn(&TargetId) -> Status) -> Vec<DesiredService> {
        self.config
            .services
            .iter()
            .map(|service| self.service(service, &status))
            .collect()
    }

    fn service(&self, service: &config::Service, status: &impl Fn(&TargetId) -> Status) -> DesiredService {
        let mut backends: Vec<_> = service
            .backends
            .iter()
            .map(|backend| self.backend(service, backend, status))
            .collect();
        let nobody = |backends: &[DesiredBackend]| backends.iter().all(|backend| backend.share == 0);
        if nobody(&backends) {
            // A hand-off reloads nginx gracefully: that server is better than none.
            for (desired, backend) in backends.iter_mut().zip(&service.backends) {
                let by_hand = self.overrides.get(&service.name, &backend.name);
                if desired.state == BackendState::Draining && by_hand.is_none_or(|change| !change.drained) {
                    desired.share = backend.weight;
                }
            }
        }
        if nobody(&backends) && service.when_all_down == WhenAllDown::KeepSending {
            for (desired, backend) in backends.iter_mut().zip(&service.backends) {
                if matches!(desired.state, BackendState::Down | BackendState::Checking) {
                    *desired = DesiredBackend {
                        share: backend.weight,
                        up: true,
                        reset: false,
                        ..*desired
                    };
                }
            }
        }
        hold_back(&mut backends, &service.backends);
        DesiredService {
            service: service.clone(),
            backends,
        }
    }

    fn backend(
        &self,
        service: &config::Service,
        backend: &config::Backend,
        status: &impl Fn(&TargetId) -> Status,
    ) -> DesiredBackend {
        let change = self.overrides.get(&service.name, &backend.name);
        let health = match service.health {
            Some(_) => status(&TargetId {
                service: service.name.clone(),
                backend: backend.name.clone(),
            }),
            None => Status::Up,
        };
        let drained = change.is_some_and(|change| change.drained)
            || self.handed_off.contains(&backend.name)
                && is_of_site(self.config, service.protocol, &service.ports, backend.port);
        let disabled = change.is_some_and(|change| change.disabled);
        let by_hand = change
            .filter(|change| change.drained)
            .and_then(|change| change.drain);
        let drain_until = by_hand.and_then(|drain| drain.until(service.drain_timeout));
        let overdue = drain_until.is_some_and(|until| until.is_past(self.now));
        let failed = disabled || health == Status::Down;
        let state = match health {
            _ if disabled => BackendState::Disabled,
            Status::Down => BackendState::Down,
            _ if drained => BackendState::Draining,
            Status::Checking => BackendState::Checking,
            Status::Up => BackendState::Up,
        };
        DesiredBackend {
            state,
            share: if state == BackendState::Up {
                backend.weight
            } else {
                0
            },
            slow_start: None,
            // A new connection from a port whose old one is to be reset goes elsewhere.
            up: !failed && health == Status::Up && !overdue,
            reset: overdue || failed && service.on_down == OnDown::Reset,
            drain_until,
            overdue,
        }
    }
}

/// Whether a hand-off has to do with such connections.
pub fn is_of_site(config: &Config, protocol: Protocol, ports: &Ports, port: Option<NonZeroU16>) -> bool {
    let site = config.site.as_ref();
    site.is_some_and(|site| site.serves(protocol, ports, port))
}

/// Backups have a share only while nobody else has.
fn hold_back(backends: &mut [DesiredBackend], configured: &[config::Backend]) {
    let others = backends.iter().zip(configured).filter(|(_, it)| !it.backup);
    if others.map(|(backend, _)| backend.share).all(|share| share == 0) {
        return;
    }
    for (backend, _) in backends.iter_mut().zip(configured).filter(|(_, it)| it.backup) {
        backend.share = 0;
    }
}

#[cfg(test)]
mod tests;
