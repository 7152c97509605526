//! ICMP errors and what they quote.

use std::net::IpAddr;

use super::frames::*;
use crate::family::{Ipv4, Ipv6};
use crate::outcome::Outcome;
use crate::wire::classify::{Classification, classify};
use crate::wire::icmp::{Messages, Quoted};
use crate::wire::network::Fragment;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const NOT_OURS: Outcome = Outcome::IcmpNotOurs;

/// A message from a client's router to the VIP about a packet, of which it quotes `quoted` bytes.
fn message(over_ipv6: bool, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat();
    if over_ipv6 {
        return ipv6_with(ICMPV6, &[], &message);
    }
    // The length and the protocol are all that is left to set; nobody looks at checksums here.
    let mut frame = tcp(false, &[]);
    frame.truncate(AFTER_IPV4);
    frame.extend(&message);
    frame[IP + 2..IP + 4].copy_from_slice(&((20 + message.len()) as u16).to_be_bytes());
    frame[IP + 9] = ICMP;
    frame
}

/// The type of an error of a family.
fn error(over_ipv6: bool) -> u8 {
    if over_ipv6 { 1 } else { 3 }
}

/// The packet in a frame.
fn packet(mut frame: Vec<u8>) -> Vec<u8> {
    frame.split_off(IP)
}

fn quote(frame: &[u8]) -> Result<Quoted<IpAddr>, Outcome> {
    match classify(frame) {
        Classification::Error(_, _, quoted) => Ok(quoted),
        Classification::Passes(outcome) => Err(outcome),
        other => panic!("{other:?}"),
    }
}

#[test]
fn eight_bytes_of_the_transport_header_are_enough() {
    for over_ipv6 in [false, true] {
        let header = if over_ipv6 { 40 } else { 20 };
        let quote_at = IP + header + 8;
        for (packet, port, checksum) in [
            (packet(tcp(over_ipv6, &[0; 50])), 443u16, 16),
            (packet(udp(over_ipv6, &[0; 50])), 53, 6),
        ] {
            for length in 0..packet.len() {
                let frame = message(over_ipv6, error(over_ipv6), &packet[..length]);
                let found = quote(&frame);
                if length < header + 8 {
                    assert_eq!(found, Err(NOT_OURS), "{length}");
                    continue;
                }
                let found = found.unwrap();
                assert_eq!(found.offset, quote_at);
                assert_eq!(found.network.transport_offset, quote_at + header);
                assert_eq!(
                    found.network.length,
                    packet.len(),
                    "of the packet, not of what is left of it"
                );
                assert_eq!(found.source_port, 40_000u16.to_be());
                assert_eq!(found.destination_port, port.to_be());
                let expected = if length >= header + checksum + 2 {
                    quote_at + header + checksum
                } else {
                    0
                };
                assert_eq!(found.checksum_offset, expected, "{length}");
            }
        }
    }
}

#[test]
fn what_follows_the_packet_is_not_quoted() {
    for over_ipv6 in [false, true] {
        let packet = packet(tcp(over_ipv6, &[]));
        let header = if over_ipv6 { 40 } else { 20 };
        let with_padding = |length: usize| {
            let mut frame = message(over_ipv6, error(over_ipv6), &packet[..length]);
            frame.extend(&packet[length..]);
            quote(&frame)
        };
        assert_eq!(with_padding(header + 7), Err(NOT_OURS));
        assert_eq!(
            with_padding(header + 8).map(|quoted| quoted.checksum_offset),
            Ok(0)
        );
        assert_ne!(
            with_padding(header + 18).map(|quoted| quoted.checksum_offset),
            Ok(0)
        );
    }
}

#[test]
fn which_messages_are_errors() {
    let errors = |over_ipv6: bool| -> Vec<u8> {
        let packet = packet(tcp(over_ipv6, &[]));
        (0..=255)
            .filter(|kind| quote_or_echo(&message(over_ipv6, *kind, &packet)))
            .collect()
    };
    assert_eq!(errors(false), [3, 11, 12]);
    assert_eq!(errors(true), [1, 2, 3, 4]);
    for kind in 0..=255 {
        assert_eq!(Ipv4::is_error(kind), errors(false).contains(&kind));
        assert_eq!(Ipv6::is_error(kind), errors(true).contains(&kind));
    }
}

