//! Every kind of service: mode by family by protocol, with what else makes a difference to the program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use lb::config::{Ports, Protocol};
use lb::dataplane::{BackendEntry, Forwarding, PortLease, ServiceEntry};
use lb::neighbours::NextHop;
use lb_common::abi::Choice;
use lb_tests::harness::Cell;

use crate::talk::Talk;
use crate::world::{INSIDE, INSIDE_MAC, TIMEOUTS, web_mac};

/// How packets get to the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    Nat,
    FullNat,
    Dsr,
    Ipip,
}

/// The family of clients and VIP; and that of backends, if it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
    Ipv4InIpv6,
    Ipv6InIpv4,
}

/// What else there is to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// One port, and a connection table.
    Plain,
    /// Several ports.
    Range,
    /// No connection table.
    Stateless,
}

/// A kind of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub mode: Mode,
    pub family: Family,
    pub protocol: Protocol,
    pub flavour: Flavour,
}

/// How many own ports there are towards each backend.
pub const OWN_PORTS: u16 = 100;
/// The first of them.
pub const FIRST_OWN_PORT: u16 = 20_000;
/// The ports of services of several.
pub const RANGE: (u16, u16) = (7000, 7999);

pub const NAT: Kind = Kind {
    mode: Mode::Nat,
    family: Family::Ipv4,
    protocol: Protocol::Tcp,
    flavour: Flavour::Plain,
};

