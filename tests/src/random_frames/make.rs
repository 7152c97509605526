//! Frames that are whole, field by field.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpAuthHeader,
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader,
    TcpHeader, UdpHeader, VlanId, ip_number,
};
use fastrand::Rng;

use super::{Extension, LONGEST, Made, Packet, Part, Payload, RandomFrames};

/// The least length of a frame on a wire, without its checksum.
const PADDED: usize = 60;
/// The most that a TCP segment or UDP datagram carries: with the longest headers, it still is no longer than [`LONGEST`].
const DATA: usize = 600;
/// The most that an error quotes.
const QUOTE: usize = 600;

const BROADCAST: [u8; 6] = [0xff; 6];

/// The next frame of a sequence.
pub(super) fn frame(frames: &mut RandomFrames) -> (Made, Vec<u8>) {
    let random = &mut frames.random;
    let destination = match random.u8(..) {
        0..8 => BROADCAST,
        8..16 => [0x33, 0x33, 0, 0, 0, random.u8(..)],
        _ => [2, 0, 0, 0, 1, random.u8(..4)],
    };
    let source = [2, 0, 0, 0, 2, random.u8(..4)];
    let tags = match random.u8(..) {
        0..8 => 1,
        8..12 => 2,
        _ => 0,
    };
    let is_other = random.u8(..) < 8;
    let (packet, mut bytes, kind) = if is_other {
        let kind = random.choice([EtherType::ARP, EtherType(0x88cc), EtherType(0), EtherType(1500)]);
        let bytes: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
        (None, bytes, kind.unwrap_or(EtherType::ARP))
    } else {
        let ipv6 = frames.random.bool();
        let (packet, bytes) = packet(frames, ipv6, true);
        let kind = if packet.source.is_ipv6() {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        };
        (Some(packet), bytes, kind)
    };
    let mut frame = ethernet(source, destination, tags, kind);
    frame.append(&mut bytes);
    if frame.len() < PADDED && frames.random.bool() {
        frame.resize(PADDED, 0);
    }
    debug_assert!(frame.len() <= LONGEST);
    let made = Made {
        addresses: [destination, source],
        tags,
        packet,
    };
    (made, frame)
}

/// The headers up to what the frame carries. An outer tag is 802.1ad's or, as many switches have it, 802.1Q's.
fn ethernet(source: [u8; 6], destination: [u8; 6], tags: usize, kind: EtherType) -> Vec<u8> {
    let tag_kinds = match tags {
        0 => vec![],
        1 => vec![EtherType::VLAN_TAGGED_FRAME],
        _ => vec![EtherType::PROVIDER_BRIDGING, EtherType::VLAN_TAGGED_FRAME],
    };
    let mut kinds = tag_kinds.clone();
    kinds.push(kind);
    let header = Ethernet2Header {
        source,
        destination,
        ether_type: kinds[0],
    };
    let mut bytes = header.to_bytes().to_vec();
    for inside in &kinds[1..] {
        let tag = SingleVlanHeader {
            vlan_id: VlanId::try_new(7).expect("less than 4,096"),
            ether_type: *inside,
            ..SingleVlanHeader::default()
        };
        bytes.extend(tag.to_bytes());
    }
    bytes
}

/// A packet. `may_be_error`: an error's packet is about none that is one itself.
fn packet(frames: &mut RandomFrames, ipv6: bool, may_be_error: bool) -> (Packet, Vec<u8>) {
    let (from, to) = (frames.endpoint(ipv6), frames.endpoint(ipv6));
    let part = match frames.random.u8(..) {
        0..8 => Part::First,
        8..16 => Part::Later,
        _ => Part::Whole,
    };
    let (payload, protocol, bytes) = match part {
        Part::Later => rest(&mut frames.random, ipv6),
        Part::Whole | Part::First => payload(frames, from, to, may_be_error),
    };
    let header = Header {
        source: from.ip(),
        destination: to.ip(),
        time_to_live: frames.random.choice([64, 64, 64, 63, 255, 2, 1, 0]).unwrap_or(64),
        part,
        protocol,
        carried: bytes.len(),
    };
    let made = if ipv6 {
        ipv6_header(&mut frames.random, &header)
    } else {
        ipv4_header(&mut frames.random, &header)
    };
    let packet = Packet {
        source: from.ip(),
        destination: to.ip(),
        time_to_live: header.time_to_live,
        part,
        identification: made.identification,
        extensions: made.extensions,
        headers: made.bytes.len(),
        length: made.bytes.len() + bytes.len(),
        payload,
    };
    (packet, [made.bytes, bytes].concat())
}

/// What an IP header is made from.
struct Header {
    source: IpAddr,
    destination: IpAddr,
    time_to_live: u8,
    part: Part,
    protocol: u8,
    /// Bytes of what follows it.
    carried: usize,
}

/// An IP header, options or extension headers included.
struct MadeHeader {
    identification: u32,
    extensions: Vec<Extension>,
    bytes: Vec<u8>,
}

/// Where a part lies in its datagram, in units of eight bytes, and whether more follow.
fn place(random: &mut Rng, part: Part) -> (IpFragOffset, bool) {
    let (offset, more) = match part {
        Part::Whole => (0, false),
        Part::First => (0, true),
        Part::Later => (random.u16(1..0x2000), random.bool()),
    };
    (IpFragOffset::try_new(offset).expect("13 bits"), more)
}

