//! Tells that routes, neighbours, links or addresses have changed, not what: whoever listens resolves anew.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::mpsc::UnboundedSender;

use super::{NeighbourError, Resolver};
use crate::task::OwnedTask;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Between two attempts to open a socket anew.
const RETRY: Duration = Duration::from_secs(1);

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    _task: OwnedTask,
}

impl Resolver {
    /// Sends a message whenever a route, rule, neighbour, link or address changes, and when notifications were lost.
    /// What comes at once is one message; further coalescing is the receiver's business.
    ///
    /// # Errors
    /// There is no netlink.
    pub async fn watch(changes: UnboundedSender<()>) -> Result<Watch, NeighbourError> {
        let socket = open().map_err(NeighbourError::Open)?;
        Ok(Watch {
            _task: OwnedTask::spawn(watch(socket, changes)),
        })
    }
}

async fn watch(mut socket: TokioSocket, changes: UnboundedSender<()>) {
    loop {
        if let Err(error) = next_change(&mut socket).await {
            tracing::warn!(%error, "the watch on routes and neighbours failed, starting it anew");
            socket = reopen().await;
        }
        if changes.send(()).is_err() {
            return;
        }
    }
}

fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group as u32)?;
    }
    Ok(socket)
}

async fn reopen() -> TokioSocket {
    loop {
        tokio::time::sleep(RETRY).await;
        match open() {
            Ok(socket) => return socket,
            Err(error) => tracing::warn!(%error, "cannot open a netlink socket, trying again"),
        }
    }
}

/// Waits for a change that matters and takes all others that are waiting with it.
async fn next_change(socket: &mut TokioSocket) -> io::Result<()> {
    while !receive(socket).await? {}
    while let Some(more) = receive(socket).now_or_never() {
        more?;
    }
    Ok(())
}

/// Whether the next notification matters.
async fn receive(socket: &mut TokioSocket) -> io::Result<bool> {
    // The two fields that are looked at; the kernel drops the rest of the datagram.
    let mut datagram = Vec::with_capacity(64);
    match socket.recv(&mut datagram).await {
        Ok(()) => Ok(matters(&datagram)),
        // The socket's buffer was full and notifications were lost: something has changed.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Everything but a bridge's forwarding database, which comes as neighbours of family `AF_BRIDGE` with every MAC
/// address that a bridge learns. (`nlmsghdr`: type at 4; `ndmsg`, at 16, begins with the family.)
fn matters(datagram: &[u8]) -> bool {
    let kind = datagram
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    let neighbour = matches!(kind, Some(libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH));
    !(neighbour && datagram.get(16).copied().map(libc::c_int::from) == Some(libc::AF_BRIDGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridges_learning_does_not_matter() {
        let message = |kind: u16, family: libc::c_int| {
            let mut bytes = vec![0; 28];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16] = u8::try_from(family).unwrap();
            bytes
        };
        assert!(!matters(&message(libc::RTM_NEWNEIGH, libc::AF_BRIDGE)));
        assert!(!matters(&message(libc::RTM_DELNEIGH, libc::AF_BRIDGE)));
        assert!(matters(&message(libc::RTM_NEWNEIGH, libc::AF_INET)));
        assert!(matters(&message(libc::RTM_NEWLINK, libc::AF_BRIDGE)));
        assert!(matters(&[]), "what is not understood is a change");
    }
}
