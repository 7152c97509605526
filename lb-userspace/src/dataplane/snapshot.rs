//! What one copy of the maps must contain for a set of services: a pure function.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    self, BACKEND_IDS, ENDPOINT_BUCKETS, MAX_SIBLINGS, Membership, SERVICE_BUCKETS, SERVICE_NUMBERS,
    SLOT_LINES, SLOTS_PER_LINE, SlotLine,
};
use lb_common::checksum::Delta;
use lb_common::lookup_table::{BuildError, LookupTable, ipv4_endpoint};
use lb_common::wire::ipv4::PROTOCOL_TCP;

use lb_common::abi::Choice;

use crate::config::{Ports, Protocol};
use crate::neighbours::NextHop;

/// A service with its number, its backends and its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// 1 to 2,047, unique.
    pub number: u16,
    /// The address that clients connect to.
    pub vip: IpAddr,
    /// The ports that clients connect to.
    pub ports: Ports,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Whether it only keeps existing connections.
    pub leaving: bool,
    /// Whether no connection is remembered.
    pub stateless: bool,
    /// Whether packets are dropped silently while there are no slots (else they are refused).
    pub silent: bool,
    /// Whether echo requests to the VIP are answered; one service of a VIP that says so is enough.
    pub answer_ping: bool,
    /// How a new connection's slot is chosen.
    pub choice: Choice,
    /// Backend ids, in the order in which connections are dealt out if there is one; empty: nobody can take any.
    pub slots: Vec<u16>,
    /// The slots before the last change, of a service that chooses by hashing; empty: none.
    pub previous_slots: Vec<u16>,
    /// All its backends, those without a slot included.
    pub backends: Vec<BackendEntry>,
}

/// A backend of a service with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendEntry {
    /// 1 to 8,191, unique among all services.
    pub id: u16,
    /// Where it listens; port 0: that of the packet.
    pub endpoint: SocketAddr,
    /// How its packets get there.
    pub forwarding: Forwarding,
    /// How packets to its address leave; `None`: the kernel finds out.
    pub next_hop: Option<NextHop>,
    /// Whether a SYN from a port that has a connection to it stays with it.
    pub up: bool,
    /// Whether its clients' next packets are answered with a RST.
    pub reset: bool,
    /// What its number of connections is divided by when the least loaded is chosen, 1 to 256.
    pub weight: u16,
    /// Idle timeouts in ticks: half-open, established (UDP: once answered), closing.
    pub timeouts: [u16; 3],
}

/// How packets get to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// Destination rewritten.
    Nat,
    /// Source rewritten as well.
    FullNat {
        /// The balancer's own address, of the backend's family.
        source: IpAddr,
        /// The balancer's own ports towards this backend.
        lease: PortLease,
    },
    /// MAC addresses rewritten.
    Dsr,
    /// Put into another packet.
    Ipip {
        /// The balancer's own address, of the backend's family.
        source: IpAddr,
    },
}

/// Own ports, and the elements of `PORTS` that stand for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortLease {
    /// The first port.
    pub first_port: u16,
    /// How many, at least one.
    pub ports: u16,
    /// The element of `PORTS` that stands for the first one; leases do not overlap.
    pub first_element: u32,
}

/// The contents of one copy of the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) services_by_endpoint: LookupTable,
    pub(super) backends_by_endpoint: LookupTable,
    /// By index; element 0 is not used.
    pub(super) siblings: Vec<u64>,
    /// By number.
    pub(super) services: BTreeMap<u16, abi::Service>,
    /// By id.
    pub(super) backends: BTreeMap<u16, abi::Backend>,
    pub(super) slots: Vec<SlotLine>,
}

/// Why services do not fit into the maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Two services listen on one endpoint.
    #[error("two services listen on {0}")]
    DuplicateVip(String),
    /// More than the tables were made for.
    #[error("too many {what}: there is room for {room}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many fit.
        room: usize,
    },
    /// One endpoint serves too many services.
    #[error("{endpoint} is a backend of {services} services; at most {MAX_SIBLINGS} can share an endpoint")]
    TooManySiblings {
        /// The endpoint.
        endpoint: SocketAddrV4,
        /// Of so many.
        services: usize,
    },
    /// A number or id is out of range, or used twice.
    #[error("{what} {number} is out of range or used twice (a bug in lbd; please report it)")]
    BadNumber {
        /// A service number or a backend id.
        what: &'static str,
        /// Which.
        number: u16,
    },
}

