//! Checksums at their edges, absent, and wrong.

use lb::config::Protocol;
use lb_tests::harness::Case;

use super::{each, established};
use crate::frame::Frame;
use crate::kind::Kind;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(Kind::all(), "checksums_at_their_edges", edges),
        each(Kind::all(), "a_damaged_packet_leaves_damaged", damaged),
        each(udp_over_ipv4(), "a_checksum_that_was_not_computed", absent),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn udp_over_ipv4() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| kind.protocol == Protocol::Udp && kind.is_ipv4());
    kinds
}

/// The transport checksum of a frame without options, as it is encoded.
fn checksum(frame: &Frame) -> u16 {
    let bytes = frame.bytes();
    let header = 14 + frame.packet.header_length();
    let at = header + if frame.is_tcp() { 16 } else { 6 };
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Payload words for which a checksum, as it comes or as it leaves, is 0x0000 (of UDP then written as 0xffff), or next to it:
/// a word that is the checksum of the same packet with a word of zeros makes the sum come out even.
fn words(blank: &Frame, rewritten: &Frame) -> Vec<u16> {
    let mut words = vec![0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];
    for even in [checksum(blank), checksum(rewritten)] {
        for step in -2..=2 {
            words.push(even.wrapping_add_signed(step));
        }
    }
    words
}

fn edges(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let mut zeros = 0;
    let blank = talk.client_says(&[0, 0]);
    for word in words(&blank, &unwrapped(&talk, &blank)) {
        let frame = talk.client_says(&word.to_be_bytes());
        zeros += usize::from(is_edge(&unwrapped(&talk, &frame)));
        world.forward(&format!("{word:04x}"), &talk, frame)?;
    }
    if talk.is_answered() {
        let blank = talk.backend_says(&[0, 0]);
        for word in words(&blank, &talk.at_client(&blank)) {
            let frame = talk.backend_says(&word.to_be_bytes());
            zeros += usize::from(is_edge(&talk.at_client(&frame)));
            world.answer(&format!("{word:04x}"), &talk, frame)?;
        }
    }
    assert!(zeros >= 1, "none of the checksums came to its edge");
    Ok(world.checked())
}

fn unwrapped(talk: &Talk, frame: &Frame) -> Frame {
    Frame::from(talk.sent_to_backend(frame))
}

/// The sum is zero; UDP writes that as the other zero.
fn is_edge(frame: &Frame) -> bool {
    checksum(frame) == if frame.is_tcp() { 0 } else { 0xffff }
}

/// Checksums are changed, not made anew: an error that happened before the balancer is still seen after it.
fn damaged(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let damage = |bytes: &mut [u8], outside: usize| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0x10;
        if kind.is_ipv4() {
            // The identification, under the IPv4 header's checksum.
            bytes[14 + outside + 4] ^= 0x04;
        }
    };
    let frame = talk.client_says(b"intact");
    let mut sent = frame.bytes();
    damage(&mut sent, 0);
    let mut seen = Seen::to_backend(&talk, &frame);
    damage(&mut seen.frame, kind.growth());
    world.expect("turned over on the way here", &sent, &seen)?;
    if talk.is_answered() {
        let frame = talk.backend_says(b"intact");
        let mut sent = frame.bytes();
        damage(&mut sent, 0);
        let mut seen = Seen::to_client(&talk, &frame);
        damage(&mut seen.frame, 0);
        world.expect("turned over on the way back", &sent, &seen)?;
    }
    Ok(world.checked())
}

/// Zero stays zero (RFC 768): there is nothing to bring up to date.
fn absent(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for payload in [&b""[..], b"odd", &[0xff; 1400]] {
        world.both("no checksum", &talk, |frame| {
            frame.payload(payload).without_checksum()
        })?;
    }
    let checked = world.checked();
    let world = World::new(&[kind.service(1)])?;
    let first = talk.client_opens().without_checksum();
    world.expect("in the first one", &first.bytes(), &Seen::opening(&talk, &first))?;
    Ok(checked + world.checked())
}
