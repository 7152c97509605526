//! Kinds of traffic: topology by mode by family by protocol.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_tests::harness::Cell;
use xtask::lab::{LabOptions, Mode, ServiceText, Topology, VIP, VIP6};
use xtask::transfer::Protocol;

/// The IPv4 VIP of services whose backends have IPv6 addresses only.
pub(crate) const VIP_IN_IPV6: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// The VIP of a service that has all its ports, where servers have the VIPs themselves.
pub(crate) const VIP_WITH_ALL_PORTS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 14);

/// The family of the client and of the VIP, and that of the tunnel if it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
    Ipv4InIpv6,
}

impl Family {
    /// The families that a mode can have.
    pub(crate) fn of(mode: Mode) -> &'static [Self] {
        match mode {
            Mode::Ipip => &[Self::Ipv4, Self::Ipv6, Self::Ipv4InIpv6],
            _ => &[Self::Ipv4, Self::Ipv6],
        }
    }

    /// As part of a name.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Ipv4InIpv6 => "ipv4-in-ipv6",
        }
    }

    /// What its clients connect to.
    pub(crate) fn vip(self) -> IpAddr {
        match self {
            Self::Ipv4 => VIP.into(),
            Self::Ipv6 => VIP6.into(),
            Self::Ipv4InIpv6 => VIP_IN_IPV6.into(),
        }
    }
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) topology: Topology,
    pub(crate) mode: Mode,
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
}

impl Kind {
    /// All that a lab with this topology and mode can have.
    pub(crate) fn all(topology: Topology, mode: Mode) -> impl Iterator<Item = Self> {
        Family::of(mode).iter().flat_map(move |&family| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Self {
                topology,
                mode,
                family,
                protocol,
            })
        })
    }

    /// Where it stands in the table that the suite prints.
    pub(crate) fn cell(self) -> Cell {
        let mode = match (self.mode, self.topology) {
            (Mode::Nat, Topology::Routed) => "nat",
            (Mode::FullNat, Topology::Routed) => "full-nat",
            (Mode::Dsr, Topology::Routed) => "dsr",
            (Mode::Ipip, Topology::Routed) => "ipip",
            (Mode::Nat, Topology::L2) => "nat, one-armed",
            (Mode::FullNat, Topology::L2) => "full-nat, one-armed",
            (Mode::Dsr, Topology::L2) => "dsr, one-armed",
            (Mode::Ipip, Topology::L2) => "ipip, one-armed",
        };
        Cell {
            mode,
            family: match self.family {
                Family::Ipv4 => "IPv4",
                Family::Ipv6 => "IPv6",
                Family::Ipv4InIpv6 => "IPv4 in IPv6",
            },
            protocol: match self.protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
            },
        }
    }

    /// As part of a test's or a service's name.
    pub(crate) fn slug(self) -> String {
        format!("{}-{}", self.family.slug(), self.protocol.name())
    }

    /// A service of this kind.
    pub(crate) fn service(self, name: &str, port: u16) -> ServiceText {
        let name = format!("{name}-{}", self.slug());
        let mut service = ServiceText::new(&name, self.family.vip(), port, self.protocol, self.mode);
        service.ipv6_backends |= self.family == Family::Ipv4InIpv6;
        if self.mode == Mode::FullNat {
            // Of the default there is room for eight services of two backends.
            service.lines = "source_ports = \"20000-20999\"\n".to_owned();
        }
        service
    }

    /// A service's address.
    pub(crate) fn to(self, port: u16) -> SocketAddr {
        (self.family.vip(), port).into()
    }
}

/// Topology and mode of a lab, and all its VIPs.
pub(crate) fn prepare(options: &mut LabOptions, topology: Topology, mode: Mode) {
    options.topology = topology;
    options.mode = mode;
    options.vips = Family::of(mode).iter().map(|family| family.vip()).collect();
    if mode.backends_have_the_vip() {
        options.vips.push(VIP_WITH_ALL_PORTS.into());
    }
}
