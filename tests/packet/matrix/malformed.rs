//! Headers that contradict themselves, each other or the frame: they pass, for the kernel to drop.

use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use super::each;
use crate::frame::{Extension, Frame};
use crate::kind::Kind;
use crate::seen::Seen;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(Kind::all(), "frames_that_are_cut_off", truncated),
        each(Kind::all(), "malformed_headers", malformed),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Cut after every byte, from the shortest frame that the runner takes: never forwarded, and always named.
fn truncated(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    let with_options = |frame: Frame| {
        let frame = if kind.is_tcp() {
            frame.tcp_options(4)
        } else {
            frame
        };
        if kind.is_ipv4() {
            frame.ipv4_options(3)
        } else {
            frame.extensions(&[Extension::HopByHop(0), Extension::Routing(0)])
        }
    };
    let mut frames = vec![
        talk.client_opens(),
        with_options(talk.client_opens()).payload(b"more than the frame has"),
    ];
    if talk.is_answered() {
        frames.push(with_options(talk.backend_accepts()));
    }
    for frame in frames {
        let whole = frame.bytes();
        for length in 14..whole.len() {
            let cut = &whole[..length];
            let expected = Seen::unchanged(Outcome::MalformedIp, cut);
            world.expect(&format!("{length} bytes"), cut, &expected)?;
        }
    }
    assert_eq!(world.connections()?, []);
    Ok(world.checked())
}

/// A byte of a frame, changed, and what that comes to.
type Row = (&'static str, usize, u8, Outcome);

fn malformed(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let frame = kind.talk(1, 1).client_opens().payload(b"");
    let (length, headers) = (frame.packet.bytes().len(), frame.packet.header_length());
    // Behind the packet there is more than any of these lengths could mean.
    let sent = frame.padding(&[0; 90]).bytes();
    let transport = 14 + headers;
    let mut rows: Vec<Row> = if kind.is_ipv4() {
        ipv4(length)
    } else {
        ipv6(length)
    };
    rows.extend(if kind.is_tcp() {
        tcp(transport)
    } else {
        udp(transport)
    });
    for (purpose, at, byte, outcome) in rows {
        let mut frame = sent.clone();
        assert_ne!(frame[at], byte, "{purpose}");
        frame[at] = byte;
        world.expect(purpose, &frame, &Seen::unchanged(outcome, &frame))?;
    }
    assert_eq!(world.connections()?, []);
    Ok(world.checked())
}

fn ipv4(length: usize) -> Vec<Row> {
    use Outcome::{MalformedIp, MalformedTransport};
    let length = length as u8;
    vec![
        ("version 0", 14, 0x05, MalformedIp),
        ("version 6", 14, 0x65, MalformedIp),
        ("header length 0", 14, 0x40, MalformedIp),
        ("header length 16", 14, 0x44, MalformedIp),
        ("header length beyond the packet", 14, 0x4f, MalformedIp),
        ("total length 0", 17, 0, MalformedIp),
        ("total length below the header's", 17, 19, MalformedIp),
        ("total length beyond the frame", 17, 255, MalformedIp),
        ("total length far beyond the frame", 16, 0xff, MalformedIp),
        ("nothing of a transport header", 17, 20, MalformedTransport),
        ("only the ports of one", 17, 24, MalformedTransport),
        ("a byte less than one", 17, length - 1, MalformedTransport),
    ]
}

fn ipv6(length: usize) -> Vec<Row> {
    use Outcome::{MalformedIp, MalformedTransport};
    let payload = length as u8 - 40;
    vec![
        ("version 4", 14, 0x40, MalformedIp),
        ("version 0", 14, 0x00, MalformedIp),
        ("payload beyond the frame", 19, 255, MalformedIp),
        ("payload far beyond the frame", 18, 0xff, MalformedIp),
        ("no payload", 19, 0, MalformedTransport),
        ("only the ports of a transport header", 19, 4, MalformedTransport),
        ("a byte less than one", 19, payload - 1, MalformedTransport),
    ]
}

fn tcp(at: usize) -> Vec<Row> {
    use Outcome::MalformedTransport;
    vec![
        ("data offset 0", at + 12, 0x00, MalformedTransport),
        ("data offset 16", at + 12, 0x40, MalformedTransport),
        ("data offset beyond the packet", at + 12, 0x60, MalformedTransport),
        ("data offset beyond everything", at + 12, 0xf0, MalformedTransport),
    ]
}

fn udp(at: usize) -> Vec<Row> {
    use Outcome::MalformedTransport;
    vec![
        ("length 0", at + 5, 0, MalformedTransport),
        ("length below the header's", at + 5, 7, MalformedTransport),
        ("length beyond the packet", at + 5, 9, MalformedTransport),
        ("length far beyond the packet", at + 4, 0xff, MalformedTransport),
    ]
}