impl Snapshot {
    /// Builds a copy's contents.
    ///
    /// # Errors
    /// The services contradict each other or do not fit; see [`SnapshotError`].
    pub fn build(services: &[ServiceEntry]) -> Result<Self, SnapshotError> {
        let endpoints = memberships(services)?;
        let (backends_by_endpoint, siblings) = endpoint_table(&endpoints)?;
        let mut snapshot = Self {
            services_by_endpoint: service_table(services)?,
            backends_by_endpoint,
            siblings,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            slots: Vec::new(),
        };
        let mut pool = Vec::new();
        for service in services {
            let first_slot = pool.len() as u32;
            pool.extend_from_slice(&service.slots);
            let record = abi::Service {
                first_slot,
                slots: service.slots.len() as u32,
                flags: if service.leaving { abi::Service::LEAVING } else { 0 },
                reserved: 0,
            };
            let number = service.number;
            let fits = number != 0 && u32::from(number) < SERVICE_NUMBERS;
            if !fits || snapshot.services.insert(number, record).is_some() {
                return Err(SnapshotError::BadNumber {
                    what: "service number",
                    number,
                });
            }
            for backend in &service.backends {
                let shared = endpoints
                    .get(&backend.endpoint)
                    .is_some_and(|members| members.len() > 1);
                let fits = backend.id != 0 && u32::from(backend.id) < BACKEND_IDS;
                if !fits
                    || snapshot
                        .backends
                        .insert(backend.id, record_of(service, backend, shared))
                        .is_some()
                {
                    return Err(SnapshotError::BadNumber {
                        what: "backend id",
                        number: backend.id,
                    });
                }
            }
        }
        snapshot.slots = slot_lines(&pool)?;
        Ok(snapshot)
    }
}

fn service_table(services: &[ServiceEntry]) -> Result<LookupTable, SnapshotError> {
    let entries: Vec<_> = services
        .iter()
        .map(|s| (key(s.vip), u64::from(s.number)))
        .collect();
    LookupTable::build(&entries, SERVICE_BUCKETS as usize).map_err(|error| match error {
        BuildError::DuplicateKey(duplicate) => {
            let vip = services
                .iter()
                .find(|s| key(s.vip) == duplicate)
                .map(|s| s.vip.to_string());
            SnapshotError::DuplicateVip(vip.unwrap_or_default())
        }
        BuildError::TooManyEntries { .. } => SnapshotError::TooMany {
            what: "services",
            room: SERVICE_BUCKETS as usize / 2,
        },
    })
}

type Memberships = BTreeMap<SocketAddrV4, Vec<(u16, u16)>>;

/// (service number, backend id) of each endpoint.
fn memberships(services: &[ServiceEntry]) -> Result<Memberships, SnapshotError> {
    let mut endpoints = Memberships::new();
    for service in services {
        for backend in &service.backends {
            endpoints
                .entry(backend.endpoint)
                .or_default()
                .push((service.number, backend.id));
        }
    }
    match endpoints
        .iter()
        .find(|(_, members)| members.len() > MAX_SIBLINGS as usize)
    {
        Some((endpoint, members)) => Err(SnapshotError::TooManySiblings {
            endpoint: *endpoint,
            services: members.len(),
        }),
        None => Ok(endpoints),
    }
}

/// The first membership of each endpoint goes into the table, the others into a chain from there.
fn endpoint_table(endpoints: &Memberships) -> Result<(LookupTable, Vec<u64>), SnapshotError> {
    let mut siblings = vec![0];
    let mut entries = Vec::new();
    for (endpoint, members) in endpoints {
        let mut next = 0;
        for (position, &(service, backend)) in members.iter().enumerate().rev() {
            let packed = Membership {
                service,
                backend,
                next,
            }
            .pack();
            if position == 0 {
                entries.push((key(*endpoint), packed));
            } else {
                next = siblings.len() as u16;
                siblings.push(packed);
            }
        }
    }
    let room = ENDPOINT_BUCKETS as usize;
    match LookupTable::build(&entries, room) {
        Ok(table) if siblings.len() <= BACKEND_IDS as usize => Ok((table, siblings)),
        _ => Err(SnapshotError::TooMany {
            what: "backends",
            room,
        }),
    }
}

fn slot_lines(pool: &[u16]) -> Result<Vec<SlotLine>, SnapshotError> {
    let room = (SLOT_LINES * SLOTS_PER_LINE) as usize;
    if pool.len() > room {
        return Err(SnapshotError::TooMany {
            what: "slots (the sum of all services' weights)",
            room,
        });
    }
    Ok(pool
        .chunks(SLOTS_PER_LINE as usize)
        .map(|chunk| {
            let mut line = SlotLine::default();
            for (slot, id) in line.slots.iter_mut().zip(chunk) {
                *slot = *id;
            }
            line
        })
        .collect())
}

fn record_of(service: &ServiceEntry, backend: &BackendEntry, shared: bool) -> abi::Backend {
    let (vip, vip_port) = octets(service.vip);
    let (address, port) = octets(backend.endpoint);
    let network_delta = Delta::replacing(&vip, &address);
    let mut flags = abi::Backend::KNOWN;
    for (set, flag) in [
        (backend.up, abi::Backend::UP),
        (backend.reset, abi::Backend::RESET),
        (shared, abi::Backend::SHARED),
    ] {
        if set {
            flags |= flag;
        }
    }
    let mut ethernet = [0; 12];
    if let Some(hop) = &backend.next_hop {
        ethernet[..6].copy_from_slice(&hop.destination_mac);
        ethernet[6..].copy_from_slice(&hop.source_mac);
    }
    abi::Backend {
        address: padded(address),
        vip: padded(vip),
        port,
        vip_port,
        ethernet,
        interface_index: backend.next_hop.as_ref().map_or(0, |hop| hop.interface_index),
        network_delta,
        // The pseudo-header has the addresses as well (RFC 9293 section 3.1).
        transport_delta: network_delta.and(Delta::replacing(&vip_port, &port)),
        flags,
        reserved: 0,
        timeouts: backend.timeouts,
    }
}

