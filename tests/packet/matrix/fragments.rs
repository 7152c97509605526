//! Fragments: all of a datagram go the same way, if the first one comes first.

use lb::config::Protocol;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use super::{each, established};
use crate::frame::{Extension, Frame};
use crate::kind::Kind;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(Kind::all(), "fragments_in_order_and_out_of_it", orders),
        each(Kind::all(), "fragments_of_the_first_packet", opening),
        each(Kind::all(), "fragments_that_are_told_apart", told_apart),
        each(Kind::all(), "fragments_without_the_first_one", without_first),
        each(Kind::all(), "fragments_of_every_size", sizes),
        each(ipv6(), "fragments_behind_extension_headers", behind_extensions),
        each(Kind::all(), "fragments_whose_time_is_over", time_to_live),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ipv6() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| !kind.is_ipv4());
    kinds
}

/// Where a datagram of 2,000 bytes and more is cut, into fragments of different lengths.
const CUTS: [usize; 3] = [728, 1024, 1600];

fn datagram(frame: Frame, identification: u16) -> Frame {
    let payload: Vec<u8> = (0..2011u32).map(|i| (i * 7) as u8).collect();
    frame.payload(&payload).identification(identification)
}

/// A datagram's fragments as they come, and as they must leave.
struct Cut {
    sent: Vec<Frame>,
    expected: Vec<Seen>,
}

impl Cut {
    fn from_client(talk: &Talk, datagram: &Frame, cuts: &[usize]) -> Self {
        let sent = datagram.fragments(cuts);
        let left = talk.fragments_at_backend(datagram, cuts);
        let expected = sent.iter().zip(left).enumerate().map(|(number, (sent, left))| {
            let mut seen = Seen::to_backend(talk, sent);
            if number != 0 {
                seen = seen.named(Outcome::FragmentToBackend);
            }
            seen.frame = left.bytes();
            seen
        });
        Self {
            expected: expected.collect(),
            sent,
        }
    }

    fn from_backend(talk: &Talk, datagram: &Frame, cuts: &[usize]) -> Self {
        let sent = datagram.fragments(cuts);
        let left = talk.at_client(datagram).fragments(cuts);
        let expected = sent.iter().zip(left).enumerate().map(|(number, (sent, left))| {
            let mut seen = Seen::to_client(talk, sent);
            if number != 0 {
                let action = seen.action;
                seen = seen.named(Outcome::FragmentToClient);
                seen.action = action;
            }
            seen.frame = left.bytes();
            seen
        });
        Self {
            expected: expected.collect(),
            sent,
        }
    }

    /// Sends these of the fragments, in this order.
    fn send(
        &self,
        world: &World,
        purpose: &str,
        order: impl IntoIterator<Item = usize>,
    ) -> anyhow::Result<()> {
        for number in order {
            let purpose = format!("{purpose}: fragment {number}");
            world.expect(&purpose, &self.sent[number].bytes(), &self.expected[number])?;
        }
        Ok(())
    }
}

const ORDERS: [[usize; 4]; 4] = [[0, 1, 2, 3], [0, 3, 2, 1], [0, 2, 3, 1], [0, 3, 1, 2]];

fn orders(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for (number, order) in (0..).zip(ORDERS) {
        let purpose = format!("{order:?}");
        let sent = datagram(talk.client_says(b""), number);
        let cut = Cut::from_client(&talk, &sent, &CUTS);
        cut.send(&world, &purpose, order)?;
        cut.send(&world, "some of them twice", [2, 0, 2])?;
        if talk.is_answered() {
            let sent = datagram(talk.backend_says(b""), number);
            Cut::from_backend(&talk, &sent, &CUTS).send(&world, &purpose, order)?;
        }
    }
    Ok(world.checked())
}

/// It opens a connection; by the time that the others come, it is the next server's turn.
fn opening(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let mut cuts = Vec::new();
    for number in 0..4u16 {
        let talk = kind.talk(number.into(), 1);
        let server = if kind.is_stateless() {
            world.server_of(&talk.client_opens())?
        } else {
            (number % 2) as u8 + 1
        };
        let own_port = talk.own_port + number / 2;
        let talk = kind.talk(number.into(), server).by_own_port(own_port);
        // One and the same identification: they differ in the source, or only in the connection.
        let sent = datagram(talk.client_opens(), 7 + number);
        let mut cut = Cut::from_client(&talk, &sent, &CUTS);
        for counters in cut.expected[0].backends.values_mut() {
            counters.opened = u64::from(!talk.is_stateless);
        }
        cut.send(&world, "the first one", [0])?;
        cuts.push(cut);
    }
    for cut in &cuts {
        cut.send(&world, "the others", [1, 2, 3])?;
    }
    Ok(world.checked())
}

