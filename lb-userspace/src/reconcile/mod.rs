//! From what should be, and who has which number, to what the kernel's tables must hold. Pure but for the numbers that it
//! gives away.

mod changes;
mod identities;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

pub use changes::changes;
pub use identities::{BackendIdentity, Exhausted, Identities, ServiceIdentity, Wanted, add, since};

use crate::config;
use crate::dataplane::{BackendEntry, ServiceEntry};
use crate::desired_state::{DesiredBackend, DesiredService};
use crate::neighbours::{NextHop, Resolution};
use crate::scheduling::weighted_round_robin;

/// The VIP and port of a service. `None`: IPv6, which validation refuses in this version.
pub fn vip_of(service: &config::Service) -> Option<SocketAddrV4> {
    ipv4(service.vip, service.port.get())
}

/// The address and port of a backend. `None`: IPv6, which validation refuses in this version.
pub fn endpoint_of(backend: &config::Backend) -> Option<SocketAddrV4> {
    ipv4(backend.address, backend.port.get())
}

fn ipv4(address: IpAddr, port: u16) -> Option<SocketAddrV4> {
    match SocketAddr::new(address, port) {
        SocketAddr::V4(endpoint) => Some(endpoint),
        SocketAddr::V6(_) => None,
    }
}

/// What needs numbers; `ticks` turns a timeout into ticks.
pub fn wanted(desired: &[DesiredService], ticks: impl Fn(Duration) -> u16) -> Vec<Wanted> {
    let wanted = |DesiredService { service, .. }: &DesiredService| {
        let timeouts = &service.timeouts;
        Some(Wanted {
            vip: vip_of(service)?,
            name: service.name.clone(),
            backends: service
                .backends
                .iter()
                .filter_map(|backend| Some((endpoint_of(backend)?, backend.name.clone())))
                .collect(),
            timeouts: [timeouts.half_open, timeouts.established, timeouts.closing].map(&ticks),
        })
    };
    desired.iter().filter_map(wanted).collect()
}

/// What the kernel's tables must hold. What is leaving keeps its connections and gets no new ones.
pub fn entries(
    desired: &[DesiredService],
    identities: &Identities,
    hops: &HashMap<IpAddr, Resolution>,
) -> Vec<ServiceEntry> {
    let by_vip: BTreeMap<_, _> = desired
        .iter()
        .filter_map(|d| Some((vip_of(&d.service)?, d)))
        .collect();
    identities
        .services()
        .map(|(vip, identity)| service_entry(*vip, identity, by_vip.get(vip).copied(), hops))
        .collect()
}

fn service_entry(
    vip: SocketAddrV4,
    identity: &ServiceIdentity,
    desired: Option<&DesiredService>,
    hops: &HashMap<IpAddr, Resolution>,
) -> ServiceEntry {
    let states: BTreeMap<_, _> = desired
        .iter()
        .flat_map(|d| d.service.backends.iter().zip(&d.backends))
        .filter_map(|(backend, state)| Some((endpoint_of(backend)?, state)))
        .collect();
    // In the file's order, so that the round is what the operator expects.
    let shares: Vec<_> = desired
        .iter()
        .flat_map(|d| d.service.backends.iter().zip(&d.backends))
        .filter_map(|(backend, state)| Some((identity.backends.get(&endpoint_of(backend)?)?.id, state.share)))
        .collect();
    ServiceEntry {
        number: identity.number,
        vip,
        leaving: identity.leaving,
        slots: weighted_round_robin(&shares),
        backends: identity
            .backends
            .iter()
            .map(|(endpoint, backend)| backend_entry(*endpoint, backend, states.get(endpoint).copied(), hops))
            .collect(),
    }
}

fn backend_entry(
    endpoint: SocketAddrV4,
    identity: &BackendIdentity,
    desired: Option<&DesiredBackend>,
    hops: &HashMap<IpAddr, Resolution>,
) -> BackendEntry {
    BackendEntry {
        id: identity.id,
        endpoint,
        next_hop: next_hop(hops, IpAddr::V4(*endpoint.ip())),
        // What is leaving is not probed any more: a new connection from a port that had one goes elsewhere.
        up: desired.is_some_and(|desired| desired.up),
        reset: desired.is_some_and(|desired| desired.reset),
        timeouts: identity.timeouts,
    }
}

/// The next hop of a backend, if it is known.
pub fn next_hop(hops: &HashMap<IpAddr, Resolution>, address: IpAddr) -> Option<NextHop> {
    match hops.get(&address) {
        Some(Resolution::Resolved(hop)) => Some(*hop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::BackendState;
    use crate::config::test_config;

    #[test]
    fn a_removed_backend_keeps_its_connections_and_gets_no_slot() {
        let mut config = test_config();
        let up = DesiredBackend {
            state: BackendState::Up,
            share: 1,
            up: true,
            reset: false,
        };
        let desired = |config: &config::Config| {
            let service = config.services[0].clone();
            vec![DesiredService {
                backends: vec![up; service.backends.len()],
                service,
            }]
        };
        let mut identities = Identities::default();
        let none = |_| Default::default();
        identities.adopt(&wanted(&desired(&config), |_| 9), none).unwrap();
        assert_eq!(
            entries(&desired(&config), &identities, &HashMap::new())[0].slots,
            [1, 2]
        );

        config.services[0].backends.remove(0);
        identities.adopt(&wanted(&desired(&config), |_| 9), none).unwrap();
        let service = &entries(&desired(&config), &identities, &HashMap::new())[0];
        assert_eq!(service.slots, [2]);
        assert_eq!(
            service.backends.iter().map(|b| (b.id, b.up)).collect::<Vec<_>>(),
            [(1, false), (2, true)]
        );

        identities.adopt(&[], none).unwrap();
        let service = &entries(&[], &identities, &HashMap::new())[0];
        assert!(service.leaving && service.slots.is_empty());
    }
}
