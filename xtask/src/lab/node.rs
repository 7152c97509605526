//! The lab's hosts and their addresses, all from the documentation and benchmarking ranges (RFC 5737, RFC 2544).

use std::net::Ipv4Addr;

/// The address that the client connects to.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The site's name.
pub const SITE: &str = "www.foobar.com";

/// One of the lab's hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Node {
    /// Where requests come from; 198.18.0.2.
    Client,
    /// Between the client and the balancer, so that the client is not on the balancer's own network.
    Router,
    /// The balancer; 198.51.100.2 on `uplink`, 198.18.1.1 on `web1`, 198.18.2.1 on `web2`.
    Lb,
    /// The first web server; 198.18.1.2.
    Web1,
    /// The second web server; 198.18.2.2.
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

    /// Its own address, the one that others reach it at.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Client => Ipv4Addr::new(198, 18, 0, 2),
            Self::Router => Ipv4Addr::new(198, 51, 100, 1),
            Self::Lb => Ipv4Addr::new(198, 51, 100, 2),
            Self::Web1 => Ipv4Addr::new(198, 18, 1, 2),
            Self::Web2 => Ipv4Addr::new(198, 18, 2, 2),
        }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