impl Kind {
    /// Every one.
    pub fn all() -> Vec<Self> {
        use Flavour::{Plain, Range, Stateless};
        use Mode::{Dsr, FullNat, Ipip, Nat};
        let mut kinds = Vec::new();
        for (mode, flavour) in [
            (Nat, Plain),
            (Nat, Range),
            (Nat, Stateless),
            (FullNat, Plain),
            (FullNat, Range),
            (Dsr, Plain),
            (Dsr, Range),
            (Dsr, Stateless),
            (Ipip, Plain),
            (Ipip, Range),
            (Ipip, Stateless),
        ] {
            for family in [Family::Ipv4, Family::Ipv6, Family::Ipv4InIpv6, Family::Ipv6InIpv4] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let fits = mode == Ipip || family == Family::Ipv4 || family == Family::Ipv6;
                    let can_do_without_state = protocol == Protocol::Udp || flavour != Stateless;
                    if fits && can_do_without_state {
                        kinds.push(Self {
                            mode,
                            family,
                            protocol,
                            flavour,
                        });
                    }
                }
            }
        }
        kinds
    }

    /// Those whose backends' answers come by the balancer.
    pub fn answered() -> Vec<Self> {
        let mut kinds = Self::all();
        kinds.retain(|kind| kind.is_answered());
        kinds
    }

    /// Those that remember connections.
    pub fn stateful() -> Vec<Self> {
        let mut kinds = Self::all();
        kinds.retain(|kind| !kind.is_stateless());
        kinds
    }

    pub fn is_answered(self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::FullNat)
    }

    pub fn is_tcp(self) -> bool {
        self.protocol == Protocol::Tcp
    }

    pub fn is_stateless(self) -> bool {
        self.flavour == Flavour::Stateless
    }

    /// Whether clients talk IPv4.
    pub fn is_ipv4(self) -> bool {
        matches!(self.family, Family::Ipv4 | Family::Ipv4InIpv6)
    }

    /// Whether backends are reached by IPv4.
    pub fn is_inside_ipv4(self) -> bool {
        matches!(self.family, Family::Ipv4 | Family::Ipv6InIpv4)
    }

    /// By how many bytes a packet grows on its way to a backend.
    pub fn growth(self) -> usize {
        match (self.mode, self.is_inside_ipv4()) {
            (Mode::Ipip, true) => 20,
            (Mode::Ipip, false) => 40,
            _ => 0,
        }
    }

    /// Where it stands in the table that the suite prints.
    pub fn cell(self) -> Cell {
        let mode = match (self.mode, self.flavour) {
            (Mode::Nat, Flavour::Plain) => "nat",
            (Mode::Nat, Flavour::Range) => "nat, several ports",
            (Mode::Nat, Flavour::Stateless) => "nat, stateless",
            (Mode::FullNat, Flavour::Range) => "full-nat, several ports",
            (Mode::FullNat, _) => "full-nat",
            (Mode::Dsr, Flavour::Plain) => "dsr",
            (Mode::Dsr, Flavour::Range) => "dsr, several ports",
            (Mode::Dsr, Flavour::Stateless) => "dsr, stateless",
            (Mode::Ipip, Flavour::Plain) => "ipip",
            (Mode::Ipip, Flavour::Range) => "ipip, several ports",
            (Mode::Ipip, Flavour::Stateless) => "ipip, stateless",
        };
        let family = match self.family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
            Family::Ipv4InIpv6 => "IPv4 in IPv6",
            Family::Ipv6InIpv4 => "IPv6 in IPv4",
        };
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        Cell {
            mode,
            family,
            protocol,
        }
    }

    /// As part of a test's name.
    pub fn slug(self) -> String {
        let Cell {
            mode,
            family,
            protocol,
        } = self.cell();
        format!("{mode} {family} {protocol}")
            .to_lowercase()
            .replace(", ", "_")
            .replace([' ', '-'], "_")
    }

    /// The port that clients connect to.
    pub fn port(self) -> u16 {
        match self.flavour {
            Flavour::Range => 7443,
            Flavour::Plain | Flavour::Stateless => 443,
        }
    }

    pub fn vip(self) -> SocketAddr {
        let address: IpAddr = if self.is_ipv4() {
            Ipv4Addr::new(203, 0, 113, 10).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10).into()
        };
        SocketAddr::new(address, self.port())
    }

    /// The client number so and so: each another port, every 50,000 another address.
    pub fn client(self, number: u32) -> SocketAddr {
        let (host, port) = (number / 50_000, 10_000 + (number % 50_000) as u16);
        let address: IpAddr = if self.is_ipv4() {
            Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)) + host).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0xc1, 0, 0, (host >> 16) as u16, host as u16).into()
        };
        SocketAddr::new(address, port)
    }

    /// Where `web1`, `web2`, … listens: at another port than the VIP's, where the mode can have that.
    pub fn endpoint(self, server: u8) -> SocketAddr {
        let address: IpAddr = if self.is_inside_ipv4() {
            Ipv4Addr::new(198, 18, server, 2).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0, server.into(), 0, 0, 0, 2).into()
        };
        let port = match (self.flavour, self.mode) {
            (Flavour::Range, _) => 0,
            (_, Mode::Nat | Mode::FullNat) => 8443,
            (_, Mode::Dsr | Mode::Ipip) => self.port(),
        };
        SocketAddr::new(address, port)
    }

    /// The balancer's own address on the backends' side.
    pub fn own_address(self) -> IpAddr {
        if self.is_inside_ipv4() {
            Ipv4Addr::new(198, 18, 1, 1).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1).into()
        }
    }

    /// The address of a router between the balancer and the clients, or the backends.
    pub fn router_address(self) -> IpAddr {
        if self.is_ipv4() {
            Ipv4Addr::new(198, 51, 100, 99).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 0x99).into()
        }
    }

    fn forwarding(self, server: u8) -> Forwarding {
        let source = self.own_address();
        match self.mode {
            Mode::Nat => Forwarding::Nat,
            Mode::FullNat => Forwarding::FullNat {
                source,
                lease: PortLease {
                    first_port: FIRST_OWN_PORT,
                    ports: OWN_PORTS,
                    first_element: u32::from(server - 1) * u32::from(OWN_PORTS),
                },
            },
            Mode::Dsr => Forwarding::Dsr,
            Mode::Ipip => Forwarding::Ipip { source },
        }
    }

    /// `web1`, `web2`, …: ids 1, 2, …
    pub fn backend(self, server: u8) -> BackendEntry {
        BackendEntry {
            id: u16::from(server),
            endpoint: self.endpoint(server),
            forwarding: self.forwarding(server),
            next_hop: Some(NextHop {
                interface_index: INSIDE,
                source_mac: INSIDE_MAC,
                destination_mac: web_mac(server),
            }),
            up: true,
            leaving: false,
            reset: false,
            weight: 1,
            timeouts: TIMEOUTS,
        }
    }

    /// The service, number 1, with so many servers, a slot each.
    pub fn service(self, servers: u8) -> ServiceEntry {
        self.service_of((1..=servers).map(|server| self.backend(server)).collect())
    }

    /// The service with a slot for each backend.
    pub fn service_of(self, backends: Vec<BackendEntry>) -> ServiceEntry {
        ServiceEntry {
            number: 1,
            vip: self.vip().ip(),
            ports: match self.flavour {
                Flavour::Range => Ports::Range(RANGE.0..=RANGE.1),
                Flavour::Plain | Flavour::Stateless => one_port(self.port()),
            },
            protocol: self.protocol,
            leaving: false,
            stateless: self.is_stateless(),
            silent: false,
            answer_ping: false,
            choice: if self.is_stateless() {
                Choice::Hash
            } else {
                Choice::Cursor
            },
            slots: backends.iter().map(|backend| backend.id).collect(),
            previous_slots: Vec::new(),
            backends,
        }
    }

    /// A client's connection to a server, the first one that needs an own port towards it.
    pub fn talk(self, client: u32, server: u8) -> Talk {
        Talk {
            client: self.client(client),
            vip: self.vip(),
            protocol: self.protocol,
            backend: self.backend(server),
            router: crate::world::ROUTER_MAC,
            own_port: FIRST_OWN_PORT,
            is_stateless: self.is_stateless(),
        }
    }
}

pub fn one_port(port: u16) -> Ports {
    Ports::One(NonZeroU16::new(port).expect("not 0"))
}
