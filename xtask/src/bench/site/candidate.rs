//! What requests can take their way through, and where a client finds it.

use std::net::Ipv4Addr;

use crate::bench::names::candidate as names;
use crate::lab::{BODY_PORTS, Mode, Node, Topology, VIP};

/// The VIP of services in `ipip` mode, whose ports must be the web servers': the first VIP's are those of `dsr`.
pub(super) const IPIP_VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// Where clients find the services in `full-nat` mode, HTTP and HTTPS.
pub(super) const FULL_NAT_PORTS: [u16; 2] = [8100, 8543];
/// Where HAProxy listens.
pub(super) const HAPROXY_PORTS: [u16; 2] = [8200, 8643];
/// Where nginx listens as a proxy.
pub(super) const STREAM_PORTS: [u16; 2] = [8300, 8743];

/// A way from the client to the web servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidate {
    /// To the web servers themselves, both of them.
    Direct,
    /// The same, through interfaces of the balancer's host that its program is attached to, which passes them: what native XDP
    /// costs on a veth, where it turns each packet into a frame of its own, and no network card has to do so.
    Passed,
    /// This project.
    Ours(Mode),
    /// HAProxy in TCP mode.
    HaProxy,
    /// nginx with its stream module.
    NginxStream,
    /// nftables, with the kernel's connection tracking.
    Nftables,
}

/// Without TLS, or with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Without.
    Http,
    /// With.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn of<T: Copy>(self, [http, https]: [T; 2]) -> T {
        match self {
            Self::Http => http,
            Self::Https => https,
        }
    }
}

impl Candidate {
    /// All of them in the topology in which they are measured, in the order of the report.
    pub(super) fn in_topology(topology: Topology) -> &'static [Self] {
        match topology {
            Topology::Routed => &[
                Self::Direct,
                Self::Ours(Mode::Nat),
                Self::Ours(Mode::FullNat),
                Self::HaProxy,
                Self::NginxStream,
                Self::Nftables,
                Self::Passed,
            ],
            Topology::L2 => &[
                Self::Direct,
                Self::Ours(Mode::Dsr),
                Self::Ours(Mode::Ipip),
                Self::HaProxy,
            ],
        }
    }

    /// As in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => names::DIRECT,
            Self::Passed => names::PASSED,
            Self::Ours(Mode::Nat) => names::NAT,
            Self::Ours(Mode::FullNat) => names::FULL_NAT,
            Self::Ours(Mode::Dsr) => names::DSR,
            Self::Ours(Mode::Ipip) => names::IPIP,
            Self::HaProxy => names::HAPROXY,
            Self::NginxStream => names::NGINX,
            Self::Nftables => names::NFTABLES,
        }
    }

    /// Whether it is this project.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// Whether its lab has `lbd`.
    pub(super) fn is_beside_lbd(self) -> bool {
        self.is_ours() || self == Self::Passed
    }

    /// What clients connect to, one half of them each.
    pub(super) fn addresses(self, topology: Topology) -> [Ipv4Addr; 2] {
        match self {
            Self::Direct | Self::Passed => Node::WEB.map(|node| topology.address(node)),
            Self::Ours(Mode::Ipip) => [IPIP_VIP; 2],
            Self::Ours(_) | Self::Nftables => [VIP; 2],
            Self::HaProxy | Self::NginxStream => [topology.address(Node::Lb); 2],
        }
    }

    /// At which port.
    pub(super) fn port(self, scheme: Scheme) -> u16 {
        scheme.of(match self {
            Self::Direct | Self::Passed | Self::Nftables | Self::Ours(Mode::Nat | Mode::Dsr | Mode::Ipip) => {
                BODY_PORTS
            }
            Self::Ours(Mode::FullNat) => FULL_NAT_PORTS,
            Self::HaProxy => HAPROXY_PORTS,
            Self::NginxStream => STREAM_PORTS,
        })
    }
}
