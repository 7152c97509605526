//! The records of services and backends, as the program reads them.

use std::net::IpAddr;

use lb_common::abi::{self, Outer, SLOTS_PER_LINE, SlotLine};
use lb_common::checksum::{Delta, fold};
use lb_common::wire::ethernet::{Ethernet, Mac};

use super::{BackendEntry, Forwarding, ServiceEntry, SnapshotError};
use crate::config::Ports;

/// Protocol numbers of a packet in a packet (RFC 2003, RFC 4213).
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
/// Of the header that is put in front; what the program writes as well.
const TIME_TO_LIVE: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;

/// `slots` and `previous`: where they begin in the pool, and how many they are.
pub(super) fn service(service: &ServiceEntry, slots: (u32, u32), previous: (u32, u32)) -> abi::Service {
    let mut flags = 0;
    for (holds, flag) in [
        (service.leaving, abi::Service::LEAVING),
        (service.silent, abi::Service::SILENT),
    ] {
        if holds {
            flags |= flag;
        }
    }
    let ports = match &service.ports {
        Ports::One(port) => [port.get(); 2],
        Ports::Range(ports) => [*ports.start(), *ports.end()],
    };
    abi::Service {
        first_slot: slots.0,
        slots: slots.1,
        previous_slot: previous.0,
        previous_slots: previous.1,
        flags,
        choice: service.choice as u32,
        ports,
    }
}

/// A line of the pool; `ids` has at most as many as fit.
pub(super) fn slot_line(ids: &[u16]) -> SlotLine {
    let mut line = SlotLine::default();
    for (slot, id) in line.slots.iter_mut().zip(ids) {
        *slot = *id;
    }
    debug_assert!(ids.len() <= SLOTS_PER_LINE as usize);
    line
}

/// A backend's record; `shared`: its endpoint has others.
pub(super) fn backend(
    service: &ServiceEntry,
    backend: &BackendEntry,
    shared: bool,
) -> Result<abi::Backend, SnapshotError> {
    let address = backend.endpoint.ip();
    if !families_fit(service.vip, address, backend.forwarding) {
        return Err(SnapshotError::Families {
            address,
            vip: service.vip,
        });
    }
    let port = backend.endpoint.port().to_be_bytes();
    let vip_port = service.port().to_be_bytes();
    let (network_delta, transport_delta) = if backend.forwarding.is_answered_here() {
        let addresses = Delta::replacing(&octets(service.vip), &octets(address));
        // The pseudo-header has the addresses as well (RFC 9293 section 3.1).
        let transport = if port == vip_port {
            addresses
        } else {
            addresses.and(Delta::replacing(&vip_port, &port))
        };
        (addresses, transport)
    } else {
        (Delta::ZERO, Delta::ZERO)
    };
    let ethernet = backend.next_hop.as_ref().map_or([0; 3], |hop| {
        let frame = Ethernet {
            destination: Mac::from_bytes(hop.destination_mac),
            source: Mac::from_bytes(hop.source_mac),
        };
        frame.to_words()
    });
    Ok(abi::Backend {
        address: abi::address(&octets(address)),
        vip: abi::address(&octets(service.vip)),
        port,
        vip_port,
        ethernet,
        interface_index: backend.next_hop.as_ref().map_or(0, |hop| hop.interface_index),
        network_delta,
        transport_delta,
        flags: flags(service, backend, shared),
        mode: mode(backend.forwarding) as u8,
        timeouts: backend.timeouts,
    })
}

fn flags(service: &ServiceEntry, backend: &BackendEntry, shared: bool) -> u8 {
    let mut flags = abi::Backend::KNOWN;
    for (holds, flag) in [
        (backend.up, abi::Backend::UP),
        (backend.reset, abi::Backend::RESET),
        (shared, abi::Backend::SHARED),
        (backend.endpoint.is_ipv6(), abi::Backend::IPV6),
        (service.stateless, abi::Backend::STATELESS),
        (backend.leaving, abi::Backend::LEAVING),
    ] {
        if holds {
            flags |= flag;
        }
    }
    flags
}

fn mode(forwarding: Forwarding) -> abi::Mode {
    match forwarding {
        Forwarding::Nat => abi::Mode::Nat,
        Forwarding::FullNat { .. } => abi::Mode::FullNat,
        Forwarding::Dsr => abi::Mode::Dsr,
        Forwarding::Ipip { .. } => abi::Mode::Ipip,
    }
}

/// A packet keeps its family, unless it is put into another one; own addresses are of the backend's.
fn families_fit(vip: IpAddr, address: IpAddr, forwarding: Forwarding) -> bool {
    let same = vip.is_ipv4() == address.is_ipv4();
    match forwarding {
        Forwarding::Nat | Forwarding::Dsr => same,
        Forwarding::FullNat { source, .. } => same && source.is_ipv4() == address.is_ipv4(),
        Forwarding::Ipip { source } => source.is_ipv4() == address.is_ipv4(),
    }
}

/// What stands in front of, or in place of, the client's address.
pub(super) fn outer(service: &ServiceEntry, backend: &BackendEntry) -> Option<Outer> {
    match backend.forwarding {
        Forwarding::Nat | Forwarding::Dsr => None,
        Forwarding::FullNat { source, lease } => Some(Outer {
            source: abi::address(&octets(source)),
            first_port: lease.first_port,
            ports: lease.ports,
            first_element: lease.first_element,
            ..Outer::default()
        }),
        Forwarding::Ipip { source } => Some(Outer {
            source: abi::address(&octets(source)),
            header_sum: header_sum(service.vip, source, backend.endpoint.ip()),
            ..Outer::default()
        }),
    }
}

/// The one's-complement sum of what every header in front of a packet has (RFC 791); zero if that is an IPv6 header.
fn header_sum(vip: IpAddr, source: IpAddr, destination: IpAddr) -> u16 {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        return 0;
    };
    let inside = if vip.is_ipv4() { IPV4_INSIDE } else { IPV6_INSIDE };
    let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
    let words = [
        [0x45, 0],
        [DONT_FRAGMENT, 0],
        [TIME_TO_LIVE, inside],
        [a, b],
        [c, d],
        [e, f],
        [g, h],
    ];
    fold(words.map(|word| u32::from(u16::from_ne_bytes(word))).iter().sum())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
