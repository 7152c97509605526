//! The two tables that a packet is looked up in first: which service it is for, which backend it is from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    self, BACKEND_IDS, ENDPOINT_BUCKETS, Listener, MAX_SIBLINGS, Membership, SERVICE_BUCKETS,
};
use lb_common::lookup_table::{BuildError, LookupTable, ipv4_endpoint, ipv6_endpoint};
use lb_common::wire::network::{ICMP, ICMPV6, TCP, UDP};

use super::{BackendEntry, Forwarding, ServiceEntry, SnapshotError, ambiguity};
use crate::config::Protocol;

/// The port that stands for all those of a service of several, and for an address as such.
const SEVERAL: u16 = 0;

/// An endpoint with its transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    address: SocketAddr,
    /// The protocol's number.
    protocol: u8,
}

impl Endpoint {
    fn new(address: IpAddr, port: u16, protocol: u8) -> Self {
        Self {
            address: SocketAddr::new(address, port),
            protocol,
        }
    }

    /// What the program looks it up by.
    fn key(&self) -> u64 {
        let port = self.address.port().to_be();
        match self.address.ip() {
            IpAddr::V4(address) => ipv4_endpoint(u32::from_ne_bytes(address.octets()), port, self.protocol),
            IpAddr::V6(address) => ipv6_endpoint(abi::address(&address.octets()), port, self.protocol),
        }
    }

    fn describe(&self) -> String {
        let protocol = match self.protocol {
            TCP => "TCP",
            UDP => "UDP",
            _ => return format!("VIP {}", self.address.ip()),
        };
        match self.address.port() {
            SEVERAL => format!("{} ({protocol}, several ports)", self.address.ip()),
            _ => format!("{} ({protocol})", self.address),
        }
    }
}

fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

fn build(
    entries: &BTreeMap<Endpoint, u64>,
    buckets: u32,
    what: &'static str,
) -> Result<LookupTable, SnapshotError> {
    let keyed: Vec<_> = entries
        .iter()
        .map(|(endpoint, value)| (endpoint.key(), *value))
        .collect();
    let room = buckets as usize;
    LookupTable::build(&keyed, room).map_err(|error| match error {
        BuildError::DuplicateKey(key) => {
            let mut same = entries.keys().filter(|endpoint| endpoint.key() == key);
            let mut next = || same.next().map(Endpoint::describe).unwrap_or_default();
            SnapshotError::SameFingerprint {
                one: next(),
                other: next(),
            }
        }
        BuildError::TooManyEntries { .. } => SnapshotError::TooMany { what, room },
    })
}

/// VIP endpoint → service, and VIP → what holds for all of its services.
pub(super) fn service_table(services: &[ServiceEntry]) -> Result<LookupTable, SnapshotError> {
    let mut entries = BTreeMap::new();
    let mut vips: BTreeMap<IpAddr, bool> = BTreeMap::new();
    for service in services {
        let endpoint = Endpoint::new(service.vip, service.port(), number_of(service.protocol));
        let mut flags = 0;
        if service.is_wide() {
            flags |= Listener::WIDE;
        }
        if service.stateless {
            flags |= Listener::STATELESS;
        }
        let listener = u64::from(service.number) | flags;
        if entries.insert(endpoint, listener).is_some() {
            return Err(SnapshotError::DuplicateVip(endpoint.describe()));
        }
        *vips.entry(service.vip).or_default() |= service.answer_ping;
    }
    for (vip, answers_ping) in vips {
        let echo = if answers_ping { Listener::ANSWERS_ECHO } else { 0 };
        let icmp = if vip.is_ipv4() { ICMP } else { ICMPV6 };
        entries.insert(Endpoint::new(vip, SEVERAL, icmp), Listener::VIP | echo);
    }
    build(&entries, SERVICE_BUCKETS, "services")
}

/// The services that each endpoint belongs to whose answers come by here; one and the same endpoint may have two backends of
/// one service, the present one and one that is leaving.
pub(super) struct Memberships(BTreeMap<Endpoint, Vec<Membership>>);

impl Memberships {
    pub(super) fn of(services: &[ServiceEntry]) -> Result<Self, SnapshotError> {
        let mut endpoints: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for service in services {
            for backend in service
                .backends
                .iter()
                .filter(|backend| backend.forwarding.is_answered_here())
            {
                endpoints
                    .entry(endpoint_of(service, backend))
                    .or_default()
                    .push(membership(service, backend));
            }
        }
        if let Some((endpoint, members)) = endpoints
            .iter()
            .find(|(_, members)| members.len() > MAX_SIBLINGS as usize)
        {
            return Err(SnapshotError::TooManySiblings {
                endpoint: endpoint.address,
                services: members.len(),
            });
        }
        ambiguity::check(services)?;
        Ok(Self(endpoints))
    }

    /// Whether answers from a backend's endpoint may belong to another backend as well.
    pub(super) fn is_shared(&self, service: &ServiceEntry, backend: &BackendEntry) -> bool {
        backend.forwarding.is_answered_here()
            && self
                .0
                .get(&endpoint_of(service, backend))
                .is_some_and(|members| members.len() > 1)
    }

    /// The first membership of each endpoint goes into the table, the others into a chain from there.
    pub(super) fn table(&self) -> Result<(LookupTable, Vec<u64>), SnapshotError> {
        let mut siblings = vec![0];
        let mut entries = BTreeMap::new();
        for (endpoint, members) in &self.0 {
            let mut next = 0;
            for (position, membership) in members.iter().enumerate().rev() {
                let packed = Membership { next, ..*membership }.pack();
                if position == 0 {
                    entries.insert(*endpoint, packed);
                } else {
                    next = siblings.len() as u16;
                    siblings.push(packed);
                }
            }
        }
        if siblings.len() > BACKEND_IDS as usize {
            return Err(SnapshotError::TooMany {
                what: "backends",
                room: BACKEND_IDS as usize,
            });
        }
        Ok((build(&entries, ENDPOINT_BUCKETS, "backends")?, siblings))
    }
}

fn endpoint_of(service: &ServiceEntry, backend: &BackendEntry) -> Endpoint {
    Endpoint {
        address: backend.endpoint,
        protocol: number_of(service.protocol),
    }
}

fn membership(service: &ServiceEntry, backend: &BackendEntry) -> Membership {
    let mut flags = 0;
    for (holds, flag) in [
        (service.is_wide(), Membership::WIDE),
        (service.stateless, Membership::STATELESS),
        (
            matches!(backend.forwarding, Forwarding::FullNat { .. }),
            Membership::FULL_NAT,
        ),
    ] {
        if holds {
            flags |= flag;
        }
    }
    Membership {
        service: service.number,
        backend: backend.id,
        next: 0,
        flags,
    }
}
