//! What packets carry.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, TcpHeader, UdpHeader, ip_number,
};
use fastrand::Rng;

use super::make::packet;
use super::{Payload, RandomFrames};

/// The most that a TCP segment or UDP datagram carries: with long headers, a frame is still no longer than it may be.
const DATA: usize = 600;
/// The most that an error quotes.
const QUOTE: usize = 600;

/// What a packet carries that is not a later part, as a protocol and bytes.
pub(super) fn payload(
    frames: &mut RandomFrames,
    from: SocketAddr,
    to: SocketAddr,
    may_be_error: bool,
) -> (Payload, u8, Vec<u8>) {
    match frames.random.u8(..) {
        0..112 => tcp(&mut frames.random, from, to),
        112..192 => udp(&mut frames.random, from, to),
        192..204 => echo(&mut frames.random, from.ip(), to.ip()),
        204..234 if may_be_error => error(frames, from.ip(), to.ip()),
        204..240 => other_icmp(&mut frames.random, from.ip(), to.ip()),
        _ => other(&mut frames.random, from.is_ipv6()),
    }
}

fn data(random: &mut Rng) -> Vec<u8> {
    let most = if random.u8(..) < 16 { DATA } else { 32 };
    let mut data = vec![0; random.usize(..=most)];
    random.fill(&mut data);
    data
}

fn tcp(random: &mut Rng, from: SocketAddr, to: SocketAddr) -> (Payload, u8, Vec<u8>) {
    let mut tcp = TcpHeader::new(from.port(), to.port(), random.u32(..), random.u16(..));
    let flags = match random.u8(..) {
        0..64 => 0x02,
        64..96 => 0x12,
        96..160 => 0x10,
        160..192 => 0x18,
        192..208 => 0x11,
        208..216 => 0x04,
        216..224 => 0x14,
        _ => random.u8(..),
    };
    let bit = |number: u8| flags >> number & 1 != 0;
    (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (bit(0), bit(1), bit(2), bit(3));
    (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (bit(4), bit(5), bit(6), bit(7));
    tcp.acknowledgment_number = random.u32(..);
    if random.bool() {
        // No operation, each a byte long.
        let options = vec![1; 4 * random.usize(1..=10)];
        tcp.set_options_raw(&options)
            .expect("at most 40 bytes, a multiple of four");
    }
    let data = data(random);
    let checksum = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), &data),
        (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), &data),
        _ => unreachable!("both ends are of one family"),
    };
    tcp.checksum = checksum.expect("short enough");
    let payload = Payload::Tcp {
        source_port: from.port(),
        destination_port: to.port(),
        flags,
        header: tcp.header_len(),
    };
    (payload, ip_number::TCP.0, [&tcp.to_bytes()[..], &data].concat())
}

fn udp(random: &mut Rng, from: SocketAddr, to: SocketAddr) -> (Payload, u8, Vec<u8>) {
    let data = data(random);
    let mut udp = UdpHeader::without_ipv4_checksum(from.port(), to.port(), data.len()).expect("short enough");
    match (from.ip(), to.ip()) {
        // None at all, as IPv4 has it.
        (IpAddr::V4(_), _) if random.u8(..) < 32 => {}
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let checksum = udp.calc_checksum_ipv4_raw(from.octets(), to.octets(), &data);
            udp.checksum = checksum.expect("short enough");
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let checksum = udp.calc_checksum_ipv6_raw(from.octets(), to.octets(), &data);
            udp.checksum = checksum.expect("short enough");
        }
        _ => unreachable!("both ends are of one family"),
    }
    let payload = Payload::Udp {
        source_port: from.port(),
        destination_port: to.port(),
    };
    (payload, ip_number::UDP.0, [&udp.to_bytes()[..], &data].concat())
}

