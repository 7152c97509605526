//! What drivers can do with XDP, as the kernel tells since 6.3 (Documentation/netlink/specs/netdev.yaml).
//!
//! Two requests by generic netlink, written by hand: the libraries that are here know rtnetlink only.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// What a driver can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Runs programs itself: native XDP.
    pub native: bool,
    /// Its programs can redirect frames.
    pub redirects: bool,
    /// Takes frames that were redirected to it.
    pub takes_redirected: bool,
}

/// Of an interface, by its index.
///
/// # Errors
/// The kernel does not tell (before 6.3), or there is no such interface.
pub fn xdp_features(index: u32) -> io::Result<XdpFeatures> {
    let socket = open()?;
    let family = attribute(
        &ask(
            &socket,
            GENL_ID_CTRL,
            CTRL_CMD_GETFAMILY,
            (CTRL_ATTR_FAMILY_NAME, b"netdev\0"),
        )?,
        CTRL_ATTR_FAMILY_ID,
    )
    .and_then(|value| Some(u16::from_ne_bytes(value.try_into().ok()?)))
    .ok_or(io::ErrorKind::InvalidData)?;
    let answer = ask(
        &socket,
        family,
        NETDEV_CMD_DEV_GET,
        (NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes()),
    )?;
    let bits = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES)
        .and_then(|value| Some(u64::from_ne_bytes(value.try_into().ok()?)))
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(XdpFeatures {
        native: bits & NETDEV_XDP_ACT_BASIC != 0,
        redirects: bits & NETDEV_XDP_ACT_REDIRECT != 0,
        takes_redirected: bits & NETDEV_XDP_ACT_NDO_XMIT != 0,
    })
}

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_REDIRECT: u64 = 2;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;

/// `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// And `struct genlmsghdr`.
const HEADERS: usize = NETLINK_HEADER + 4;
/// `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    // It answers within microseconds.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(5))?;
    Ok(socket)
}

/// Sends a request with one attribute; returns the answer's attributes.
fn ask(socket: &OwnedFd, family: u16, command: u8, (kind, value): (u16, &[u8])) -> io::Result<Vec<u8>> {
    let request = request(family, command, kind, value);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut answer = vec![0; 16 * 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let message_kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    match message_kind {
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => {
            let code = answer
                .get(NETLINK_HEADER..NETLINK_HEADER + 4)
                .and_then(|bytes| bytes.try_into().ok());
            Err(io::Error::from_raw_os_error(-code.map_or(0, i32::from_ne_bytes)))
        }
        Some(_) => Ok(answer.split_off(HEADERS.min(length))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    const VERSION: u8 = 1;
    let padded = value.len().next_multiple_of(4);
    let length = HEADERS + ATTRIBUTE_HEADER + padded;
    let mut request = Vec::with_capacity(length);
    request.extend((length as u32).to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and port: only one is under way.
    request.extend([0; 8]);
    request.extend([command, VERSION, 0, 0]);
    request.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(length, 0);
    request
}

/// The value of the first attribute of this kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let word = |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, found) = (usize::from(word(0)?), word(2)?);
        if length < ATTRIBUTE_HEADER {
            return None;
        }
        if found == kind {
            return attributes.get(ATTRIBUTE_HEADER..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, sh};

    #[test]
    fn attributes_are_found_behind_others_and_nowhere_else() {
        let bytes = request(7, 8, 9, b"value")[HEADERS..].to_vec();
        assert_eq!(attribute(&bytes, 9), Some(&b"value"[..]));
        assert_eq!(attribute(&bytes, 8), None);
        let two = [bytes.clone(), request(7, 8, 10, b"x")[HEADERS..].to_vec()].concat();
        assert_eq!(attribute(&two, 10), Some(&b"x"[..]));
        for end in 0..two.len() {
            let _ = attribute(&two[..end], 10);
        }
        assert_eq!(
            attribute(&[0; 64], 1),
            None,
            "a length of 0 does not go on for ever"
        );
    }

    /// A veth end takes redirected frames only if there is a program, or GRO, at the other end.
    #[test]
    fn a_driver_tells_what_it_can_do() {
        in_namespace(async |_| {
            sh("ip link add h0 type veth peer name h1; ip link add h2 type bridge");
            let index = |name| nix::net::if_::if_nametoindex(name).unwrap();
            let veth = match xdp_features(index("h0")) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    return println!("skipped: this kernel does not tell");
                }
                told => told.unwrap(),
            };
            assert!(
                veth.native && veth.redirects && !veth.takes_redirected,
                "{veth:?}"
            );
            assert!(!xdp_features(index("h2")).unwrap().native);
            let none = xdp_features(9999).unwrap_err();
            assert_eq!(none.raw_os_error(), Some(libc::ENODEV));
        });
    }
}