/// What differs in source, identification or protocol is another datagram.
fn told_apart(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let sent = datagram(talk.client_says(b""), 1);
    let cut = Cut::from_client(&talk, &sent, &CUTS);
    cut.send(&world, "the first one", [0])?;
    let unmatched = |purpose: &str, frame: &Frame| {
        world.unchanged(purpose, Outcome::FragmentUnmatched, &frame.fragments(&CUTS)[1])
    };
    unmatched("another identification", &sent.clone().identification(2))?;
    let stranger = Talk {
        client: kind.client(60_000),
        ..talk.clone()
    };
    unmatched("another source", &datagram(stranger.client_says(b""), 1))?;
    let protocol = if kind.is_tcp() {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    let other = Talk {
        protocol,
        ..talk.clone()
    };
    unmatched("another protocol", &datagram(other.client_says(b""), 1))?;
    cut.send(&world, "the others", [3, 2, 1])?;
    Ok(world.checked())
}

/// To a VIP they have no ports that could tell whose they are; anywhere else they are nobody's.
fn without_first(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let later = |frame: Frame| datagram(frame, 99).fragments(&CUTS)[1..].to_vec();
    for frame in later(talk.client_says(b"")) {
        world.unchanged("to the VIP", Outcome::FragmentUnmatched, &frame)?;
    }
    for frame in later(talk.backend_sends()) {
        world.unchanged("from the backend", Outcome::FragmentOfNobody, &frame)?;
    }
    let mut elsewhere = talk.vip;
    elsewhere.set_ip(kind.router_address());
    for frame in later(talk.client_sends().with_destination(elsewhere)) {
        world.unchanged("to elsewhere", Outcome::FragmentOfNobody, &frame)?;
    }
    let first = datagram(talk.client_sends().with_destination(elsewhere), 100).fragments(&CUTS);
    world.unchanged("the first of what is not ours", Outcome::NotOurs, &first[0])?;
    world.unchanged("a later one", Outcome::FragmentOfNobody, &first[1])?;
    Ok(world.checked())
}

/// The first one may be as short as the transport header, or as the ports are, which nobody sends and nobody need take.
fn sizes(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let shortest = if kind.is_tcp() { 24 } else { 8 };
    for (number, cuts) in (0..).zip([
        vec![shortest, 1400],
        vec![shortest, shortest + 8, 1000],
        vec![1400],
        vec![512, 520, 528, 1000],
        (1..20).map(|n| n * 96).collect(),
    ]) {
        let sent = datagram(talk.client_says(b""), 200 + number);
        let cut = Cut::from_client(&talk, &sent, &cuts);
        cut.send(&world, &format!("{cuts:?}"), 0..=cuts.len())?;
        if talk.is_answered() {
            let sent = datagram(talk.backend_says(b""), 200 + number);
            let cut = Cut::from_backend(&talk, &sent, &cuts);
            cut.send(&world, &format!("{cuts:?}"), 0..=cuts.len())?;
        }
    }
    if kind.is_tcp() {
        for cut in [8, 16] {
            let first = &datagram(talk.client_says(b""), 300).fragments(&[cut])[0];
            world.unchanged("less than a TCP header", Outcome::MalformedTransport, first)?;
        }
    }
    Ok(world.checked())
}

fn behind_extensions(kind: Kind) -> anyhow::Result<usize> {
    use Extension::{DestinationOptions, HopByHop, Routing};
    let (world, talk) = established(kind)?;
    let chains = [
        vec![HopByHop(0)],
        vec![HopByHop(2), DestinationOptions(1), Routing(0)],
    ];
    for (number, chain) in (0..).zip(chains) {
        let sent = datagram(talk.client_says(b""), 400 + number).extensions(&chain);
        let cut = Cut::from_client(&talk, &sent, &CUTS);
        cut.send(&world, &format!("{chain:?}"), [0, 2, 3, 1])?;
        if talk.is_answered() {
            let sent = datagram(talk.backend_says(b""), 400 + number).extensions(&chain);
            let cut = Cut::from_backend(&talk, &sent, &CUTS);
            cut.send(&world, &format!("{chain:?}"), [0, 2, 3, 1])?;
        }
    }
    Ok(world.checked())
}

fn time_to_live(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let mut directions = vec![Cut::from_client(
        &talk,
        &datagram(talk.client_says(b""), 500),
        &CUTS,
    )];
    if talk.is_answered() {
        let sent = datagram(talk.backend_says(b""), 500);
        directions.push(Cut::from_backend(&talk, &sent, &CUTS));
    }
    for cut in &directions {
        cut.send(&world, "the first one", [0])?;
        let late = cut.sent[1].clone().time_to_live(1);
        world.unchanged("a later one", Outcome::TimeToLiveOver, &late)?;
        cut.send(&world, "in time", [1])?;
    }
    Ok(world.checked())
}
