//! Each thing that can be wrong with a header has a name, and what is right is read.

use super::frames::*;
use crate::family::{Family, Ipv4, Ipv6};
use crate::outcome::Outcome;
use crate::tcp_state::Flags;
use crate::wire::classify::{Classification, classify};
use crate::wire::ethernet::{self, Carries, Mac};
use crate::wire::network::Fragment;
use crate::wire::segment::Segment;
use crate::wire::{Frame, ipv4, segment};

const TCP: u8 = 6;
const UDP: u8 = 17;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const MOBILITY: u8 = 135;

pub(super) fn outcome(frame: &[u8]) -> Option<Outcome> {
    match classify(frame) {
        Classification::Passes(outcome) => Some(outcome),
        _ => None,
    }
}

pub(super) fn segment<F: Family>(frame: &[u8]) -> Segment<F> {
    match segment::parse::<F, _>(frame) {
        Ok(segment) => segment,
        Err(outcome) => panic!("{outcome:?}"),
    }
}

#[test]
fn reads_every_field_of_ipv4_and_tcp() {
    let found = segment::<Ipv4>(&tcp(false, b"abc"));
    assert_eq!(found.ethernet.source.to_bytes(), CLIENT_MAC);
    assert_eq!(found.ethernet.destination.to_bytes(), OUR_MAC);
    assert_eq!(Mac::from_bytes(CLIENT_MAC), found.ethernet.source);
    assert_eq!(
        found.ethernet.to_words().map(u32::to_le_bytes).concat(),
        [OUR_MAC, CLIENT_MAC].concat()
    );
    let network = found.network;
    assert_eq!(network.source.to_ne_bytes(), CLIENT.octets());
    assert_eq!(network.destination.to_ne_bytes(), VIP.octets());
    assert_eq!((network.protocol, network.time_to_live), (TCP, 64));
    assert_eq!(
        (network.transport_offset, network.length, network.fragment),
        (34, 43, Fragment::Whole)
    );
    assert_eq!(found.transport.source_port, 40_000u16.to_be());
    assert_eq!(found.transport.destination_port, 443u16.to_be());
    assert_eq!(found.transport.flags, Flags(Flags::SYN));
    assert_eq!(found.transport.header_length, 20);
    assert!(found.opens() && found.is_tcp() && !found.is_fragment());
}

#[test]
fn reads_every_field_of_ipv6_and_udp() {
    let frame = udp(true, b"abc");
    assert!(matches!(ethernet::parse(&frame[..]), Ok((_, Carries::Ipv6))));
    let found = segment::<Ipv6>(&frame);
    let network = found.network;
    assert_eq!(network.source, crate::abi::address(&CLIENT6.octets()));
    assert_eq!(network.destination, crate::abi::address(&VIP6.octets()));
    assert_eq!((network.protocol, network.time_to_live), (UDP, 64));
    assert_eq!(
        (network.transport_offset, network.length, network.fragment),
        (54, 51, Fragment::Whole)
    );
    assert_eq!(found.transport.source_port, 40_000u16.to_be());
    assert_eq!(found.transport.destination_port, 53u16.to_be());
    assert_eq!(found.transport.flags, Flags::NONE);
    assert_eq!(found.transport.header_length, 8);
    assert!(found.opens() && !found.is_tcp() && !found.is_fragment());
}

