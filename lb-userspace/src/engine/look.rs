//! What is shown of the running state.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use lb_common::abi::BackendCounters;
use lb_common::tcp_state::{STATES, State};

use super::Engine;
use crate::api::Refusal;
use crate::api::types::{
    Backend, BackendState, ConnectionFilter, Connections, Counters, Health, Interface, Outcome, Service,
    Status, Traffic,
};
use crate::config;
use crate::dataplane;
use crate::desired_state::{DesiredBackend, is_of_site};
use crate::health::TargetId;
use crate::host_checks;
use crate::listing::{self, Names};
use crate::moment::{Moment, wall_clock};
use crate::observed_state::Observed;
use crate::reconcile::{self, BackendIdentity, BackendKey, ServiceIdentity, ServiceKey, add, since};

impl Engine {
    pub(super) fn look_at_status(&self) -> Status {
        let observed = self.observe().unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config_file: self.file.file.display().to_string(),
            interfaces: self.dataplane.attachments().iter().map(interface).collect(),
            connections: observed.total_open(),
            wide_connections: observed.wide_open(),
            max_connections: u64::from(self.file.daemon.max_connections),
            max_wide_connections: u64::from(self.file.daemon.max_wide_connections),
            table_bytes: self.dataplane.connections().bytes() + self.dataplane.own_ports_bytes(),
            services: self.services_with(&observed),
            unconfirmed: self.ledger.unconfirmed(),
            warnings: host_checks::warnings(&self.effective, &self.hops),
        }
    }

    pub(super) fn look_at_services(&self) -> Vec<Service> {
        self.services_with(&self.observe().unwrap_or_default())
    }

    fn services_with(&self, observed: &Observed) -> Vec<Service> {
        self.desired
            .iter()
            .map(|desired| self.service(&desired.service, &desired.backends, observed))
            .collect()
    }

    fn service(&self, service: &config::Service, desired: &[DesiredBackend], observed: &Observed) -> Service {
        let identity = self.identities.service(&ServiceKey::of(service));
        let mut backends: Vec<_> = service
            .backends
            .iter()
            .zip(desired)
            .map(|(backend, desired)| self.backend(service, backend, desired, identity, observed))
            .collect();
        let leaving = identity
            .iter()
            .flat_map(|identity| &identity.backends)
            .filter(|(_, backend)| backend.leaving);
        backends.extend(leaving.map(|(key, backend)| self.leaving(service, key.endpoint, backend, observed)));
        let mut traffic = identity.map_or_else(Traffic::default, |identity| shown(&identity.retired, 0));
        for backend in &backends {
            sum(&mut traffic, &backend.traffic);
        }
        Service {
            name: service.name.clone(),
            vip: service.vip,
            ports: service.ports.clone(),
            protocol: service.protocol,
            mode: service.mode,
            scheduler: service.scheduler,
            stateless: service.stateless,
            source_address: service.source_address,
            source_ports: (service.mode == config::Mode::FullNat).then(|| service.source_ports.clone()),
            answer_ping: service.answer_ping,
            slow_start_seconds: service.slow_start.as_secs(),
            when_all_down: service.when_all_down,
            on_down: service.on_down,
            drain_timeout_seconds: service.drain_timeout.map(|time| time.as_secs()),
            traffic,
            backends,
        }
    }

    fn backend(
        &self,
        service: &config::Service,
        backend: &config::Backend,
        desired: &DesiredBackend,
        identity: Option<&ServiceIdentity>,
        observed: &Observed,
    ) -> Backend {
        let known = BackendKey::of(service, backend).and_then(|key| identity?.backends.get(&key));
        let in_file = self.file.services.iter().find(|known| known.name == service.name);
        let in_file =
            in_file.and_then(|known| known.backends.iter().find(|known| known.name == backend.name));
        let change = self.overrides.get(&service.name, &backend.name);
        let mut overrides = change.map_or_else(Vec::new, |change| change.describe(in_file));
        if self.handed_off.contains(&backend.name)
            && is_of_site(&self.file, service.protocol, &service.ports, backend.port)
        {
            overrides.push("hand-off in progress".to_owned());
        }
        Backend {
            service: service.name.clone(),
            name: backend.name.clone(),
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            backup: backend.backup,
            slow_start_percent: desired.slow_start,
            state: desired.state,
            eligible: desired.share > 0,
            health: self.health(service, &backend.name),
            reset_in_seconds: self.seconds_until(desired.drain_until),
            overrides,
            next_hop: self.next_hop(backend.address),
            traffic: known.map_or_else(Traffic::default, |known| self.traffic(known, observed)),
        }
    }

    /// A backend that is only here for its connections.
    fn leaving(
        &self,
        service: &config::Service,
        endpoint: SocketAddr,
        identity: &BackendIdentity,
        observed: &Observed,
    ) -> Backend {
        Backend {
            service: service.name.clone(),
            name: identity.name.clone(),
            address: endpoint.ip(),
            port: NonZeroU16::new(endpoint.port()),
            weight: 0,
            backup: false,
            slow_start_percent: None,
            state: BackendState::Leaving,
            eligible: false,
            health: Health {
                status: "unchecked".into(),
                since_seconds: 0,
                reason: "no longer configured".into(),
            },
            reset_in_seconds: self.seconds_until(identity.parting.and_then(|parting| parting.reset_at)),
            overrides: Vec::new(),
            next_hop: self.next_hop(endpoint.ip()),
            traffic: self.traffic(identity, observed),
        }
    }

    fn seconds_until(&self, moment: Option<Moment>) -> Option<u64> {
        let left = moment?.left(self.ledger.now());
        Some(left.as_secs_f64().ceil() as u64)
    }

    fn traffic(&self, identity: &BackendIdentity, observed: &Observed) -> Traffic {
        shown(
            &since(&self.counters(identity.id), &identity.baseline),
            observed.open(identity.id),
        )
    }

    fn health(&self, service: &config::Service, backend: &str) -> Health {
        let id = TargetId {
            service: service.name.clone(),
            backend: backend.to_owned(),
        };
        match self.monitor.health(&id) {
            Some(health) => Health {
                status: health.status.to_string(),
                since_seconds: wall_clock()
                    .duration_since(health.since)
                    .map_or(0, |since| since.as_secs()),
                reason: health.reason,
            },
            None => Health {
                status: "unchecked".to_owned(),
                since_seconds: self.started.elapsed().as_secs(),
                reason: "the service has no health check".to_owned(),
            },
        }
    }

    fn next_hop(&self, address: std::net::IpAddr) -> Option<String> {
        let hop = reconcile::next_hop(&self.hops, address)?;
        let mac = hop.destination_mac.map(|byte| format!("{byte:02x}")).join(":");
        let interface = nix::net::if_::if_indextoname(hop.interface_index).map_or_else(
            |_| hop.interface_index.to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        Some(format!("{mac} on {interface}"))
    }

    pub(super) fn look_at_connections(&self, filter: &ConnectionFilter) -> Result<Connections, Refusal> {
        self.check(filter)?;
        let now = self
            .dataplane
            .now()
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(listing::connections(
            self.dataplane.connections(),
            now,
            self.dataplane.clock(),
            &names(self),
            filter,
        ))
    }

    /// A filter that could never match is a mistake, not an empty list.
    fn check(&self, filter: &ConnectionFilter) -> Result<(), Refusal> {
        let names = names(self);
        known("service", filter.service.as_ref(), names.services())?;
        known("backend", filter.backend.as_ref(), names.backends())?;
        match &filter.state {
            Some(state) if !STATES.iter().any(|known| known.name() == state) => {
                let states = STATES.map(State::name).join(", ");
                Err(Refusal::Invalid(format!(
                    "no state {state:?}; there are {states}"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn look_at_counters(&self) -> Result<Counters, Refusal> {
        let outcomes = self
            .dataplane
            .counters()
            .outcomes()
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        let outcomes = outcomes
            .into_iter()
            .map(|(outcome, packets)| Outcome {
                name: outcome.name().to_owned(),
                action: outcome.action().name().to_owned(),
                meaning: outcome.meaning().to_owned(),
                packets,
            })
            .collect();
        Ok(Counters { outcomes })
    }
}

/// Names by number, of all that connections may name.
fn names(engine: &Engine) -> Names<'_> {
    let services = || engine.identities.services();
    let backends = services().flat_map(|(_, service)| service.backends.values());
    Names::new(
        services().map(|(key, service)| (service.number, key, service.name.as_str())),
        backends.map(|backend| (backend.id, backend.name.as_str())),
    )
}

fn known<'a>(
    what: &str,
    wanted: Option<&String>,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Refusal> {
    let Some(wanted) = wanted else { return Ok(()) };
    let names: BTreeSet<_> = names.collect();
    if names.contains(wanted.as_str()) {
        return Ok(());
    }
    let names: Vec<_> = names.into_iter().collect();
    Err(Refusal::Unknown(format!(
        "no {what} {wanted:?}; there are {}",
        names.join(", ")
    )))
}

fn interface(attachment: &dataplane::Attachment) -> Interface {
    let mode = if attachment.native { "native" } else { "generic" };
    Interface {
        name: attachment.interface.clone(),
        mode: mode.to_owned(),
    }
}

fn shown(counters: &BackendCounters, connections: u64) -> Traffic {
    let BackendCounters {
        opened,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    } = *counters;
    Traffic {
        connections,
        opened,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    }
}

fn sum(total: &mut Traffic, more: &Traffic) {
    let mut counted = counters_of(total);
    add(&mut counted, &counters_of(more));
    *total = shown(&counted, total.connections + more.connections);
}

fn counters_of(traffic: &Traffic) -> BackendCounters {
    let Traffic {
        opened,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        ..
    } = *traffic;
    BackendCounters {
        opened,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    }
}
