//! Packets that are too big for the way on: answered, so that their senders send smaller ones, or cut by the kernel.

use std::time::Instant;

use lb::dataplane::ServiceEntry;
use lb_common::abi::BackendCounters;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use super::each_in_namespace;
use crate::frame::{Frame, MTU, Says};
use crate::jiffies;
use crate::kind::{Kind, Mode};
use crate::namespace::sh;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each_in_namespace(Kind::all(), "too_big_for_the_way_to_the_backend", to_backend),
        each_in_namespace(Kind::answered(), "too_big_for_the_way_to_the_client", to_client),
        each_in_namespace(Kind::all(), "too_big_and_answers_limited_in_rate", rate),
        each_in_namespace(Kind::all(), "too_big_for_one_interface_only", interfaces),
        each_in_namespace(Kind::all(), "too_big_fragments", fragments),
        each_in_namespace(Kind::all(), "too_big_errors", errors),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The backend is behind a real interface, as the client is.
fn service(kind: Kind) -> anyhow::Result<ServiceEntry> {
    let mut service = kind.service(1);
    let hop = service.backends[0].next_hop.as_mut().expect("it has one");
    hop.interface_index = nix::net::if_::if_nametoindex("inside")?;
    Ok(service)
}

fn established(kind: Kind) -> anyhow::Result<(World, Talk)> {
    sh(&format!("ip link set lo mtu {MTU}"))?;
    let world = World::new(&[service(kind)?])?;
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    Ok((world, talk))
}

/// Answered in its destination's name. At most one answer is sent in a jiffy, on each CPU.
fn is_answered(world: &World, purpose: &str, frame: &Frame, room: usize) -> anyhow::Result<()> {
    jiffies::next()?;
    let answer = frame.answered_with(Says::TooBig(room as u16));
    world.expect(purpose, &frame.bytes(), &Seen::changed(Outcome::TooBig, &answer))
}

fn to_backend(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let room = MTU - kind.growth();
    let big = |length| talk.client_says(b"").filled_to(length);
    world.forward("just fits", &talk, big(room))?;
    for length in [room + 1, MTU + 1, 2000, 3000] {
        is_answered(&world, &format!("{length} bytes"), &big(length), room)?;
    }
    if kind.is_ipv4() {
        let frame = big(room + 1).may_be_cut();
        if kind.mode == Mode::Nat {
            let expected = Seen::to_backend(&talk, &frame).by_kernel(&frame, Outcome::ToBackendByKernel);
            world.expect("may be cut", &frame.bytes(), &expected)?;
        } else {
            is_answered(&world, "may be cut, but not here", &frame, room)?;
        }
        is_answered(
            &world,
            "with options",
            &big(room + 1).ipv4_options(10).filled_to(room + 1),
            room,
        )?;
    }
    // The backend was chosen, though its first packet has not got there.
    let stranger = kind.talk(2, 1).by_own_port(talk.own_port + 1);
    let first = stranger.client_opens().filled_to(room + 1);
    let mut expected = Seen::changed(Outcome::TooBig, &first.answered_with(Says::TooBig(room as u16)));
    if !kind.is_stateless() {
        let opened = BackendCounters {
            opened: 1,
            ..BackendCounters::default()
        };
        expected = expected.counted(&stranger, opened);
    }
    jiffies::next()?;
    world.expect("the first of a connection", &first.bytes(), &expected)?;
    world.forward(
        "a smaller one",
        &stranger,
        stranger.client_opens().filled_to(room),
    )?;
    Ok(world.checked())
}

fn to_client(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let big = |length| talk.backend_says(b"").filled_to(length);
    world.answer("just fits", &talk, big(MTU))?;
    for length in [MTU + 1, 3000] {
        is_answered(&world, &format!("{length} bytes"), &big(length), MTU)?;
    }
    if kind.is_ipv4() {
        let frame = big(MTU + 1).may_be_cut();
        let expected = Seen::to_client(&talk, &frame).by_kernel(&frame, Outcome::ToClientByKernel);
        world.expect("may be cut", &frame.bytes(), &expected)?;
    }
    Ok(world.checked())
}