fn ipv4_header(random: &mut Rng, header: &Header) -> MadeHeader {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (header.source, header.destination) else {
        unreachable!("an IPv4 packet is between IPv4 addresses");
    };
    let mut ipv4 = Ipv4Header::new(
        header.carried as u16,
        header.time_to_live,
        IpNumber(header.protocol),
        source.octets(),
        destination.octets(),
    )
    .expect("short enough");
    ipv4.identification = random.u16(..);
    (ipv4.fragment_offset, ipv4.more_fragments) = place(random, header.part);
    ipv4.dont_fragment = header.part == Part::Whole && random.bool();
    if random.u8(..) < 32 {
        // No operation, each a byte long.
        let options = vec![1; 4 * random.usize(1..=10)];
        ipv4.options = options[..]
            .try_into()
            .expect("at most 40 bytes, a multiple of four");
    }
    ipv4.set_payload_len(header.carried).expect("short enough");
    ipv4.header_checksum = ipv4.calc_header_checksum();
    MadeHeader {
        identification: u32::from(ipv4.identification),
        extensions: Vec::new(),
        bytes: ipv4.to_bytes().to_vec(),
    }
}

fn ipv6_header(random: &mut Rng, header: &Header) -> MadeHeader {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (header.source, header.destination) else {
        unreachable!("an IPv6 packet is between IPv6 addresses");
    };
    let extensions = extensions(random, header.part);
    let identification = random.u32(1..);
    let protocols: Vec<u8> = extensions
        .iter()
        .map(|extension| protocol(*extension))
        .chain([header.protocol])
        .collect();
    let mut chain = Vec::new();
    for (extension, next) in extensions.iter().zip(&protocols[1..]) {
        chain.extend(extension_header(
            random,
            *extension,
            *next,
            header.part,
            identification,
        ));
    }
    let ipv6 = Ipv6Header {
        payload_length: (chain.len() + header.carried) as u16,
        next_header: IpNumber(protocols[0]),
        hop_limit: header.time_to_live,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    MadeHeader {
        identification: if extensions.contains(&Extension::Fragment) {
            identification
        } else {
            0
        },
        extensions,
        bytes: [&ipv6.to_bytes()[..], &chain].concat(),
    }
}

/// The extension headers of a packet, in any order and number; of a part, with a fragment header, behind which a later part
/// has none.
fn extensions(random: &mut Rng, part: Part) -> Vec<Extension> {
    let mut extensions = Vec::new();
    if random.u8(..) < 64 {
        for _ in 0..random.usize(1..=7) {
            extensions.push(match random.u8(..16) {
                0..5 => Extension::HopByHop,
                5..10 => Extension::DestinationOptions,
                10..13 => Extension::Routing { segments_left: 0 },
                13 => Extension::Routing {
                    segments_left: random.u8(1..),
                },
                14 => Extension::Authentication,
                _ if part == Part::Whole && !extensions.contains(&Extension::Fragment) => Extension::Fragment,
                _ => Extension::HopByHop,
            });
        }
    }
    match part {
        Part::Whole => {}
        Part::First => extensions.insert(random.usize(..=extensions.len()), Extension::Fragment),
        Part::Later => extensions.push(Extension::Fragment),
    }
    extensions
}

fn protocol(extension: Extension) -> u8 {
    let protocol = match extension {
        Extension::HopByHop => ip_number::IPV6_HEADER_HOP_BY_HOP,
        Extension::DestinationOptions => ip_number::IPV6_DESTINATION_OPTIONS,
        Extension::Routing { .. } => ip_number::IPV6_ROUTE_HEADER,
        Extension::Fragment => ip_number::IPV6_FRAGMENTATION_HEADER,
        Extension::Authentication => ip_number::AUTHENTICATION_HEADER,
    };
    protocol.0
}

fn extension_header(
    random: &mut Rng,
    extension: Extension,
    next: u8,
    part: Part,
    identification: u32,
) -> Vec<u8> {
    let next = IpNumber(next);
    let segments_left = match extension {
        Extension::Fragment => {
            let (offset, more) = place(random, part);
            let header = Ipv6FragmentHeader::new(next, offset, more, identification);
            return header.to_bytes().to_vec();
        }
        Extension::Authentication => {
            let value = vec![0xaa; 4 * random.usize(..6)];
            let header = IpAuthHeader::new(next, 1, 2, &value).expect("a multiple of four");
            return header.to_bytes().to_vec();
        }
        Extension::Routing { segments_left } => segments_left,
        Extension::HopByHop | Extension::DestinationOptions => 0,
    };
    // Seldom so long that the transport header is beyond what is looked at.
    let words = if random.u8(..) < 8 {
        random.usize(20..50)
    } else {
        random.usize(..4)
    };
    let mut content = vec![0; 6 + 8 * words];
    content[1] = segments_left;
    let header = Ipv6RawExtHeader::new_raw(next, &content).expect("a multiple of eight, with its two bytes");
    header.to_bytes().to_vec()
}

/// What a packet carries that is not a later part, as a protocol and bytes.
fn payload(
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
fn rest(random: &mut Rng, ipv6: bool) -> (Payload, u8, Vec<u8>) {
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
