//! How the hosts are joined: wires, addresses and routes of each topology, as text for `ip -batch`.
//!
//! ```text
//! routed    client ── router ── lb ──┬── web1         a wire of its own to each web server
//!                                    └── web2
//!
//! l2        client ── router ──┬── lb                 one segment: a bridge in the router's namespace
//!                              ├── web1
//!                              └── web2
//! ```
//!
//! | | client | router | lb | web1 | web2 |
//! |---|---|---|---|---|---|
//! | `routed` | 198.18.0.2, 2001:db8::2 | 198.51.100.1, 2001:db8:100::1 | 198.51.100.2, 2001:db8:100::2 | 198.18.1.2, 2001:db8:1::2 | 198.18.2.2, 2001:db8:2::2 |
//! | `l2` | the same | the same | the same | 198.51.100.11, 2001:db8:100::11 | 198.51.100.12, 2001:db8:100::12 |
//!
//! The balancer's interface towards the client is `uplink` in both, and the router's end of that wire `lb`.
//!
//! Beside each web server is a *sink*, the address ending in 200 (IPv6: `::200`) of the same network: the balancer believes
//! it to be a neighbour, and what it sends there is dropped on arrival. Backends for floods, which are to measure the
//! balancer and not the servers.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{LabOptions, Mode, Node};

/// How the hosts are joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// The balancer between the router and the web servers, a wire of its own to each
    #[default]
    Routed,
    /// Router, balancer and web servers on one layer-2 segment; the balancer has a single interface
    L2,
}

/// The balancer's interfaces in the default topology; [`Topology::lb_interfaces`] knows them in any.
pub const LB_INTERFACES: [&str; 3] = ["uplink", "web1", "web2"];