type Case = (&'static str, usize, u8, Option<Outcome>);

/// Frames of which one byte is changed.
fn check(frame: &[u8], cases: &[Case]) {
    assert_eq!(outcome(frame), None);
    for (purpose, at, to, expected) in cases {
        let mut frame = frame.to_vec();
        frame[*at] = *to;
        assert_eq!(outcome(&frame), *expected, "{purpose}");
    }
}

#[test]
fn what_is_wrong_with_ethernet() {
    check(
        &tcp(false, &[]),
        &[
            ("ARP", 13, 0x06, Some(Outcome::NotIp)),
            ("a length instead of a type", 12, 0x00, Some(Outcome::NotIp)),
            ("802.1Q", 12, 0x81, Some(Outcome::VlanTagged)),
            ("broadcast", 0, 0xff, Some(Outcome::Multicast)),
            ("multicast", 0, 0x01, Some(Outcome::Multicast)),
            ("unicast", 0, 0xfe, None),
        ],
    );
    let mut frame = tcp(false, &[]);
    frame[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(outcome(&frame), Some(Outcome::VlanTagged), "802.1ad");
    frame[0] = 0xff;
    assert_eq!(outcome(&frame), Some(Outcome::VlanTagged), "and broadcast");
}

#[test]
fn what_is_wrong_with_ipv4() {
    let malformed = Some(Outcome::MalformedIp);
    let mut frame = tcp(false, &[0; 30]);
    check(
        &frame,
        &[
            ("version 6", IP, 0x65, malformed),
            ("header length 16", IP, 0x44, malformed),
            ("the longest header", IP, 0x4f, Some(Outcome::MalformedTransport)),
            ("length beyond the frame", IP + 3, 71, malformed),
            ("length of the frame less one", IP + 3, 69, None),
            ("length of the headers", IP + 3, 40, None),
            ("length of less", IP + 3, 39, Some(Outcome::MalformedTransport)),
            (
                "length of the IP header",
                IP + 3,
                20,
                Some(Outcome::MalformedTransport),
            ),
            ("length below the IP header's", IP + 3, 19, malformed),
            ("no length", IP + 3, 0, malformed),
            (
                "UDP whose length is nonsense",
                IP + 9,
                UDP,
                Some(Outcome::MalformedTransport),
            ),
            ("ICMPv6", IP + 9, 58, Some(Outcome::OtherProtocol)),
            (
                "an authentication header",
                IP + 9,
                AUTHENTICATION,
                Some(Outcome::OtherProtocol),
            ),
            ("the reserved flag", IP + 6, 0x80, None),
            ("don't fragment", IP + 6, 0x40, None),
            ("more fragments", IP + 6, 0x20, None),
            ("time to live 0, which is not looked at here", IP + 8, 0, None),
        ],
    );
    // A second fragment, whatever it seems to have where the first one has its ports.
    for (at, to) in [(IP + 7, 1), (IP + 6, 0x01), (IP + 6, 0x3f)] {
        let mut frame = frame.clone();
        frame[at] = to;
        assert!(matches!(classify(&frame[..]), Classification::LaterFragment(..)));
    }
    frame[IP + 6] = 0x20;
    assert!(segment::<Ipv4>(&frame).is_fragment());
}

#[test]
fn whether_ipv4_may_be_fragmented() {
    let mut frame = tcp(false, &[]);
    for (flags, must_not) in [
        (0x40, true),
        (0x60, true),
        (0x20, false),
        (0, false),
        (0x80, false),
    ] {
        frame[IP + 6] = flags;
        assert_eq!(ipv4::must_not_be_fragmented(&frame[..]), must_not, "{flags:x}");
    }
    assert!(!ipv4::must_not_be_fragmented(&frame[..20]));
}

#[test]
fn what_is_wrong_with_ipv6() {
    let malformed = Some(Outcome::MalformedIp);
    check(
        &tcp(true, &[0; 30]),
        &[
            ("version 4", IP, 0x40, malformed),
            ("length beyond the frame", IP + 5, 51, malformed),
            ("length of the frame less one", IP + 5, 49, None),
            ("length of the TCP header", IP + 5, 20, None),
            ("length of less", IP + 5, 19, Some(Outcome::MalformedTransport)),
            ("a jumbogram", IP + 5, 0, Some(Outcome::MalformedTransport)),
            (
                "nothing next",
                IP + 6,
                NO_NEXT_HEADER,
                Some(Outcome::OtherProtocol),
            ),
            ("mobility", IP + 6, MOBILITY, Some(Outcome::OtherProtocol)),
            ("ICMP of IPv4", IP + 6, 1, Some(Outcome::OtherProtocol)),
            ("hop limit 0, which is not looked at here", IP + 7, 0, None),
        ],
    );
}

#[test]
fn what_is_wrong_with_tcp() {
    let malformed = Some(Outcome::MalformedTransport);
    for (ipv6, at) in [(false, AFTER_IPV4), (true, AFTER_IPV6)] {
        check(
            &tcp(ipv6, &[0; 40]),
            &[
                ("data offset 16", at + 12, 0x40, malformed),
                ("data offset 0", at + 12, 0x00, malformed),
                ("the longest header", at + 12, 0xf0, None),
                ("every flag", at + 13, 0xff, None),
            ],
        );
        check(
            &tcp(ipv6, &[0; 39]),
            &[("data offset beyond the packet", at + 12, 0xf0, malformed)],
        );
    }
}

#[test]
fn what_is_wrong_with_udp() {
    let malformed = Some(Outcome::MalformedTransport);
    for (ipv6, at) in [(false, AFTER_IPV4), (true, AFTER_IPV6)] {
        let mut frame = udp(ipv6, &[0; 30]);
        check(
            &frame,
            &[
                ("length of the datagram", at + 5, 38, None),
                ("length beyond the packet", at + 5, 39, malformed),
                ("length of the header", at + 5, 8, None),
                ("length below the header's", at + 5, 7, malformed),
                ("no length", at + 5, 0, malformed),
                ("no checksum", at + 6, 0, None),
            ],
        );
        if !ipv6 {
            // The first fragment of a datagram is shorter than the datagram.
            frame[at + 5] = 39;
            frame[IP + 6] = 0x20;
            assert_eq!(outcome(&frame), None);
        }
    }
}

#[test]
fn every_truncation_is_named() {
    for (ipv6, shortest) in [(false, 54), (true, 74)] {
        let mut frame = tcp(ipv6, &[]);
        frame.resize(80, 0);
        for length in 0..80 {
            let expected = match length {
                0..14 => Some(Outcome::NotIp),
                _ if length < shortest => Some(Outcome::MalformedIp),
                _ => None,
            };
            assert_eq!(outcome(&frame[..length]), expected, "{length}");
        }
    }
}

#[test]
fn a_window_is_only_where_there_are_bytes() {
    let bytes: &[u8] = &[1, 2, 3, 4];
    assert!(bytes.window::<4>(0).is_some());
    assert!(bytes.window::<4>(1).is_none());
    assert!(bytes.window::<1>(3).is_some());
    assert!(bytes.window::<1>(4).is_none());
    assert!(bytes.window::<4>(usize::MAX).is_none());
    let window = bytes.window::<4>(0).unwrap();
    assert_eq!(window.field::<u8, 3>(), 4);
    assert_eq!(window.field::<u16, 1>().to_ne_bytes(), [2, 3]);
    assert_eq!(window.field::<[u8; 2], 2>(), [3, 4]);
}
