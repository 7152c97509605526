//! What the kernel's tables must hold.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::identities::{BackendIdentity, Identities, ServiceIdentity};
use super::key::{BackendKey, ServiceKey};
use crate::config::WhenAllDown;
use crate::dataplane::{BackendEntry, ServiceEntry};
use crate::desired_state::{DesiredBackend, DesiredService};
use crate::neighbours::{NextHop, Resolution};
use crate::scheduling::{self, Candidate};

/// What the kernel's tables must hold. What is leaving keeps its connections and gets no new ones.
pub fn entries(
    desired: &[DesiredService],
    identities: &Identities,
    hops: &HashMap<IpAddr, Resolution>,
) -> Vec<ServiceEntry> {
    let by_key: BTreeMap<_, _> = desired.iter().map(|d| (ServiceKey::of(&d.service), d)).collect();
    identities
        .services()
        .map(|(key, identity)| service_entry(key, identity, by_key.get(key).copied(), hops))
        .collect()
}

fn service_entry(
    key: &ServiceKey,
    identity: &ServiceIdentity,
    desired: Option<&DesiredService>,
    hops: &HashMap<IpAddr, Resolution>,
) -> ServiceEntry {
    // In the file's order, so that the round is what the operator expects.
    let backends: Vec<_> = desired
        .iter()
        .flat_map(|d| {
            d.service
                .backends
                .iter()
                .zip(&d.backends)
                .map(|it| (&d.service, it))
        })
        .filter_map(|(service, (backend, state))| Some((BackendKey::of(service, backend)?, state)))
        .collect();
    let candidate = |(key, state): &(BackendKey, &DesiredBackend)| {
        Some(Candidate {
            id: identity.backends.get(key)?.id,
            endpoint: key.endpoint,
            share: state.share,
        })
    };
    let candidates: Vec<_> = backends.iter().filter_map(candidate).collect();
    let states: BTreeMap<_, _> = backends.iter().copied().collect();
    let service = desired.map(|desired| &desired.service);
    ServiceEntry {
        number: identity.number,
        vip: key.vip,
        ports: identity.ports.clone(),
        protocol: key.protocol,
        leaving: identity.leaving,
        stateless: identity.stateless,
        silent: service.is_some_and(|service| service.when_all_down == WhenAllDown::Drop),
        answer_ping: service.is_some_and(|service| service.answer_ping),
        choice: scheduling::choice(service.map(|service| service.scheduler)),
        slots: service.map_or_else(Vec::new, |service| {
            scheduling::slots(service.scheduler, &candidates)
        }),
        previous_slots: Vec::new(),
        backends: identity
            .backends
            .iter()
            .map(|(key, backend)| backend_entry(key, backend, states.get(key).copied(), hops))
            .collect(),
    }
}

fn backend_entry(
    key: &BackendKey,
    identity: &BackendIdentity,
    desired: Option<&DesiredBackend>,
    hops: &HashMap<IpAddr, Resolution>,
) -> BackendEntry {
    BackendEntry {
        id: identity.id,
        endpoint: key.endpoint,
        forwarding: identity.forwarding,
        next_hop: next_hop(hops, key.endpoint.ip()),
        // What is leaving is not probed any more: a new connection from a port that had one goes elsewhere.
        up: desired.is_some_and(|desired| desired.up),
        reset: desired.is_some_and(|desired| desired.reset),
        weight: desired.map_or(1, |desired| desired.share.max(1)),
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