fn key(endpoint: SocketAddrV4) -> u64 {
    ipv4_endpoint(
        u32::from_ne_bytes(endpoint.ip().octets()),
        endpoint.port().to_be(),
        PROTOCOL_TCP,
    )
}

fn octets(endpoint: SocketAddrV4) -> ([u8; 4], [u8; 2]) {
    (Ipv4Addr::octets(endpoint.ip()), endpoint.port().to_be_bytes())
}

fn padded([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: u16, endpoint: &str) -> BackendEntry {
        BackendEntry {
            id,
            endpoint: endpoint.parse().unwrap(),
            next_hop: None,
            up: true,
            reset: false,
            timeouts: [8, 1818, 31],
        }
    }

    fn service(number: u16, vip: &str, backends: Vec<BackendEntry>) -> ServiceEntry {
        let slots = backends.iter().map(|b| b.id).collect();
        ServiceEntry {
            number,
            vip: vip.parse().unwrap(),
            leaving: false,
            slots,
            backends,
        }
    }

    #[test]
    fn slots_of_services_lie_one_after_the_other() {
        let many = (1..=40)
            .map(|id| backend(id, &format!("198.18.1.{id}:443")))
            .collect();
        let snapshot = Snapshot::build(&[
            service(1, "203.0.113.10:443", many),
            service(2, "203.0.113.10:80", vec![backend(50, "198.18.2.1:80")]),
        ])
        .unwrap();
        let second = snapshot.services[&2];
        assert_eq!((second.first_slot, second.slots), (40, 1));
        assert_eq!(snapshot.slots.len(), 2);
        assert_eq!(snapshot.slots[1].slots[8], 50);
        assert_eq!(
            snapshot
                .services_by_endpoint
                .find(key("203.0.113.10:80".parse().unwrap())),
            Some(2)
        );
    }

    #[test]
    fn a_shared_endpoint_chains_its_services() {
        let services: Vec<_> = (1..=8)
            .map(|n| {
                service(
                    n,
                    &format!("203.0.113.{n}:443"),
                    vec![backend(n + 100, "198.18.1.2:443")],
                )
            })
            .collect();
        let snapshot = Snapshot::build(&services).unwrap();
        let mut found = Vec::new();
        let mut at = snapshot
            .backends_by_endpoint
            .find(key("198.18.1.2:443".parse().unwrap()));
        while let Some(membership) = at.map(Membership::unpack) {
            found.push((membership.service, membership.backend));
            at = (membership.next != 0).then(|| snapshot.siblings[membership.next as usize]);
        }
        assert_eq!(found, (1..=8).map(|n| (n, n + 100)).collect::<Vec<_>>());
        assert!(
            snapshot
                .backends
                .values()
                .all(|b| b.flags & abi::Backend::SHARED != 0)
        );
        let ninth = service(9, "203.0.113.9:443", vec![backend(109, "198.18.1.2:443")]);
        assert!(matches!(
            Snapshot::build(&[services, vec![ninth]].concat()),
            Err(SnapshotError::TooManySiblings { services: 9, .. })
        ));
    }

    #[test]
    fn contradictions_are_refused() {
        let twice = [
            service(1, "203.0.113.10:443", vec![backend(1, "198.18.1.2:443")]),
            service(2, "203.0.113.10:443", vec![backend(2, "198.18.2.2:443")]),
        ];
        assert_eq!(
            Snapshot::build(&twice),
            Err(SnapshotError::DuplicateVip("203.0.113.10:443".into()))
        );
        let bad = [service(0, "203.0.113.10:443", vec![])];
        assert!(matches!(
            Snapshot::build(&bad),
            Err(SnapshotError::BadNumber { number: 0, .. })
        ));
        let same_id = [service(
            1,
            "203.0.113.10:443",
            vec![backend(1, "198.18.1.2:1"), backend(1, "198.18.1.2:2")],
        )];
        assert!(matches!(
            Snapshot::build(&same_id),
            Err(SnapshotError::BadNumber { number: 1, .. })
        ));
    }

    #[test]
    fn a_thousand_services_with_four_backends_each_fit() {
        let services: Vec<_> = (0..1024u16)
            .map(|n| {
                let backends = (0..4)
                    .map(|b| {
                        backend(
                            1 + n * 4 + b,
                            &format!("198.18.{}.{}:{}", n / 256, n % 256, 8000 + b),
                        )
                    })
                    .collect();
                service(n + 1, &format!("203.0.{}.{}:443", n / 256, n % 256), backends)
            })
            .collect();
        let snapshot = Snapshot::build(&services).unwrap();
        assert_eq!(snapshot.backends.len(), 4096);
    }
}
