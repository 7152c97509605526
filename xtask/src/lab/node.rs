//! The lab's hosts, and the addresses that are the same wherever they stand. All addresses of the lab are from the
//! documentation and benchmarking ranges (RFC 5737, RFC 2544, RFC 3849).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Topology;

/// The address that the client connects to.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same, IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
/// The site's name.
pub const SITE: &str = "www.foobar.com";
/// Where spoofed packets may come from: the lab routes it nowhere (`198.19.0.0/16`).
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// The same, IPv6 (`2001:db8:bad::/48`).
pub const NOBODY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);

/// One of the lab's hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Node {
    /// Where requests come from.
    Client,
    /// Between the client and the balancer, so that the client is not on the balancer's own network.
    Router,
    /// The balancer.
    Lb,
    /// The first web server.
    Web1,
    /// The second web server.
    Web2,
}

impl Node {
    /// All of them, in the order in which packets meet them.
    pub const ALL: [Self; 5] = [Self::Client, Self::Router, Self::Lb, Self::Web1, Self::Web2];
    /// The web servers.
    pub const WEB: [Self; 2] = [Self::Web1, Self::Web2];

    /// Its name, also the end of its namespace's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Router => "router",
            Self::Lb => "lb",
            Self::Web1 => "web1",
            Self::Web2 => "web2",
        }
    }

    /// Its own address in the default topology; [`Lab::address`](super::Lab::address) knows it in any.
    pub fn address(self) -> Ipv4Addr {
        Topology::Routed.address(self)
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
