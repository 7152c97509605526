//! Packets in packets, sent by a host itself: what the balancer does in `ipip`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use etherparse::PacketBuilder;
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
use xtask::lab::{Lab, Node};

/// Sends a UDP datagram from a client's address to a VIP, packed into a packet from a node to `through`.
pub(crate) fn send_udp(
    lab: &Lab,
    node: Node,
    through: std::net::IpAddr,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Result<()> {
    let (builder, protocol) = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => (
            PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 60),
            libc::IPPROTO_IPIP,
        ),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => (
            PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), 60),
            libc::IPPROTO_IPV6,
        ),
        _ => bail!("{from} and {to} are not of one family"),
    };
    let mut packet = Vec::new();
    builder.udp(from.port(), to.port()).write(&mut packet, payload)?;
    let family = if through.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    lab.namespace(node).run(|| {
        // SAFETY: no pointers; what it returns is checked.
        let socket = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("cannot make a raw socket");
        }
        // SAFETY: it has just been made, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let address = SockaddrStorage::from(SocketAddr::new(through, 0));
        sendto(socket.as_raw_fd(), &packet, &address, MsgFlags::empty())
            .with_context(|| format!("cannot send to {through}"))?;
        Ok(())
    })
}
