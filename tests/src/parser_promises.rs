//! What holds of the parser's answer for any bytes whatever. `lb-common` tests it, and the fuzz target `parser` hunts for bytes
//! of which it does not hold; both include this file.

#![allow(
    clippy::panic,
    reason = "a promise that is broken is noticed by a panic, as in any test"
)]

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, SlicedPacket, TransportSlice};
use lb_common::family::{Family, Ipv4, Ipv6};
use lb_common::outcome::{Action, Outcome};
use lb_common::wire::classify::{Classification, classify};
use lb_common::wire::ethernet;
use lb_common::wire::icmp::Quoted;
use lb_common::wire::network::{Fragment, Network, TCP, UDP};
use lb_common::wire::transport::Transport;

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// Looks at a frame, and at what is left of it without what follows the packet.
///
/// # Panics
/// When a promise is broken.
pub fn check(frame: &[u8]) {
    let found = classify(frame);
    match &found {
        Classification::Passes(outcome) => {
            assert_eq!(outcome.action(), Action::Pass, "{outcome:?}");
            missed(frame, *outcome);
        }
        Classification::Segment(_, network, transport) => {
            packet(frame, &found, network);
            segment(frame, network, transport);
        }
        Classification::LaterFragment(_, network) => {
            packet(frame, &found, network);
            assert!(network.protocol == TCP || network.protocol == UDP);
            assert_eq!(network.fragment, Fragment::Later);
        }
        Classification::EchoRequest(_, network) => {
            packet(frame, &found, network);
            whole_icmp(network);
        }
        Classification::Error(_, network, quoted) => {
            packet(frame, &found, network);
            whole_icmp(network);
            quote(frame, network, quoted);
        }
    }
}

/// Looks at bytes as the packet that an ICMP error quotes, of which only the beginning need be there.
///
/// # Panics
/// When a promise is broken.
pub fn check_quote(bytes: &[u8]) {
    if let Some(network) = Ipv4::parse_quoted(bytes, 0) {
        assert_eq!(bytes[0] >> 4, 4);
        assert!((20..=60).contains(&network.transport_offset) && network.transport_offset <= network.length);
        assert_eq!(bytes[12..16], network.source.to_ne_bytes());
        assert_eq!(bytes[16..20], network.destination.to_ne_bytes());
    }
    if let Some(network) = Ipv6::parse_quoted(bytes, 0) {
        assert_eq!(bytes[0] >> 4, 6);
        assert!(network.transport_offset >= 40 && network.transport_offset <= network.length);
        assert_eq!(bytes[8..24], *network.source.map(u64::to_ne_bytes).as_flattened());
        assert_eq!(
            bytes[24..40],
            *network.destination.map(u64::to_ne_bytes).as_flattened()
        );
        // All of its extension headers are there, though what follows need not be.
        assert!(network.transport_offset == 40 || bytes.len() >= 48);
    }
}

/// The IP header is where it is said to be, says what it is said to say, and the frame holds all of the packet.
fn packet(frame: &[u8], found: &Classification, network: &Network<IpAddr>) {
    let end = ethernet::LENGTH + network.length;
    assert!(network.transport_offset <= end && end <= frame.len());
    assert_eq!(frame[0] & 1, 0, "unicast");
    header(
        &frame[ethernet::LENGTH..],
        network,
        network.transport_offset - ethernet::LENGTH,
    );
    // What follows the packet is padding, and has no part in it.
    assert_eq!(classify(&frame[..end]), *found);
    // And what is cut off is not a packet.
    assert_eq!(
        classify(&frame[..end - 1]),
        Classification::Passes(Outcome::MalformedIp)
    );
}

/// An IP header at the beginning of `bytes`, which ends at `transport`.
fn header(bytes: &[u8], network: &Network<IpAddr>, transport: usize) {
    match (network.source, network.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            assert_eq!(bytes[0] >> 4, 4);
            assert_eq!(transport, usize::from(bytes[0] & 0xf) * 4);
            assert_eq!(bytes[8], network.time_to_live);
            assert_eq!(bytes[9], network.protocol);
            assert_eq!(bytes[12..16], source.octets());
            assert_eq!(bytes[16..20], destination.octets());
            assert_eq!(
                usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
                network.length
            );
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            assert_eq!(bytes[0] >> 4, 6);
            assert!(transport >= 40 && transport.is_multiple_of(4));
            assert!(transport > 40 || bytes[6] == network.protocol);
            assert_eq!(bytes[7], network.time_to_live);
            assert_eq!(bytes[8..24], source.octets());
            assert_eq!(bytes[24..40], destination.octets());
            let payload = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            assert_eq!(40 + payload, network.length);
        }
        ends => panic!("of two families: {ends:?}"),
    }
}

