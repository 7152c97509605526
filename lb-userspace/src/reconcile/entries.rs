//! What the kernel's tables must hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::identities::{BackendIdentity, Identities, ServiceIdentity};
use super::key::{BackendKey, ServiceKey};
use super::make_way::make_way;
use super::slot_tables::SlotTables;
use crate::config::{Scheduler, WhenAllDown};
use crate::dataplane::{BackendEntry, ServiceEntry};
use crate::desired_state::{DesiredBackend, DesiredService};
use crate::neighbours::{NextHop, Resolution};
use crate::scheduling::{self, Candidate};

/// What the kernel's tables must hold, and the slots for the next time; `before` are those of now. What is leaving keeps its
/// connections and gets no new ones.
pub fn entries(
    desired: &[DesiredService],
    identities: &Identities,
    hops: &HashMap<IpAddr, Resolution>,
    before: &SlotTables,
) -> (Vec<ServiceEntry>, SlotTables) {
    let by_key: BTreeMap<_, _> = desired.iter().map(|d| (ServiceKey::of(&d.service), d)).collect();
    let mut tables = SlotTables::default();
    let mut make = |number, scheduler, candidates| tables.make(before, number, scheduler, candidates);
    let mut services: Vec<_> = identities
        .services()
        .map(|(key, identity)| service_entry(key, identity, by_key.get(key).copied(), hops, &mut make))
        .collect();
    let leaving: HashSet<u16> = identities
        .services()
        .flat_map(|(_, service)| service.backends.values())
        .filter(|backend| backend.leaving)
        .map(|backend| backend.id)
        .collect();
    make_way(&mut services, |id| leaving.contains(&id));
    (services, tables)
}

/// Slots and previous slots of a service of this number.
type MakeSlots<'a> = dyn FnMut(u16, Scheduler, Vec<Candidate>) -> (Vec<u16>, Vec<u16>) + 'a;

fn service_entry(
    key: &ServiceKey,
    identity: &ServiceIdentity,
    desired: Option<&DesiredService>,
    hops: &HashMap<IpAddr, Resolution>,
    make_slots: &mut MakeSlots<'_>,
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
    let (slots, mut previous_slots) = service.map_or_else(Default::default, |service| {
        make_slots(identity.number, service.scheduler, candidates)
    });
    // An id may be another service's by now; 0 is nobody's.
    let ours: HashSet<u16> = identity.backends.values().map(|backend| backend.id).collect();
    for id in previous_slots.iter_mut().filter(|id| !ours.contains(id)) {
        *id = 0;
    }
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
        slots,
        previous_slots,
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
        leaving: identity.leaving,
        reset: desired.is_some_and(|desired| desired.reset)
            || identity.parting.is_some_and(|parting| parting.resetting),
        weight: desired.map_or(1, |desired| desired.share.max(1)),
        timeouts: identity.timeouts,
    }
}

/// The next hop of a backend, if it is known.
pub fn next_hop(hops: &HashMap<IpAddr, Resolution>, address: IpAddr) -> Option<NextHop> {
    match hops.get(&address) {
        Some(Resolution::Resolved { hop, .. }) => Some(*hop),
        _ => None,
    }
}