/// Whether a message is an error; and if it is none, whether it is passed, or an echo request.
fn quote_or_echo(frame: &[u8]) -> bool {
    match classify(frame) {
        Classification::Error(..) => true,
        Classification::EchoRequest(_, network) => {
            let kind = frame[network.transport_offset];
            assert_eq!(kind, if network.source.is_ipv6() { 128 } else { 8 });
            false
        }
        other => {
            assert_eq!(other, Classification::Passes(NOT_OURS));
            false
        }
    }
}

#[test]
fn a_message_shorter_than_its_header_is_malformed() {
    for over_ipv6 in [false, true] {
        let whole = message(over_ipv6, error(over_ipv6), &[]);
        for missing in 1..=8 {
            let mut frame = whole.clone();
            let length_at = if over_ipv6 { IP + 5 } else { IP + 3 };
            frame[length_at] -= missing;
            let malformed = Err(Outcome::MalformedTransport);
            assert_eq!(quote(&frame), malformed, "with {missing} bytes of padding");
            frame.truncate(whole.len() - usize::from(missing));
            assert_eq!(quote(&frame), malformed);
        }
    }
}

#[test]
fn a_part_of_a_message_is_nobodys() {
    let mut frame = message(false, 3, &packet(tcp(false, &[])));
    assert!(quote(&frame).is_ok());
    for (flags, offset) in [(0x20, 0), (0x20, 1), (0, 1)] {
        (frame[IP + 6], frame[IP + 7]) = (flags, offset);
        assert_eq!(quote(&frame), Err(NOT_OURS));
    }
    for (offset, more) in [(0, true), (1, true), (1, false)] {
        let content = [&[1, 0, 0, 0, 0, 0, 0, 0], &packet(tcp(true, &[]))[..]].concat();
        let frame = ipv6_with(44, &[fragment(ICMPV6, offset, more)], &content);
        assert_eq!(quote(&frame), Err(NOT_OURS));
    }
}

#[test]
fn packets_that_are_quoted_in_vain() {
    let changed = |over_ipv6: bool, at: usize, to: u8| {
        let mut packet = packet(tcp(over_ipv6, &[]));
        packet[at] = to;
        quote(&message(over_ipv6, error(over_ipv6), &packet)).map(drop)
    };
    assert_eq!(changed(false, 9, 47), Err(NOT_OURS), "GRE");
    assert_eq!(changed(false, 9, ICMP), Err(NOT_OURS), "an echo request");
    assert_eq!(changed(false, 0, 0x65), Err(NOT_OURS), "another family");
    assert_eq!(changed(false, 0, 0x44), Err(NOT_OURS), "no header");
    assert_eq!(changed(false, 7, 1), Err(NOT_OURS), "a later fragment");
    assert_eq!(changed(false, 6, 0x20), Ok(()), "a first one");
    assert_eq!(changed(true, 6, 47), Err(NOT_OURS), "GRE");
    assert_eq!(changed(true, 0, 0x40), Err(NOT_OURS), "another family");
}

#[test]
fn quoted_options_and_extension_headers_are_passed_over() {
    let mut quoted = packet(tcp(false, &[]));
    quoted.splice(20..20, [1; 12]);
    quoted[0] = 0x48;
    quoted[3] += 12;
    let found = quote(&message(false, 3, &quoted)).unwrap();
    assert_eq!(found.network.transport_offset, AFTER_IPV4 + 8 + 32);
    assert_eq!(found.destination_port, 443u16.to_be());

    let quoted = packet(ipv6_with(60, &[options(44, 16), fragment(6, 0, true)], &syn()));
    let found = quote(&message(true, 2, &quoted)).unwrap();
    assert_eq!(found.network.transport_offset, AFTER_IPV6 + 8 + 64);
    assert_eq!(found.network.fragment, Fragment::First);
    assert_eq!(found.destination_port, 443u16.to_be());
    // And those of the message itself.
    let content = [&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat();
    let found = quote(&ipv6_with(0, &[options(ICMPV6, 24)], &content)).unwrap();
    assert_eq!(found.offset, AFTER_IPV6 + 24 + 8);
    assert_eq!(found.destination_port, 443u16.to_be());
}
