//! IPv6 extension headers: those that are followed, and those that are not.

use super::frames::*;
use super::headers::{outcome, segment};
use crate::family::{Family, Ipv6};
use crate::outcome::Outcome;
use crate::wire::network::{Fragment, Network};

const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// What the program reads of an IPv6 packet.
fn ipv6(frame: &[u8]) -> Result<Network<[u64; 2]>, Outcome> {
    Ipv6::parse(frame)
}

#[test]
fn extension_headers_one_by_one() {
    let authentication = |next: u8, words: u8| {
        let mut header = vec![0; 8 + usize::from(words) * 4];
        (header[0], header[1]) = (next, words);
        header
    };
    type Case = (&'static str, u8, Vec<Vec<u8>>);
    let cases: Vec<Case> = vec![
        ("hop-by-hop options", HOP_BY_HOP, vec![options(TCP, 8)]),
        ("long ones", HOP_BY_HOP, vec![options(TCP, 248)]),
        ("destination options", DESTINATION_OPTIONS, vec![options(TCP, 24)]),
        ("a routing header at its end", ROUTING, vec![options(TCP, 24)]),
        ("authentication", AUTHENTICATION, vec![authentication(TCP, 4)]),
        (
            "authentication, the shortest",
            AUTHENTICATION,
            vec![authentication(TCP, 0)],
        ),
        (
            "a fragment header of a whole packet",
            FRAGMENT,
            vec![fragment(TCP, 0, false)],
        ),
        (
            "all of them, in the recommended order",
            HOP_BY_HOP,
            vec![
                options(DESTINATION_OPTIONS, 8),
                options(ROUTING, 16),
                options(FRAGMENT, 24),
                fragment(AUTHENTICATION, 0, false),
                authentication(DESTINATION_OPTIONS, 3),
                options(TCP, 8),
            ],
        ),
    ];
    for (purpose, first, chain) in cases {
        let frame = ipv6_with(first, &chain, &syn());
        let network = ipv6(&frame).unwrap_or_else(|outcome| panic!("{purpose}: {outcome:?}"));
        let headers: usize = chain.iter().map(Vec::len).sum();
        assert_eq!(network.transport_offset, AFTER_IPV6 + headers, "{purpose}");
        assert_eq!(
            (network.protocol, network.fragment),
            (TCP, Fragment::Whole),
            "{purpose}"
        );
        let found = segment::<Ipv6>(&frame);
        assert_eq!(found.transport.destination_port, 443u16.to_be(), "{purpose}");
        // Cut off anywhere, it is not a packet.
        for length in IP..frame.len() {
            assert_eq!(
                outcome(&frame[..length]),
                Some(Outcome::MalformedIp),
                "{purpose}: {length}"
            );
        }
    }
}

#[test]
fn extension_headers_that_are_not_followed() {
    let not_followed = Err(Outcome::ExtensionHeaders);
    let chain = |count: usize| {
        let mut chain = vec![options(DESTINATION_OPTIONS, 8); count - 1];
        chain.push(options(TCP, 8));
        ipv6(&ipv6_with(DESTINATION_OPTIONS, &chain, &syn())).map(|network| network.transport_offset)
    };
    assert_eq!(chain(6), Ok(AFTER_IPV6 + 48));
    assert_eq!(chain(7), not_followed, "seven");
    assert_eq!(chain(50), not_followed, "fifty");

    // The furthest that the transport header may begin is 512, and the last multiple of eight behind the header is 510.
    let reaching = |length: usize| {
        let frame = ipv6_with(HOP_BY_HOP, &[options(TCP, length)], &syn());
        ipv6(&frame).map(|network| network.transport_offset)
    };
    assert_eq!(reaching(510 - AFTER_IPV6), Ok(510));
    assert_eq!(reaching(518 - AFTER_IPV6), not_followed);
    assert_eq!(reaching(2048), not_followed);

    let mut routing = options(TCP, 24);
    routing[3] = 1;
    let frame = ipv6_with(ROUTING, &[routing.clone()], &syn());
    assert_eq!(
        ipv6(&frame).map(drop),
        not_followed.map(drop),
        "a stop still to go"
    );
    // The byte is that of a routing header only.
    let frame = ipv6_with(DESTINATION_OPTIONS, &[routing], &syn());
    assert_eq!(ipv6(&frame).map(drop), Ok(()));
}

#[test]
fn fragment_headers() {
    let network = |next: u8, offset: u16, more: bool, behind: &[Vec<u8>]| {
        let chain = [&[options(FRAGMENT, 8), fragment(next, offset, more)], behind].concat();
        ipv6(&ipv6_with(HOP_BY_HOP, &chain, &syn()))
    };
    for (offset, more, expected) in [
        (0, true, Fragment::First),
        (1, true, Fragment::Later),
        (0x1fff, false, Fragment::Later),
        (0, false, Fragment::Whole),
    ] {
        let network = network(TCP, offset, more, &[]).unwrap();
        assert_eq!(network.fragment, expected);
        assert_eq!(
            (network.protocol, network.transport_offset),
            (TCP, AFTER_IPV6 + 16)
        );
        assert_eq!(network.identification, 0x1234_5678u32.to_be());
    }
    // The two reserved bits are no offset.
    let mut frame = ipv6_with(FRAGMENT, &[fragment(TCP, 0, false)], &syn());
    frame[AFTER_IPV6 + 3] |= 0b110;
    assert_eq!(ipv6(&frame).map(|network| network.fragment), Ok(Fragment::Whole));

    let behind = [options(TCP, 8)];
    for (offset, more) in [(0, true), (1, true), (1, false)] {
        let found = network(DESTINATION_OPTIONS, offset, more, &behind);
        assert_eq!(
            found.map(drop),
            Err(Outcome::ExtensionHeaders),
            "more of them behind"
        );
    }
    let whole = network(DESTINATION_OPTIONS, 0, false, &behind).unwrap();
    assert_eq!((whole.protocol, whole.transport_offset), (TCP, AFTER_IPV6 + 24));
}

#[test]
fn a_packet_is_not_shorter_than_its_extension_headers() {
    let mut frame = ipv6_with(HOP_BY_HOP, &[options(TCP, 16)], &syn());
    for (length, expected) in [
        (36, None),
        (35, Some(Outcome::MalformedTransport)),
        (16, Some(Outcome::MalformedTransport)),
        (15, Some(Outcome::MalformedIp)),
        (0, Some(Outcome::MalformedIp)),
    ] {
        frame[IP + 5] = length;
        assert_eq!(outcome(&frame), expected, "{length}");
    }
}

/// A length of 255 leads beyond any frame, and zeros never to an end, but for the bounds.
#[test]
fn extension_headers_lead_nowhere() {
    for filler in [0, 43, 44, 51, 60, 255] {
        for first in [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS] {
            let frame = ipv6_with(first, &[], &[filler; 1400]);
            assert!(outcome(&frame).is_some(), "{first}, {filler}");
        }
    }
}