fn segment(frame: &[u8], network: &Network<IpAddr>, transport: &Transport) {
    assert_ne!(network.fragment, Fragment::Later);
    let at = network.transport_offset;
    let end = ethernet::LENGTH + network.length;
    assert!(at + transport.header_length <= end);
    ports(&frame[at..], transport.source_port, transport.destination_port);
    match network.protocol {
        TCP => {
            assert_eq!(usize::from(frame[at + 12] >> 4) * 4, transport.header_length);
            assert!(transport.header_length >= 20);
            assert_eq!(frame[at + 13], transport.flags.0);
        }
        UDP => assert_eq!((transport.header_length, transport.flags.0), (8, 0)),
        other => panic!("protocol {other}"),
    }
    if network.fragment == Fragment::Whole {
        agrees_with_etherparse(frame, network, transport);
    }
}

fn ports(bytes: &[u8], source: u16, destination: u16) {
    assert_eq!(bytes[..2], source.to_ne_bytes());
    assert_eq!(bytes[2..4], destination.to_ne_bytes());
}

/// What etherparse makes of the same frame, unless it gives up on extension headers in an order that it does not know.
fn agrees_with_etherparse(frame: &[u8], network: &Network<IpAddr>, transport: &Transport) {
    let Ok(theirs) = LaxSlicedPacket::from_ethernet(frame) else {
        panic!("etherparse takes it for no Ethernet frame");
    };
    let (source, destination) = (
        u16::from_be(transport.source_port),
        u16::from_be(transport.destination_port),
    );
    match theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(network.protocol, TCP);
            assert_eq!((tcp.source_port(), tcp.destination_port()), (source, destination));
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(network.protocol, UDP);
            assert_eq!((udp.source_port(), udp.destination_port()), (source, destination));
        }
        Some(other) => panic!("etherparse takes it for {other:?}"),
        None => assert!(theirs.stop_err.is_some() || has_extensions(&theirs), "{theirs:?}"),
    }
}

fn has_extensions(packet: &LaxSlicedPacket<'_>) -> bool {
    match &packet.net {
        Some(LaxNetSlice::Ipv6(ipv6)) => !ipv6.extensions().is_empty(),
        _ => false,
    }
}

/// A TCP segment or UDP datagram in the plainest of packets, as etherparse sees it, must not be missed.
fn missed(frame: &[u8], outcome: Outcome) {
    let is_plain = frame.len() > 54
        && frame[0] & 1 == 0
        && match frame[12..15] {
            // No options, no fragment.
            [8, 0, 0x45] => frame[20] & 0x3f == 0 && frame[21] == 0 && matches!(frame[23], TCP | UDP),
            // No length: etherparse takes that for all of the frame.
            [0x86, 0xdd, first] => {
                first >> 4 == 6 && frame[18..20] != [0, 0] && matches!(frame[20], TCP | UDP)
            }
            _ => false,
        };
    if let Ok(theirs) = SlicedPacket::from_ethernet(frame)
        && is_plain
    {
        match theirs.transport {
            // RFC 2675: only in packets longer than 65,535 bytes, which nobody sends.
            Some(TransportSlice::Udp(udp)) if udp.length() == 0 => {}
            Some(TransportSlice::Tcp(_) | TransportSlice::Udp(_)) => {
                panic!("{outcome:?}, though it is {theirs:?}");
            }
            _ => {}
        }
    }
}

fn whole_icmp(network: &Network<IpAddr>) {
    assert_eq!(network.fragment, Fragment::Whole);
    assert_eq!(network.protocol, if network.source.is_ipv6() { 58 } else { 1 });
}

/// The ports of the packet that an error is about lie in the error's packet, and its checksum, if there is one.
fn quote(frame: &[u8], network: &Network<IpAddr>, quoted: &Quoted<IpAddr>) {
    let end = ethernet::LENGTH + network.length;
    let at = quoted.network.transport_offset;
    assert_eq!(quoted.offset, network.transport_offset + ICMP_HEADER);
    assert!(at > quoted.offset && at + ICMP_HEADER <= end);
    assert_eq!(network.source.is_ipv6(), quoted.network.source.is_ipv6());
    header(&frame[quoted.offset..], &quoted.network, at - quoted.offset);
    ports(&frame[at..], quoted.source_port, quoted.destination_port);
    assert_ne!(quoted.network.fragment, Fragment::Later);
    let checksum = match quoted.network.protocol {
        TCP => at + 16,
        UDP => at + 6,
        other => panic!("protocol {other}"),
    };
    let expected = if checksum + 2 <= end { checksum } else { 0 };
    assert_eq!(quoted.checksum_offset, expected);
}