impl Topology {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::L2 => "l2",
        }
    }

    /// The balancer's interfaces, which the program is attached to.
    pub fn lb_interfaces(self) -> &'static [&'static str] {
        match self {
            Self::Routed => &LB_INTERFACES,
            Self::L2 => &LB_INTERFACES[..1],
        }
    }

    /// A node's own IPv4 address, the one that others reach it at.
    pub fn address(self, node: Node) -> Ipv4Addr {
        match (node, self) {
            (Node::Client, _) => Ipv4Addr::new(198, 18, 0, 2),
            (Node::Router, _) => Ipv4Addr::new(198, 51, 100, 1),
            (Node::Lb, _) => Ipv4Addr::new(198, 51, 100, 2),
            (Node::Web1, Self::Routed) => Ipv4Addr::new(198, 18, 1, 2),
            (Node::Web2, Self::Routed) => Ipv4Addr::new(198, 18, 2, 2),
            (Node::Web1, Self::L2) => Ipv4Addr::new(198, 51, 100, 11),
            (Node::Web2, Self::L2) => Ipv4Addr::new(198, 51, 100, 12),
        }
    }

    /// A node's own IPv6 address.
    pub fn address6(self, node: Node) -> Ipv6Addr {
        let of = |network, host| Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host);
        match (node, self) {
            (Node::Client, _) => of(0, 2),
            (Node::Router, _) => of(0x100, 1),
            (Node::Lb, _) => of(0x100, 2),
            (Node::Web1, Self::Routed) => of(1, 2),
            (Node::Web2, Self::Routed) => of(2, 2),
            (Node::Web1, Self::L2) => of(0x100, 0x11),
            (Node::Web2, Self::L2) => of(0x100, 0x12),
        }
    }

    /// The sink beside a web server; for other nodes, that of the wire towards the client.
    pub fn sink(self, node: Node) -> (Ipv4Addr, Ipv6Addr) {
        let mut octets = self.address(node).octets();
        let mut segments = self.address6(node).segments();
        // In the layer-2 topology all are on one network.
        let shift = u8::from(self == Self::L2 && node == Node::Web2);
        octets[3] = 200 + shift;
        segments[7] = 0x200 + u16::from(shift);
        (octets.into(), segments.into())
    }

    /// Where the balancer is told that the sinks are.
    fn sinks(self) -> String {
        let lines = Node::WEB.map(|node| {
            let device = match self {
                Self::Routed => node.name(),
                Self::L2 => "uplink",
            };
            let (ipv4, ipv6) = self.sink(node);
            [IpAddr::from(ipv4), ipv6.into()].map(|address| {
                format!("neighbour add {address} lladdr {NOBODYS_MAC} dev {device} nud permanent\n")
            })
        });
        lines.concat().concat()
    }

    /// The wires, but for the one between client and router; `{prefix}` is to be replaced.
    pub(super) fn wires(self) -> &'static str {
        match self {
            Self::Routed => {
                "link add lb netns {prefix}-router type veth peer name uplink netns {prefix}-lb
                 link add web1 netns {prefix}-lb type veth peer name eth0 netns {prefix}-web1
                 link add web2 netns {prefix}-lb type veth peer name eth0 netns {prefix}-web2\n"
            }
            Self::L2 => {
                "link add lb netns {prefix}-router type veth peer name uplink netns {prefix}-lb
                 link add web1 netns {prefix}-router type veth peer name eth0 netns {prefix}-web1
                 link add web2 netns {prefix}-router type veth peer name eth0 netns {prefix}-web2\n"
            }
        }
    }

    /// The interfaces that send what a host of the lab itself has made. XDP forwards a packet as it is, and with checksum
    /// offload a veth hands on packets whose checksum nobody has filled in yet; real network cards have filled it in by
    /// then. On the balancer for another reason: what HAProxy sends there is to be compared under the same terms.
    pub(super) fn without_offload(self, node: Node) -> &'static [&'static str] {
        match (node, self) {
            (Node::Client | Node::Web1 | Node::Web2, _) => &["eth0"],
            (Node::Lb, _) => self.lb_interfaces(),
            (Node::Router, _) => &[],
        }
    }

    /// The ports of the bridge, all in the router's namespace. A switch hands on frames as they are: it neither joins
    /// segments (GRO) nor leaves checksums to others.
    pub(super) fn bridge_ports(self) -> &'static [&'static str] {
        match self {
            Self::Routed => &[],
            Self::L2 => &["lb", "web1", "web2"],
        }
    }

    /// The ends that frames are transmitted or redirected to by XDP: without a program of their own, veth drops these.
    pub(super) fn far_ends(self) -> &'static [(Node, &'static str)] {
        match self {
            Self::Routed => &[(Node::Router, "lb"), (Node::Web1, "eth0"), (Node::Web2, "eth0")],
            Self::L2 => &[(Node::Router, "lb")],
        }
    }

    /// Addresses and routes of a node.
    pub(super) fn configuration(self, node: Node, options: &LabOptions) -> String {
        let mut lines = self.links(node).to_owned();
        lines.push('\n');
        let mtu = |device| format!("link set {device} mtu {}\n", options.client_mtu);
        match node {
            Node::Client => {
                lines += &mtu("eth0");
                lines += &client_routes(options.client_mtu);
            }
            Node::Router => {
                lines += &mtu("client");
                lines += &self.router_routes(options);
            }
            Node::Lb => {
                lines += "route add default via 198.51.100.1\nroute add default via 2001:db8:100::1\n";
                lines += &self.sinks();
            }
            Node::Web1 | Node::Web2 => {
                lines += self.web_routes(node, options.mode);
                if options.mode.backends_have_the_vip() {
                    for vip in &options.vips {
                        let nodad = if vip.is_ipv6() { " nodad" } else { "" };
                        // Into a string, which does not fail.
                        let _ = writeln!(lines, "address add {vip}/{} dev lo{nodad}", host_prefix(*vip));
                    }
                }
            }
        }
        lines
    }

    fn links(self, node: Node) -> &'static str {
        match (node, self) {
            (Node::Client, _) => {
                "address add 198.18.0.2/24 dev eth0
                 address add 2001:db8::2/64 dev eth0 nodad
                 link set eth0 up"
            }
            (Node::Router, Self::Routed) => {
                "address add 198.18.0.1/24 dev client
                 address add 2001:db8::1/64 dev client nodad
                 address add 198.51.100.1/24 dev lb
                 address add 2001:db8:100::1/64 dev lb nodad
                 link set client up
                 link set lb up"
            }
            (Node::Router, Self::L2) => {
                "address add 198.18.0.1/24 dev client
                 address add 2001:db8::1/64 dev client nodad
                 link add segment type bridge mcast_snooping 0
                 link set lb master segment
                 link set web1 master segment
                 link set web2 master segment
                 address add 198.51.100.1/24 dev segment
                 address add 2001:db8:100::1/64 dev segment nodad
                 link set client up
                 link set lb up
                 link set web1 up
                 link set web2 up
                 link set segment up"
            }
            (Node::Lb, Self::Routed) => {
                "address add 198.51.100.2/24 dev uplink
                 address add 2001:db8:100::2/64 dev uplink nodad
                 address add 198.18.1.1/24 dev web1
                 address add 2001:db8:1::1/64 dev web1 nodad
                 address add 198.18.2.1/24 dev web2
                 address add 2001:db8:2::1/64 dev web2 nodad
                 link set uplink up
                 link set web1 up
                 link set web2 up"
            }
            (Node::Lb, Self::L2) => {
                "address add 198.51.100.2/24 dev uplink
                 address add 2001:db8:100::2/64 dev uplink nodad
                 link set uplink up"
            }
            (Node::Web1, Self::Routed) => {
                "address add 198.18.1.2/24 dev eth0
                 address add 2001:db8:1::2/64 dev eth0 nodad
                 link set eth0 up"
            }
            (Node::Web2, Self::Routed) => {
                "address add 198.18.2.2/24 dev eth0
                 address add 2001:db8:2::2/64 dev eth0 nodad
                 link set eth0 up"
            }
            (Node::Web1, Self::L2) => {
                "address add 198.51.100.11/24 dev eth0
                 address add 2001:db8:100::11/64 dev eth0 nodad
                 link set eth0 up"
            }
            (Node::Web2, Self::L2) => {
                "address add 198.51.100.12/24 dev eth0
                 address add 2001:db8:100::12/64 dev eth0 nodad
                 link set eth0 up"
            }
        }
    }

    /// VIPs are reached through the balancer, and [`NOBODY`](super::NOBODY) not at all.
    fn router_routes(self, options: &LabOptions) -> String {
        let mut lines =
            "route add blackhole 198.19.0.0/16\nroute add blackhole 2001:db8:bad::/48\n".to_owned();
        if self == Self::Routed {
            lines += "route add 198.18.1.0/24 via 198.51.100.2
                      route add 198.18.2.0/24 via 198.51.100.2
                      route add 2001:db8:1::/64 via 2001:db8:100::2
                      route add 2001:db8:2::/64 via 2001:db8:100::2\n";
        }
        for vip in &options.vips {
            let balancer = match vip {
                IpAddr::V4(_) => IpAddr::from(self.address(Node::Lb)),
                IpAddr::V6(_) => IpAddr::from(self.address6(Node::Lb)),
            };
            let _ = writeln!(lines, "route add {vip}/{} via {balancer}", host_prefix(*vip));
        }
        lines
    }

    /// A web server's way to clients: through the balancer, or past it.
    fn web_routes(self, node: Node, mode: Mode) -> &'static str {
        match (self, node, mode) {
            (Self::Routed, Node::Web2, _) => {
                "route add default via 198.18.2.1\nroute add default via 2001:db8:2::1\n"
            }
            (Self::Routed, ..) => "route add default via 198.18.1.1\nroute add default via 2001:db8:1::1\n",
            (Self::L2, _, Mode::Nat) => {
                "route add default via 198.51.100.2\nroute add default via 2001:db8:100::2\n"
            }
            (Self::L2, ..) => "route add default via 198.51.100.1\nroute add default via 2001:db8:100::1\n",
        }
    }
}

