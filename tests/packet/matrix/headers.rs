//! Headers of every length, and what else a packet may look like.

use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use super::{each, established};
use crate::frame::{Extension, Frame};
use crate::kind::Kind;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(ipv4(), "ip_options_of_every_length", ip_options),
        each(ipv6(), "extension_headers", extensions),
        each(
            ipv6(),
            "extension_headers_that_are_not_looked_through",
            strange_extensions,
        ),
        each(tcp(), "tcp_options_of_every_length", tcp_options),
        each(Kind::all(), "payloads_of_every_parity", payloads),
        each(Kind::all(), "padding_is_left_alone", padding),
        each(Kind::all(), "type_of_service_or_traffic_class", class),
        each(Kind::all(), "time_to_live_or_hop_limit", time_to_live),
        each(Kind::all(), "vlan_tags", vlan_tags),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ipv4() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| kind.is_ipv4());
    kinds
}

fn ipv6() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| !kind.is_ipv4());
    kinds
}

fn tcp() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| kind.is_tcp());
    kinds
}

fn ip_options(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for words in 0..=10 {
        world.both(&format!("{words} words of options"), &talk, |frame| {
            frame.ipv4_options(words).payload(&vec![0x5a; words])
        })?;
    }
    let world = World::new(&[kind.service(1)])?;
    let first = talk.client_opens().ipv4_options(10);
    world.expect(
        "in the first packet",
        &first.bytes(),
        &crate::seen::Seen::opening(&talk, &first),
    )?;
    Ok(world.checked() + 22)
}

/// Rows of extension headers that are looked through.
fn chains() -> Vec<Vec<Extension>> {
    use Extension::{AtomicFragment, Authentication, DestinationOptions, HopByHop, Routing};
    vec![
        vec![HopByHop(0)],
        vec![HopByHop(3)],
        vec![DestinationOptions(0)],
        vec![DestinationOptions(20)],
        vec![Routing(0)],
        vec![Authentication(3)],
        vec![Authentication(16)],
        vec![AtomicFragment],
        vec![HopByHop(0), AtomicFragment],
        vec![HopByHop(1), DestinationOptions(2), Routing(0), Authentication(4)],
        vec![
            HopByHop(0),
            DestinationOptions(0),
            Routing(0),
            AtomicFragment,
            Authentication(3),
            DestinationOptions(0),
        ],
        vec![HopByHop(31), DestinationOptions(20)],
    ]
}

fn extensions(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for chain in chains() {
        world.both(&format!("{chain:?}"), &talk, |frame| {
            frame.extensions(&chain).payload(b"odd")
        })?;
    }
    let checked = world.checked();
    let world = World::new(&[kind.service(1)])?;
    let first = talk
        .client_opens()
        .extensions(&[Extension::HopByHop(0), Extension::Routing(0)]);
    world.expect(
        "in the first packet",
        &first.bytes(),
        &crate::seen::Seen::opening(&talk, &first),
    )?;
    Ok(checked + world.checked())
}

/// They pass as they came: whoever they are for may know better.
fn strange_extensions(kind: Kind) -> anyhow::Result<usize> {
    use Extension::{DestinationOptions, HopByHop, Routing, Unknown};
    let (world, talk) = established(kind)?;
    let rows = [
        (
            "more than anybody sends",
            vec![DestinationOptions(0); 7],
            Outcome::ExtensionHeaders,
        ),
        (
            "longer than is looked through",
            vec![HopByHop(40), DestinationOptions(40)],
            Outcome::ExtensionHeaders,
        ),
        (
            "further nodes to pass: this is not its destination",
            vec![Routing(1)],
            Outcome::ExtensionHeaders,
        ),
        ("of an unknown kind", vec![Unknown], Outcome::OtherProtocol),
        (
            "of an unknown kind, behind others",
            vec![HopByHop(0), DestinationOptions(0), Unknown],
            Outcome::OtherProtocol,
        ),
    ];
    for (purpose, chain, outcome) in rows {
        let frame = talk.client_says(b"?").extensions(&chain);
        world.unchanged(purpose, outcome, &frame)?;
        if talk.is_answered() {
            let frame = talk.backend_says(b"!").extensions(&chain);
            world.unchanged(purpose, outcome, &frame)?;
        }
    }
    Ok(world.checked())
}

fn tcp_options(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for words in 0..=10 {
        world.both(&format!("{words} words of options"), &talk, |frame| {
            let frame = frame.tcp_options(words);
            if kind.is_ipv4() {
                frame.ipv4_options(10 - words)
            } else {
                frame
            }
        })?;
    }
    Ok(world.checked())
}

fn payloads(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let room = crate::frame::MTU - talk.client_says(b"").packet.bytes().len() - kind.growth();
    for length in [0, 1, 2, 3, 63, 64, 535, room - 1, room] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
        world.both(&format!("{length} bytes"), &talk, |frame| frame.payload(&payload))?;
    }
    Ok(world.checked())
}

fn padding(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for padding in [
        &b"\x00\x00\x00\x00\x00\x00"[..],
        b"\xff",
        b"left over from an earlier frame",
    ] {
        world.both("padded", &talk, |frame| frame.padding(padding))?;
    }
    Ok(world.checked())
}

/// A tunnel's header has the same one, so that marks of quality and of congestion mean something on the way.
fn class(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for class in [0x01, 0x02, 0x03, 0x10, 0xb8, 0xff] {
        world.both(&format!("{class:02x}"), &talk, |frame| frame.class(class))?;
    }
    Ok(world.checked())
}

fn time_to_live(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    for time_to_live in [0, 1] {
        let first = talk.client_opens().time_to_live(time_to_live);
        world.unchanged("the first packet", Outcome::TimeToLiveOver, &first)?;
    }
    assert_eq!(world.connections()?, []);
    world.establish(&talk)?;
    let over = |frame: Frame| world.unchanged("data", Outcome::TimeToLiveOver, &frame);
    for time_to_live in [0, 1] {
        over(talk.client_says(b"x").time_to_live(time_to_live))?;
        if talk.is_answered() {
            over(talk.backend_says(b"x").time_to_live(time_to_live))?;
        }
    }
    for time_to_live in [2, 128, 255] {
        world.both("enough", &talk, |frame| frame.time_to_live(time_to_live))?;
    }
    Ok(world.checked())
}

/// The kernel takes the tags off and hands the packet to the VLAN's own interface, where the program may be attached as well.
fn vlan_tags(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for tags in [&[5][..], &[0], &[100, 5], &[4094, 1]] {
        let mut frames = vec![talk.client_opens(), talk.client_says(b"x")];
        if talk.is_answered() {
            frames.push(talk.backend_says(b"x"));
        }
        for frame in frames {
            let purpose = format!("tags {tags:?}");
            world.unchanged(&purpose, Outcome::VlanTagged, &frame.tagged(tags))?;
        }
    }
    world.both("untagged", &talk, |frame| frame)?;
    Ok(world.checked())
}
