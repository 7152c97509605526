//! Pings.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::lab::{Lab, Node};

/// Whether one of three echo requests from a node, with so many bytes each, is answered, byte for byte, within half a second.
pub(crate) fn is_answered(lab: &Lab, node: Node, to: IpAddr, length: usize) -> Result<bool> {
    let namespace = lab.namespace(node);
    // Sockets for pings are for these groups (icmp(7)).
    namespace.sysctl(&[("ipv4/ping_group_range", "0 2147483647")])?;
    namespace.run(|| {
        let socket = ping_socket(to)?;
        for sequence in 0..3_u16 {
            let kind = if to.is_ipv4() { (8, 0) } else { (128, 129) };
            let payload: Vec<u8> = (0..length).map(|at| (at + usize::from(sequence)) as u8).collect();
            let message = |kind: u8| {
                // The kernel fills in checksum and identifier.
                let [high, low] = sequence.to_be_bytes();
                [&[kind, 0, 0, 0, 0, 0, high, low], &*payload].concat()
            };
            socket.send(&message(kind.0))?;
            let mut answer = vec![0; length + 100];
            match socket.recv(&mut answer) {
                Ok(count) => {
                    answer.truncate(count);
                    ensure!(answer.len() >= 8, "{to} answered {answer:?}");
                    answer[2..6].fill(0);
                    ensure!(
                        answer == message(kind.1),
                        "{to} answered {answer:?} to {sequence}"
                    );
                    return Ok(true);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error).with_context(|| format!("no answer of {to}")),
            }
        }
        Ok(false)
    })
}

/// Behaves as one for UDP, but that what it sends and gets are ICMP messages.
fn ping_socket(to: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: no pointers; what it returns is checked.
    let socket = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    if socket < 0 {
        return Err(io::Error::last_os_error()).context("cannot make a socket for pings");
    }
    // SAFETY: it has just been made, and nobody else has it.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(socket) });
    socket
        .connect(SocketAddr::new(to, 0))
        .with_context(|| format!("cannot send to {to}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}