/// On a narrow link the client still announces the segment size of an ordinary one, as a client does that has a narrow link
/// somewhere behind its router: that the servers' segments must shrink they only learn from ICMP.
fn client_routes(mtu: u16) -> String {
    let (mss, mss6) = if mtu < ORDINARY_MTU {
        (" advmss 1460", " advmss 1440")
    } else {
        ("", "")
    };
    format!("route add default via 198.18.0.1{mss}\nroute add default via 2001:db8::1{mss6}\n")
}

/// Of the sinks: no interface has it, so that hosts drop what is sent to it before they look into it.
const NOBODYS_MAC: &str = "02:00:00:00:00:5a";

/// The MTU of every link that is not told otherwise.
pub(super) const ORDINARY_MTU: u16 = 1500;

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::options;
    use super::*;

    #[test]
    fn nodes_have_the_addresses_that_they_are_said_to_have() {
        for topology in [Topology::Routed, Topology::L2] {
            for node in Node::ALL {
                let lines = topology.configuration(node, &options());
                for address in [
                    format!("address add {}/24 dev ", topology.address(node)),
                    format!("address add {}/64 dev ", topology.address6(node)),
                ] {
                    assert!(lines.contains(&address), "{topology:?} {node}: {lines}");
                }
            }
        }
    }

    #[test]
    fn answers_go_past_the_balancer_where_the_mode_wants_it() {
        let mut options = options();
        for (mode, gateway, has_vip) in [
            (Mode::Nat, "198.51.100.2", false),
            (Mode::FullNat, "198.51.100.1", false),
            (Mode::Dsr, "198.51.100.1", true),
            (Mode::Ipip, "198.51.100.1", true),
        ] {
            options.mode = mode;
            let lines = Topology::L2.configuration(Node::Web1, &options);
            assert!(
                lines.contains(&format!("default via {gateway}\n")),
                "{mode:?}: {lines}"
            );
            for vip in ["203.0.113.10/32", "2001:db8:113::10/128"] {
                assert_eq!(lines.contains(vip), has_vip, "{mode:?}: {lines}");
            }
        }
    }
}
