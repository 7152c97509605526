//! IP headers, with options and extension headers.

use std::net::IpAddr;

use etherparse::{
    IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    ip_number,
};
use fastrand::Rng;

use super::{Extension, Part};

/// What an IP header is made from.
pub(super) struct Header {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) time_to_live: u8,
    pub(super) part: Part,
    pub(super) protocol: u8,
    /// Bytes of what follows it.
    pub(super) carried: usize,
}

/// An IP header, options or extension headers included.
pub(super) struct MadeHeader {
    pub(super) identification: u32,
    pub(super) extensions: Vec<Extension>,
    pub(super) bytes: Vec<u8>,
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

pub(super) fn ipv4_header(random: &mut Rng, header: &Header) -> MadeHeader {
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

pub(super) fn ipv6_header(random: &mut Rng, header: &Header) -> MadeHeader {
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
