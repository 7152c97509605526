//! What could not be told apart by looking at a packet.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::{Forwarding, ServiceEntry, SnapshotError};
use crate::config::Protocol;

/// Refuses services whose packets would be taken for others'. What is leaving is not judged: its connections end some day.
pub(super) fn check(services: &[ServiceEntry]) -> Result<(), SnapshotError> {
    ports_of_several(services)?;
    own_ports(services)
}

/// A packet from a backend's endpoint is looked up with its port first, and only if that is nobody's as one of several. So a
/// port of a service of several must not be another service's backend, unless packets to that port never reach the first,
/// since another service listens there.
fn ports_of_several(services: &[ServiceEntry]) -> Result<(), SnapshotError> {
    let mut listeners: HashSet<(IpAddr, u16, Protocol)> = HashSet::new();
    let mut answering: HashMap<(IpAddr, Protocol), Vec<(&ServiceEntry, SocketAddr)>> = HashMap::new();
    for one in services.iter().filter(|service| !service.is_wide()) {
        listeners.insert((one.vip, one.port(), one.protocol));
        for backend in one.backends.iter().filter(|it| it.forwarding.is_answered_here()) {
            answering
                .entry((backend.endpoint.ip(), one.protocol))
                .or_default()
                .push((one, backend.endpoint));
        }
    }
    for several in services
        .iter()
        .filter(|service| service.is_wide() && !service.leaving)
    {
        for backend in several
            .backends
            .iter()
            .filter(|it| it.forwarding.is_answered_here())
        {
            let same_address = answering.get(&(backend.endpoint.ip(), several.protocol));
            let meets = |(_, endpoint): &&(&ServiceEntry, SocketAddr)| {
                let port = endpoint.port();
                several.listens_on(port) && !listeners.contains(&(several.vip, port, several.protocol))
            };
            if let Some((one, endpoint)) = same_address.into_iter().flatten().find(meets) {
                return Err(SnapshotError::Ambiguous {
                    endpoint: *endpoint,
                    one: SocketAddr::new(one.vip, one.port()),
                    several: several.vip,
                });
            }
        }
    }
    Ok(())
}

/// A packet is looked up as a client's before it is looked up as an answer.
fn own_ports(services: &[ServiceEntry]) -> Result<(), SnapshotError> {
    let mut listeners: HashMap<(IpAddr, Protocol), Vec<&ServiceEntry>> = HashMap::new();
    for service in services.iter().filter(|service| !service.leaving) {
        listeners
            .entry((service.vip, service.protocol))
            .or_default()
            .push(service);
    }
    for service in services.iter().filter(|service| !service.leaving) {
        for backend in &service.backends {
            let Forwarding::FullNat { source, lease } = backend.forwarding else {
                continue;
            };
            let (first, last) = (
                lease.first_port,
                lease.first_port.saturating_add(lease.ports.saturating_sub(1)),
            );
            let there = listeners.get(&(source, service.protocol));
            if there
                .into_iter()
                .flatten()
                .any(|it| it.listens_within(first..=last))
            {
                return Err(SnapshotError::OwnPortsListenedOn {
                    first,
                    last,
                    vip: source,
                });
            }
        }
    }
    Ok(())
}
