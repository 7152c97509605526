//! Tells the neighbourhood that the VIP is here now: gratuitous ARP, or an unsolicited neighbour advertisement.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use lb_common::checksum;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::{VipError, failed, index_of};

/// Sends one announcement by `interface`, on a socket of its own; see `Announcer`.
///
/// # Errors
/// As `Announcer::open` and `Announcer::announce`.
pub fn announce(vip: IpAddr, interface: &str) -> Result<(), VipError> {
    let announcer = Announcer::open().map_err(|error| {
        failed(
            vip,
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

    /// Sends one ARP announcement (RFC 5227 section 2.3) or unsolicited neighbour advertisement (RFC 4861 section 7.2.6) by
    /// `interface`. The RFCs ask for two, 2 s apart, and up to three: the caller repeats.
    ///
    /// # Errors
    /// There is no such interface, it has no MAC address, or it cannot send (it is down).
    pub fn announce(&self, vip: IpAddr, interface: &str) -> Result<(), VipError> {
        let failed = |doing| move |errno: nix::Error| failed(vip, interface, doing, errno.into());
        index_of(vip, interface)?;
        let link = getifaddrs()
            .map_err(failed("listing interfaces"))?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied());
        let mac = link.and_then(|link| link.addr()).filter(|mac| *mac != [0; 6]);
        let (Some(link), Some(mac)) = (link, mac) else {
            return Err(VipError::NoMac {
                vip,
                interface: interface.to_owned(),
            });
        };
        let (frame, doing) = match vip {
            IpAddr::V4(vip) => (arp_announcement(mac, vip), "sending an ARP announcement"),
            IpAddr::V6(vip) => (
                neighbour_advertisement(mac, vip),
                "sending a neighbour advertisement",
            ),
        };
        // Of the link address the kernel looks only at the interface: the frame brings its own header.
        sendto(self.0.as_raw_fd(), &frame, &link, MsgFlags::empty()).map_err(failed(doing))?;
        Ok(())
    }
}

/// A broadcast request in which `vip` asks for itself (RFC 826).
fn arp_announcement(mac: [u8; 6], vip: Ipv4Addr) -> Vec<u8> {
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
    parts.concat()
}

/// A neighbour advertisement to all nodes that overrides what they know of `vip` (RFC 4861 section 4.4).
fn neighbour_advertisement(mac: [u8; 6], vip: Ipv6Addr) -> Vec<u8> {
    /// Multicast to ff02::1 (RFC 2464 section 7).
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const IPV6: [u8; 2] = [0x86, 0xdd];
    const ICMPV6: u8 = 58;
    /// Type 136, code 0, no checksum yet; then the flags: override, neither router nor solicited.
    const ADVERTISEMENT: [u8; 8] = [136, 0, 0, 0, 0x20, 0, 0, 0];
    /// Option "target link-layer address", of 8 bytes.
    const TARGET_MAC: [u8; 2] = [2, 1];
    let mut message = [&ADVERTISEMENT[..], &vip.octets(), &TARGET_MAC, &mac].concat();
    let length = message.len() as u8;
    let (source, destination) = (vip.octets(), ALL_NODES.octets());
    let pseudo_header = [&source[..], &destination, &[0, 0, 0, length], &[0, 0, 0, ICMPV6]].concat();
    let sum = checksum::of_bytes(0, &[pseudo_header, message.clone()].concat());
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    // Hop limit 255: what comes from farther away than the link is not believed.
    let header = [0x60, 0, 0, 0, 0, length, ICMPV6, 255];
    [
        &ALL_NODES_MAC[..],
        &mac,
        &IPV6,
        &header,
        &source,
        &destination,
        &message,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_is_as_the_rfc_has_it() {
        let frame = arp_announcement([2, 0, 0, 0, 0, 1], Ipv4Addr::new(203, 0, 113, 10));
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // a request for IPv4 on Ethernet
            2, 0, 0, 0, 0, 1, 203, 0, 113, 10, // sender
            0, 0, 0, 0, 0, 0, 203, 0, 113, 10, // target
        ];
        assert_eq!(frame, expected);
    }
}
