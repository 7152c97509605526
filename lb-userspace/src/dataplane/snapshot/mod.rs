//! What one copy of the maps must contain for a set of services: a pure function.

mod ambiguity;
mod lookup;
mod record;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use lb_common::abi::{
    self, BACKEND_IDS, Choice, MAX_SIBLINGS, Outer, SERVICE_NUMBERS, SLOT_LINES, SLOTS_PER_LINE, SlotLine,
};
use lb_common::lookup_table::LookupTable;

use crate::config::{Ports, Protocol};
use crate::neighbours::NextHop;

use lookup::Memberships;

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
    /// Whether it is only here for the connections that it has: datagrams of these stay with it too.
    pub leaving: bool,
    /// Whether its clients' next packets are answered with a RST.
    pub reset: bool,
    /// What its number of connections is divided by when the least loaded is chosen, 1 to 256.
    pub weight: u16,
    /// Idle timeouts in ticks: half-open, established (UDP: once answered), closing.
    pub timeouts: [u16; 3],
}

/// How packets get to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// By id, of `full-nat` and `ipip` backends only.
    pub(super) outers: BTreeMap<u16, Outer>,
    /// By id: what numbers of connections are divided by.
    pub(super) weights: BTreeMap<u16, u16>,
    pub(super) slots: Vec<SlotLine>,
    /// Whether there are services of several ports.
    pub(super) several_ports: bool,
}

/// Why services do not fit into the maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Two services listen on one endpoint.
    #[error("two services listen on {0}")]
    DuplicateVip(String),
    /// Two IPv6 endpoints have the same 64-bit fingerprint.
    #[error(
        "{one} and {other} have the same fingerprint in the program's tables, so that they could not be told apart; \
         give one of them another address or port"
    )]
    SameFingerprint {
        /// An endpoint with its protocol.
        one: String,
        /// Another one.
        other: String,
    },
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
        /// The endpoint; port 0: all ports of the address.
        endpoint: SocketAddr,
        /// Of so many.
        services: usize,
    },
    /// What comes from an endpoint could be the answer of two services that are looked up in different ways.
    #[error(
        "{endpoint} is a backend of the service on {one} and lies among the ports of the one on {several}: its answers \
         could not be told apart; let the first listen on {port} of the same VIP, or leave {port} out of the second's ports",
        port = endpoint.port()
    )]
    Ambiguous {
        /// The endpoint.
        endpoint: SocketAddr,
        /// VIP and port of the service of one port.
        one: SocketAddr,
        /// VIP of the service of several.
        several: IpAddr,
    },
    /// Answers to a `full-nat` service's own ports would be taken for a client's packets.
    #[error(
        "the own ports {first} to {last} of a full-nat service lie on {vip}, where another service listens on some of them: \
         give it another `source_address` or other `source_ports`"
    )]
    OwnPortsListenedOn {
        /// The first own port.
        first: u16,
        /// The last.
        last: u16,
        /// The own address, which is a VIP as well.
        vip: IpAddr,
    },
    /// A backend's address, VIP and own address are not of the families that its mode wants.
    #[error("backend {address} of the service on {vip}: its address family does not go with the mode")]
    Families {
        /// The backend.
        address: IpAddr,
        /// The VIP.
        vip: IpAddr,
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

impl ServiceEntry {
    /// Whether it has several ports.
    fn is_wide(&self) -> bool {
        matches!(self.ports, Ports::Range(_))
    }

    /// The port that it is looked up by: 0 for several.
    fn port(&self) -> u16 {
        match &self.ports {
            Ports::One(port) => port.get(),
            Ports::Range(_) => 0,
        }
    }

    fn listens_on(&self, port: u16) -> bool {
        match &self.ports {
            Ports::One(own) => own.get() == port,
            Ports::Range(ports) => ports.contains(&port),
        }
    }

    fn listens_within(&self, range: RangeInclusive<u16>) -> bool {
        let (first, last) = match &self.ports {
            Ports::One(port) => (port.get(), port.get()),
            Ports::Range(ports) => (*ports.start(), *ports.end()),
        };
        first <= *range.end() && *range.start() <= last
    }
}

impl Forwarding {
    /// Whether the backend's answers come by here, so that they have to be found.
    pub fn is_answered_here(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat { .. })
    }
}

impl Snapshot {
    /// Builds a copy's contents.
    ///
    /// # Errors
    /// The services contradict each other or do not fit; see [`SnapshotError`].
    pub fn build(services: &[ServiceEntry]) -> Result<Self, SnapshotError> {
        let endpoints = Memberships::of(services)?;
        let (backends_by_endpoint, siblings) = endpoints.table()?;
        let mut snapshot = Self {
            services_by_endpoint: lookup::service_table(services)?,
            backends_by_endpoint,
            siblings,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            outers: BTreeMap::new(),
            weights: BTreeMap::new(),
            slots: Vec::new(),
            several_ports: services.iter().any(ServiceEntry::is_wide),
        };
        let mut pool = Pool::default();
        for service in services {
            let record = record::service(
                service,
                pool.add(&service.slots),
                pool.add(&service.previous_slots),
            );
            let number = service.number;
            let fits = number != 0 && u32::from(number) < SERVICE_NUMBERS;
            if !fits || snapshot.services.insert(number, record).is_some() {
                return Err(SnapshotError::BadNumber {
                    what: "service number",
                    number,
                });
            }
            for backend in &service.backends {
                let shared = endpoints.is_shared(service, backend);
                snapshot.add_backend(service, backend, shared)?;
            }
        }
        snapshot.slots = pool.lines()?;
        Ok(snapshot)
    }

    fn add_backend(
        &mut self,
        service: &ServiceEntry,
        backend: &BackendEntry,
        shared: bool,
    ) -> Result<(), SnapshotError> {
        let record = record::backend(service, backend, shared)?;
        let id = backend.id;
        let fits = id != 0 && u32::from(id) < BACKEND_IDS;
        if !fits || self.backends.insert(id, record).is_some() {
            return Err(SnapshotError::BadNumber {
                what: "backend id",
                number: id,
            });
        }
        if let Some(outer) = record::outer(service, backend) {
            self.outers.insert(id, outer);
        }
        self.weights.insert(id, backend.weight.max(1));
        Ok(())
    }
}

/// The slots of all services, one after the other.
#[derive(Default)]
struct Pool(Vec<u16>);

impl Pool {
    /// Where they begin, and how many they are.
    fn add(&mut self, slots: &[u16]) -> (u32, u32) {
        let first = self.0.len() as u32;
        self.0.extend_from_slice(slots);
        (first, slots.len() as u32)
    }

    fn lines(&self) -> Result<Vec<SlotLine>, SnapshotError> {
        let room = (SLOT_LINES * SLOTS_PER_LINE) as usize;
        if self.0.len() > room {
            return Err(SnapshotError::TooMany {
                what: "slots (the sum of all services' weights, or the sizes of their hash tables)",
                room,
            });
        }
        Ok(self
            .0
            .chunks(SLOTS_PER_LINE as usize)
            .map(record::slot_line)
            .collect())
    }
}

#[cfg(test)]
mod tests;