/// An ICMP message of a family: type, code, the header's last four bytes, and what follows.
fn icmp(from: IpAddr, to: IpAddr, [kind, code]: [u8; 2], rest: [u8; 4], content: &[u8]) -> (u8, Vec<u8>) {
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = Icmpv6Type::Unknown {
                type_u8: kind,
                code_u8: code,
                bytes5to8: rest,
            };
            let header = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), content);
            let header = header.expect("short enough").to_bytes();
            (ip_number::IPV6_ICMP.0, [&header[..], content].concat())
        }
        _ => {
            let kind = Icmpv4Type::Unknown {
                type_u8: kind,
                code_u8: code,
                bytes5to8: rest,
            };
            let header = Icmpv4Header::with_checksum(kind, content).to_bytes();
            (ip_number::ICMP.0, [&header[..], content].concat())
        }
    }
}

fn echo(random: &mut Rng, from: IpAddr, to: IpAddr) -> (Payload, u8, Vec<u8>) {
    let kind = if from.is_ipv6() { 128 } else { 8 };
    let data = data(random);
    let (protocol, bytes) = icmp(from, to, [kind, 0], [0, 1, 0, random.u8(..)], &data);
    (Payload::EchoRequest, protocol, bytes)
}

fn error(frames: &mut RandomFrames, from: IpAddr, to: IpAddr) -> (Payload, u8, Vec<u8>) {
    let (about, bytes) = packet(frames, from.is_ipv6(), false);
    let random = &mut frames.random;
    // Unreachable, fragmentation needed or too big, time exceeded, parameter problem.
    let kinds = if from.is_ipv6() {
        [[1, 4], [2, 0], [3, 0], [4, 1]]
    } else {
        [[3, 3], [3, 4], [11, 0], [12, 0]]
    };
    let kind = random.choice(kinds).unwrap_or(kinds[0]);
    let quoted = match random.u8(..) {
        // Eight bytes of the transport header, as RFC 792 has it; a few more or less; as much as there is.
        0..96 => about.headers + 8,
        96..160 => about.headers + random.usize(..24),
        160..176 => random.usize(..about.headers),
        _ => about.length,
    };
    let quoted = quoted.min(about.length).min(QUOTE);
    let (protocol, bytes) = icmp(from, to, kind, [0, 0, 5, 0], &bytes[..quoted]);
    let about = Box::new(about);
    (Payload::Error { about, quoted }, protocol, bytes)
}

fn other_icmp(random: &mut Rng, from: IpAddr, to: IpAddr) -> (Payload, u8, Vec<u8>) {
    // Replies, redirects, router and neighbour discovery, and what nobody knows.
    let kinds: [u8; 6] = if from.is_ipv6() {
        [129, 133, 134, 135, 136, 200]
    } else {
        [0, 4, 5, 13, 14, 42]
    };
    let kind = random.choice(kinds).unwrap_or(kinds[0]);
    let data = data(random);
    let (protocol, bytes) = icmp(from, to, [kind, 0], [0; 4], &data);
    (Payload::OtherIcmp, protocol, bytes)
}

fn other(random: &mut Rng, ipv6: bool) -> (Payload, u8, Vec<u8>) {
    let foreign_icmp = if ipv6 {
        ip_number::ICMP
    } else {
        ip_number::IPV6_ICMP
    };
    let protocols = [
        foreign_icmp,
        ip_number::IPV4,
        ip_number::IPV6,
        ip_number::GRE,
        ip_number::ENCAP_SEC,
        ip_number::IPV6_NO_NEXT_HEADER,
        ip_number::SCTP,
        IpNumber(255),
    ];
    let protocol = random.choice(protocols).unwrap_or(foreign_icmp).0;
    (Payload::Other { protocol }, protocol, data(random))
}

/// What a later part carries. Over IPv6, seldom, the middle of a datagram that has more extension headers.
pub(super) fn rest(random: &mut Rng, ipv6: bool) -> (Payload, u8, Vec<u8>) {
    let (icmp, last) = if ipv6 {
        (ip_number::IPV6_ICMP, ip_number::IPV6_DESTINATION_OPTIONS)
    } else {
        (ip_number::ICMP, ip_number::SCTP)
    };
    let protocol = match random.u8(..16) {
        0..6 => ip_number::TCP,
        6..12 => ip_number::UDP,
        12..15 => icmp,
        _ => last,
    };
    let payload = Payload::Rest { protocol: protocol.0 };
    (payload, protocol.0, data(random))
}
