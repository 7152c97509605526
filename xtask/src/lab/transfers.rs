//! The web servers' transfer service, as the lab starts and uses it.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::network::has_ipv6;
use super::{Lab, LabOptions, Node};
use crate::transfer::Protocol;
use crate::transfer::client::{Direction, Report, transfer};

/// The ports that it listens on, TCP and UDP: several, for services of several ports and for port mapping.
pub const TRANSFER_PORTS: RangeInclusive<u16> = 9000..=9005;
/// The first of them.
pub const TRANSFER_PORT: u16 = *TRANSFER_PORTS.start();

/// Where a web server listens: at its own addresses, and at those of the VIPs that it has.
pub(super) fn addresses(options: &LabOptions, node: Node) -> Vec<SocketAddr> {
    let own = [
        IpAddr::from(options.topology.address(node)),
        options.topology.address6(node).into(),
    ];
    let vips = options
        .vips
        .iter()
        .filter(|_| options.mode.backends_have_the_vip());
    own.iter()
        .chain(vips)
        .filter(|address| address.is_ipv4() || has_ipv6())
        .flat_map(|&address| TRANSFER_PORTS.map(move |port| (address, port).into()))
        .collect()
}

impl Lab {
    /// A transfer from or to the client, on a connection or socket of its own, to `to`: the address of a service in front of
    /// the web servers' transfer service, or one of their own. For anything more special see
    /// [`client`](crate::transfer::client), to be used inside [`Namespace::run`](super::Namespace::run).
    pub fn transfer(
        &self,
        protocol: Protocol,
        direction: Direction,
        to: SocketAddr,
        bytes: u64,
    ) -> anyhow::Result<Report> {
        self.namespace(Node::Client)
            .run(|| transfer(protocol, direction, to, bytes))
    }
}
