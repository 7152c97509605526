//! A few frames to change something in, made by etherparse.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpHeaders, IpNumber, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, PacketBuilderStep,
};

pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6);
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0x10);

/// Offsets in frames without tags, options and extension headers.
pub(super) const IP: usize = 14;
pub(super) const AFTER_IPV4: usize = 34;
pub(super) const AFTER_IPV6: usize = 54;

fn ipv4() -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC).ipv4(CLIENT.octets(), VIP.octets(), 64)
}

fn ipv6() -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC).ipv6(CLIENT6.octets(), VIP6.octets(), 64)
}

/// A SYN from port 40000 to 443 with `data` behind it.
pub(super) fn tcp(over_ipv6: bool, data: &[u8]) -> Vec<u8> {
    let builder = if over_ipv6 { ipv6() } else { ipv4() }
        .tcp(40_000, 443, 1, 64_000)
        .syn();
    let mut frame = Vec::new();
    builder.write(&mut frame, data).unwrap();
    frame
}

/// A datagram from port 40000 to 53 with `data` in it.
pub(super) fn udp(over_ipv6: bool, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = if over_ipv6 { ipv6() } else { ipv4() }.udp(40_000, 53);
    builder.write(&mut frame, data).unwrap();
    frame
}

/// An IPv6 packet whose header is followed by these, of which `first` is the first.
pub(super) fn ipv6_with(first: u8, chain: &[Vec<u8>], last: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet2Header {
        source: CLIENT_MAC,
        destination: OUR_MAC,
        ether_type: EtherType::IPV6,
    };
    let payload = [&chain.concat(), last].concat();
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(first),
        hop_limit: 64,
        source: CLIENT6.octets(),
        destination: VIP6.octets(),
        ..Ipv6Header::default()
    };
    [&ethernet.to_bytes()[..], &header.to_bytes(), &payload].concat()
}

/// Options of `length` bytes (a multiple of eight), or a routing header without a way to go.
pub(super) fn options(next: u8, length: usize) -> Vec<u8> {
    let header = Ipv6RawExtHeader::new_raw(IpNumber(next), &vec![0; length - 2]).unwrap();
    header.to_bytes().to_vec()
}

/// A fragment header; `offset` in units of eight bytes.
pub(super) fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let offset = IpFragOffset::try_new(offset).unwrap();
    let header = Ipv6FragmentHeader::new(IpNumber(next), offset, more, 0x1234_5678);
    header.to_bytes().to_vec()
}

/// What follows the IP header in [`tcp`].
pub(super) fn syn() -> Vec<u8> {
    tcp(true, &[]).split_off(AFTER_IPV6)
}
