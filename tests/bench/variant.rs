//! What a balancer can have beside the plainest service: features, each of which has its price.

use lb::dataplane::{LoadOptions, ServiceEntry, Snapshot, Tracer};
use lb_common::abi::Choice;
use lb_common::explain::TraceFilter;

use crate::frame::MTU;
use crate::kind::{Family, Flavour, Kind, Mode, NAT};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Nothing but the plainest.
    Plain,
    /// Answers do not go back to where the client's last packet came from, but by the routing table.
    HopsNotLearned,
    /// Packets of somebody else are being traced.
    Traced,
    /// Interfaces have MTUs that packets do not obviously fit into.
    MtuLookedUp,
    /// Services of all other kinds and modes, in both families, are configured as well.
    EverythingBeside,
    /// All of that at once.
    Everything,
    /// The service has several ports.
    SeveralPorts,
    /// Datagrams, without a connection table.
    Stateless,
    /// New connections are dealt out by a hash of address and port.
    ByHash,
    /// To the better of two.
    ByLoad,
}

impl Variant {
    /// Those that a TCP service can have.
    pub const OF_TCP: [Self; 9] = [
        Self::Plain,
        Self::HopsNotLearned,
        Self::Traced,
        Self::MtuLookedUp,
        Self::EverythingBeside,
        Self::Everything,
        Self::SeveralPorts,
        Self::ByHash,
        Self::ByLoad,
    ];

    /// As a candidate is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "nat",
            Self::HopsNotLearned => "nat, return hops not learned",
            Self::Traced => "nat, others traced",
            Self::MtuLookedUp => "nat, MTUs looked up",
            Self::EverythingBeside => "nat, all other kinds of service beside it",
            Self::Everything => "nat, all of these at once",
            Self::SeveralPorts => "nat, several ports",
            Self::Stateless => "nat, stateless",
            Self::ByHash => "nat, chosen by hash",
            Self::ByLoad => "nat, chosen by load",
        }
    }

    /// The kind of service that it makes of a kind.
    pub fn kind(self, kind: Kind) -> Kind {
        let flavour = match self {
            Self::SeveralPorts => Flavour::Range,
            Self::Stateless => Flavour::Stateless,
            _ => Flavour::Plain,
        };
        Kind { flavour, ..kind }
    }

    /// What the program is loaded with.
    pub fn options(self, options: LoadOptions) -> LoadOptions {
        LoadOptions {
            learn_return_hops: self != Self::HopsNotLearned,
            ..options
        }
    }

    /// The least MTU of the interfaces, as the program is told.
    pub fn smallest_mtu(self) -> u32 {
        match self {
            Self::MtuLookedUp | Self::Everything => 0,
            _ => MTU as u32,
        }
    }

    pub fn is_traced(self) -> bool {
        matches!(self, Self::Traced | Self::Everything)
    }

    /// Changes the service, and adds others to it.
    pub fn of_services(self, mut services: Vec<ServiceEntry>) -> Vec<ServiceEntry> {
        let choice = match self {
            Self::ByHash => Some(Choice::Hash),
            Self::ByLoad => Some(Choice::Least),
            _ => None,
        };
        for service in &mut services {
            service.choice = choice.unwrap_or(service.choice);
        }
        if matches!(self, Self::EverythingBeside | Self::Everything) {
            services.extend(others());
        }
        services
    }
}

/// Traced are the packets of a client that does not exist.
pub const SOMEBODY_ELSE: TraceFilter = TraceFilter {
    address: [1, 1],
    outcomes: 0,
    rate: 1,
    port: 1,
    protocol: 6,
    version: 4,
};

/// A service of each other mode, flavour and family, at addresses of their own.
fn others() -> Vec<ServiceEntry> {
    let kinds = Kind::all().into_iter().filter(|kind| {
        let plain = matches!(kind.family, Family::Ipv4 | Family::Ipv6);
        // Own ports would need more of them than there are.
        plain && kind.mode != Mode::FullNat && *kind != NAT
    });
    let kinds = kinds.enumerate().map(|(index, kind)| {
        let number = 100 + index as u16;
        let mut vip = kind.vip();
        vip.set_ip(match vip.ip() {
            std::net::IpAddr::V4(_) => [203, 0, 113, 100 + index as u8].into(),
            std::net::IpAddr::V6(address) => {
                std::net::Ipv6Addr::from(u128::from(address) + 1 + index as u128).into()
            }
        });
        let mut backend = kind.backend(100 + index as u8);
        backend.id = 1000 + index as u16;
        ServiceEntry {
            number,
            vip: vip.ip(),
            ..kind.service_of(vec![backend])
        }
    });
    kinds.collect()
}