/// Of many, about one in each jiffy on each CPU; the others are named.
fn rate(kind: Kind) -> anyhow::Result<usize> {
    const MANY: u64 = 20_000;
    let (world, talk) = established(kind)?;
    let frame = talk.client_says(b"").filled_to(MTU + 1).bytes();
    let begin = Instant::now();
    let counted = world.counting(|| {
        for _ in 0..MANY {
            world.pass(&frame)?;
        }
        Ok(())
    })?;
    let count = |outcome: Outcome| counted.get(outcome.name()).copied().unwrap_or(0);
    let (answered, unanswered) = (count(Outcome::TooBig), count(Outcome::TooBigUnanswered));
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let most = (begin.elapsed().as_millis() as u64 + 2) * cpus;
    assert_eq!(answered + unanswered, MANY, "{counted:?}");
    assert_eq!(counted.len(), 2, "{counted:?}");
    assert!(
        (1..=most.min(MANY / 2)).contains(&answered),
        "{answered} answers, at most {most}"
    );
    jiffies::next()?;
    is_answered(
        &world,
        "after that",
        &talk.client_says(b"").filled_to(MTU + 1),
        MTU - kind.growth(),
    )?;
    Ok(world.checked() + 1)
}

/// What counts is the interface that the packet leaves by.
fn interfaces(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    let big = |length| talk.client_says(b"").filled_to(length);
    sh("ip link set inside mtu 3000")?;
    world.forward("a wide one", &talk, big(3000 - kind.growth()))?;
    is_answered(
        &world,
        "but not so wide",
        &big(3001 - kind.growth()),
        3000 - kind.growth(),
    )?;
    sh("ip link set inside mtu 1400")?;
    world.publish_with_mtu(&[service(kind)?], 1400)?;
    world.forward("a narrow one", &talk, big(1400 - kind.growth()))?;
    is_answered(
        &world,
        "too narrow",
        &big(1401 - kind.growth()),
        1400 - kind.growth(),
    )?;
    world.publish_with_mtu(&[service(kind)?], 0)?;
    world.forward("nothing is known of the others", &talk, big(1400 - kind.growth()))?;
    world.forward("a small one", &talk, big(100))?;
    is_answered(
        &world,
        "and too narrow",
        &big(1401 - kind.growth()),
        1400 - kind.growth(),
    )?;
    Ok(world.checked())
}

/// Fragments fit where they come from. Where they do not fit here, the first one is answered if it can be, or the kernel cuts
/// them again; an IPv4 error is never about a later one.
fn fragments(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let room = MTU - kind.growth();
    let cut = 1600;
    let sent = talk.client_says(b"").filled_to(3300).identification(5);
    let (sent, left) = (sent.fragments(&[cut]), talk.fragments_at_backend(&sent, &[cut]));
    for number in [0, 1] {
        let purpose = format!("fragment {number}");
        let (sent, left) = (&sent[number], &left[number]);
        if kind.mode == Mode::Nat && kind.is_ipv4() {
            let mut expected = Seen::to_backend(&talk, sent);
            expected.frame = left.bytes();
            let expected = expected.by_kernel(sent, Outcome::ToBackendByKernel);
            world.expect(&purpose, &sent.bytes(), &expected)?;
        } else if number == 0 || !kind.is_ipv4() {
            let note = if number == 0 {
                ""
            } else {
                ", known by a smaller first one"
            };
            if number == 1 {
                // The first one has gone no further than to here: nothing is known of its datagram.
                world.unchanged(&purpose, Outcome::FragmentUnmatched, sent)?;
                let small = talk
                    .client_says(b"")
                    .filled_to(3300)
                    .identification(5)
                    .fragments(&[800]);
                world.pass(&small[0].bytes())?;
            }
            is_answered(&world, &format!("{purpose}{note}"), sent, room)?;
        } else {
            let small = talk
                .client_says(b"")
                .filled_to(3300)
                .identification(5)
                .fragments(&[800]);
            world.pass(&small[0].bytes())?;
            world.unchanged(&purpose, Outcome::TooBigUnanswered, sent)?;
        }
    }
    Ok(world.checked())
}

/// An ICMP error is never answered with an error.
fn errors(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let about = talk.backend_says(b"").filled_to(MTU);
    let outside = if kind.is_ipv4() { 28 } else { 48 };
    let error = |length: usize| {
        talk.error_from_clients_side(
            &about,
            Says::TooBig(1400),
            kind.router_address(),
            length - outside,
        )
    };
    let room = MTU - kind.growth();
    let fits = error(room);
    let expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(&fits));
    world.expect("just fits", &fits.bytes(), &expected)?;
    if kind.mode == Mode::Ipip {
        world.unchanged("does not fit", Outcome::TooBigUnanswered, &error(room + 1))?;
    }
    Ok(world.checked())
}
