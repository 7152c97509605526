//! Gratuitous ARP: tells the neighbourhood that the VIP is here now.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::{VipError, failed, index_of};

/// Ethernet, then ARP (RFC 826).
const FRAME_LENGTH: usize = 14 + 28;

/// Sends one ARP announcement by `interface`, on a socket of its own; see `Announcer`.
///
/// # Errors
/// As `Announcer::open` and `Announcer::announce`.
pub fn announce(vip: Ipv4Addr, interface: &str) -> Result<(), VipError> {
    let announcer = Announcer::open().map_err(|error| {
        failed(
            vip.into(),
            interface,
            "opening a packet socket (needs CAP_NET_RAW)",
            error,
        )
    })?;
    announcer.announce(vip, interface)
}

/// A packet socket: opening it needs `CAP_NET_RAW`, using it does not. It receives nothing.
#[derive(Debug)]
pub struct Announcer(OwnedFd);

impl Announcer {
    /// Opens the socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `CAP_NET_RAW` is missing.
    pub fn open() -> io::Result<Self> {
        Ok(Self(socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?))
    }

    /// Sends one ARP announcement (RFC 5227 section 2.3) by `interface`. The RFC asks for two, 2 s apart: the caller
    /// repeats.
    ///
    /// # Errors
    /// There is no such interface, it has no MAC address, or it cannot send (it is down).
    pub fn announce(&self, vip: Ipv4Addr, interface: &str) -> Result<(), VipError> {
        let failed = |doing| move |errno: nix::Error| failed(vip.into(), interface, doing, errno.into());
        index_of(vip.into(), interface)?;
        let link = getifaddrs()
            .map_err(failed("listing interfaces"))?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied());
        let mac = link.and_then(|link| link.addr()).filter(|mac| *mac != [0; 6]);
        let (Some(link), Some(mac)) = (link, mac) else {
            return Err(VipError::NoMac {
                vip: vip.into(),
                interface: interface.to_owned(),
            });
        };
        // Of the link address the kernel looks only at the interface: the frame brings its own header.
        sendto(
            self.0.as_raw_fd(),
            &announcement(mac, vip),
            &link,
            MsgFlags::empty(),
        )
        .map_err(failed("sending an ARP announcement"))?;
        Ok(())
    }
}

/// A broadcast request in which `vip` asks for itself.
fn announcement(mac: [u8; 6], vip: Ipv4Addr) -> [u8; FRAME_LENGTH] {
    const BROADCAST: [u8; 6] = [0xff; 6];
    const ARP: [u8; 2] = [0x08, 0x06];
    /// Hardware type Ethernet, protocol IPv4, address lengths 6 and 4, operation request.
    const REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let parts: [&[u8]; 8] = [
        &BROADCAST,
        &mac,
        &ARP,
        &REQUEST,
        &mac,
        &vip.octets(),
        &[0; 6],
        &vip.octets(),
    ];
    let mut frame = [0; FRAME_LENGTH];
    for (place, byte) in frame.iter_mut().zip(parts.concat()) {
        *place = byte;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_is_as_the_rfc_has_it() {
        let frame = announcement([2, 0, 0, 0, 0, 1], Ipv4Addr::new(203, 0, 113, 10));
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // a request for IPv4 on Ethernet
            2, 0, 0, 0, 0, 1, 203, 0, 113, 10, // sender
            0, 0, 0, 0, 0, 0, 203, 0, 113, 10, // target
        ];
        assert_eq!(frame, expected);
    }
}
