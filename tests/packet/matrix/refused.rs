//! Answers in a backend's stead: connections that nobody takes, and those whose backend is down.

use lb::dataplane::ServiceEntry;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use super::{each, established, within_a_tick};
use crate::frame::{Extension, Frame, Says};
use crate::jiffies;
use crate::kind::Kind;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(tcp(), "nobody_takes_connections", nobody_tcp),
        each(udp(), "nobody_takes_datagrams", nobody_udp),
        each(Kind::all(), "nobody_takes_anything_and_nobody_says_so", silent),
        each(Kind::stateful(), "connections_live_on_without_slots", draining),
        each(
            Kind::stateful(),
            "connections_live_on_while_a_service_leaves",
            |kind| within_a_tick(kind, leaving),
        ),
        each(stateless(), "a_stateless_service_that_leaves", leaving_stateless),
        each(tcp(), "a_backend_that_is_down_with_on_down_reset", on_down_reset),
        each(tcp(), "a_syn_after_a_reset_goes_elsewhere", syn_after_reset),
        each(tcp(), "a_rst_to_a_reset_connection_is_dropped", rst_after_reset),
        each(
            stateful_udp(),
            "datagrams_leave_a_backend_that_is_down",
            udp_leaves,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn tcp() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| kind.is_tcp());
    kinds
}

fn udp() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| !kind.is_tcp());
    kinds
}

fn stateful_udp() -> Vec<Kind> {
    let mut kinds = udp();
    kinds.retain(|kind| !kind.is_stateless());
    kinds
}

fn stateless() -> Vec<Kind> {
    let mut kinds = Kind::all();
    kinds.retain(|kind| kind.is_stateless());
    kinds
}

/// Segments of every kind that is answered; and the answer's numbers differ in each.
fn answered(kind: Kind, client_sends: &dyn Fn() -> Frame) -> Vec<(&'static str, Frame)> {
    let last = client_sends().ack().fin().payload(b"bye").sequence(u32::MAX);
    let wraps = client_sends().fin().payload(b"bye").sequence(u32::MAX);
    let with_options = |frame: Frame, words| {
        if kind.is_ipv4() {
            frame.ipv4_options(words)
        } else {
            frame.extensions(&[Extension::HopByHop(0), Extension::DestinationOptions(1)])
        }
    };
    vec![
        ("ACK", client_sends().ack()),
        ("data", client_sends().ack().payload(b"odd")),
        ("data without ACK", client_sends().payload(b"four")),
        ("nothing at all", client_sends()),
        ("FIN without ACK", client_sends().fin()),
        ("FIN with ACK, at the end of the numbers", last),
        ("FIN without ACK, over the end of the numbers", wraps),
        ("IP options", with_options(client_sends().ack(), 10)),
        (
            "IP and TCP options, payload, without ACK",
            with_options(client_sends(), 3)
                .tcp_options(10)
                .payload(&[1; 1001]),
        ),
        ("padding", client_sends().ack().padding(&[0; 6])),
    ]
}

fn opening(client_sends: &dyn Fn() -> Frame) -> Vec<(&'static str, Frame)> {
    vec![
        ("SYN", client_sends().syn()),
        ("SYN with TCP options", client_sends().syn().tcp_options(5)),
        ("SYN with data", client_sends().syn().payload(b"early")),
        ("SYN and FIN", client_sends().syn().fin()),
        ("SYN-ACK", client_sends().syn().ack()),
    ]
}

fn without_slots(kind: Kind) -> ServiceEntry {
    ServiceEntry {
        slots: vec![],
        ..kind.service(1)
    }
}

fn nobody_tcp(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[without_slots(kind)])?;
    let talk = kind.talk(1, 1);
    let client_sends = || talk.client_sends();
    for (purpose, frame) in [opening(&client_sends), answered(kind, &client_sends)].concat() {
        let expected = Seen::refused(Outcome::RefusedNoBackend, &frame);
        world.expect(purpose, &frame.bytes(), &expected)?;
    }
    for frame in [
        talk.client_sends().rst(),
        talk.client_sends().rst().ack(),
        talk.client_sends().syn().rst(),
    ] {
        world.unchanged("RST", Outcome::RstForNobody, &frame)?;
    }
    assert_eq!(world.connections()?, [], "nothing is remembered");
    Ok(world.checked())
}

fn nobody_udp(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[without_slots(kind)])?;
    let talk = kind.talk(1, 1);
    let mut frames: Vec<Frame> = [0, 1, 5, 78, 80, 99, 100, 101, 1000, 1400]
        .map(|length| talk.client_says(&vec![0x3c; length]))
        .into();
    frames.push(talk.client_says(b"padded").padding(&[0xee; 12]));
    if kind.is_ipv4() {
        let options = [1, 2, 9, 10].map(|words| talk.client_says(b"!").ipv4_options(words));
        frames.extend(options);
        frames.push(talk.client_says(&[1; 64]).ipv4_options(10));
        frames.push(talk.client_says(b"?").without_checksum());
    } else {
        for chain in [
            &[Extension::HopByHop(0)][..],
            &[Extension::DestinationOptions(4)],
            &[
                Extension::HopByHop(1),
                Extension::Routing(0),
                Extension::DestinationOptions(5),
            ],
        ] {
            frames.push(talk.client_says(b"!").extensions(chain));
        }
    }
    frames.push(talk.client_says(&[7; 1000]).fragments(&[512])[0].clone());
    for frame in &frames {
        // Answers are limited in rate.
        jiffies::next()?;
        let answer = frame.answered_with(Says::PortUnreachable);
        let expected = Seen::changed(Outcome::RefusedNoBackend, &answer);
        world.expect(&format!("{} bytes", frame.len()), &frame.bytes(), &expected)?;
    }
    let sent = frames[0].bytes();
    let counted = world.counting(|| {
        for _ in 0..20_000 {
            world.pass(&sent)?;
        }
        Ok(())
    })?;
    let count = |outcome: Outcome| counted.get(outcome.name()).copied().unwrap_or(0);
    let (answered, not) = (count(Outcome::RefusedNoBackend), count(Outcome::RstForNobody));
    assert_eq!(answered + not, 20_000, "{counted:?}");
    assert!((1..10_000).contains(&answered), "{answered}");
    assert_eq!(world.connections()?, [], "nothing is remembered");
    Ok(world.checked() + 1)
}

fn silent(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[ServiceEntry {
        silent: true,
        ..without_slots(kind)
    }])?;
    let talk = kind.talk(1, 1);
    for frame in [
        talk.client_opens(),
        talk.client_says(b"x"),
        talk.client_says(&[0; 1000]),
    ] {
        world.unchanged("anything", Outcome::DroppedNoBackend, &frame)?;
    }
    if kind.is_tcp() {
        world.unchanged("RST", Outcome::DroppedNoBackend, &talk.client_sends().rst())?;
    }
    assert_eq!(world.connections()?, [], "nothing is remembered");
    Ok(world.checked())
}

fn draining(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    world.publish(&[without_slots(kind)])?;
    world.both("data", &talk, |frame| frame)?;
    if kind.is_tcp() {
        world.forward("RST", &talk, talk.client_sends().rst())?;
    }
    Ok(world.checked())
}

/// It has no slots, and takes nothing new; what is not its own is nobody's.
fn leaving(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    world.publish(&[ServiceEntry {
        leaving: true,
        ..without_slots(kind)
    }])?;
    world.both("data", &talk, |frame| frame)?;
    let stranger = kind.talk(2, 1);
    let mut frames = vec![stranger.client_opens(), stranger.client_says(b"x")];
    if kind.is_tcp() {
        frames.push(stranger.client_sends().rst());
    }
    for frame in frames {
        world.unchanged("anything new", Outcome::NotOurs, &frame)?;
    }
    if kind.is_tcp() {
        world.forward("RST", &talk, talk.client_sends().rst())?;
        if !talk.is_answered() {
            let syn = talk.client_opens();
            world.unchanged("a new one from the old port", Outcome::NotOurs, &syn)?;
        }
    }
    Ok(world.checked())
}

/// There is nothing that it would have to stay for.
fn leaving_stateless(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[ServiceEntry {
        leaving: true,
        ..without_slots(kind)
    }])?;
    world.unchanged("a datagram", Outcome::NotOurs, &kind.talk(1, 1).client_opens())?;
    Ok(world.checked())
}

/// Two servers, of which the first is down.
fn first_is_down(kind: Kind, reset: bool) -> ServiceEntry {
    let mut service = kind.service(2);
    (service.backends[0].up, service.backends[0].reset) = (false, reset);
    service.slots = vec![2];
    service
}

fn on_down_reset(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    let before = world.connection(talk.client)?.state;
    world.publish(&[first_is_down(kind, true)])?;
    assert_eq!(world.connection(talk.client)?.state, before);
    let client_sends = || talk.client_sends();
    for (purpose, frame) in answered(kind, &client_sends) {
        let expected = Seen::refused(Outcome::ResetBackendDown, &frame);
        world.expect(purpose, &frame.bytes(), &expected)?;
        assert_eq!(world.connection(talk.client)?.state, State::Closed, "{purpose}");
    }
    Ok(world.checked())
}

fn syn_after_reset(kind: Kind) -> anyhow::Result<usize> {
    let mut checked = 0;
    for reset_first in [false, true] {
        let (mut world, talk) = established(kind)?;
        world.publish(&[first_is_down(kind, true)])?;
        if reset_first {
            let ack = talk.client_sends().ack();
            let expected = Seen::refused(Outcome::ResetBackendDown, &ack);
            world.expect("ACK", &ack.bytes(), &expected)?;
        }
        let elsewhere = kind.talk(1, 2);
        world.establish(&elsewhere)?;
        if talk.is_answered() {
            let late = talk.backend_says(b"late");
            world.unchanged("the old backend wakes up", Outcome::NoConnection, &late)?;
        }
        assert_eq!(world.connection(talk.client)?.backend, 2);
        checked += world.checked();
    }
    Ok(checked)
}

fn rst_after_reset(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    world.publish(&[first_is_down(kind, true)])?;
    let rst = talk.client_sends().rst().ack();
    world.unchanged("RST", Outcome::RstForNobody, &rst)?;
    assert!(!world.connection(talk.client)?.is_open());
    Ok(world.checked())
}

/// Any datagram may be the first of something.
fn udp_leaves(kind: Kind) -> anyhow::Result<usize> {
    let mut checked = 0;
    for reset in [false, true] {
        let (mut world, talk) = established(kind)?;
        world.publish(&[first_is_down(kind, reset)])?;
        let elsewhere: Talk = kind.talk(1, 2);
        world.open("a datagram", &elsewhere)?;
        world.both("and on", &elsewhere, |frame| frame)?;
        if talk.is_answered() {
            let late = talk.backend_says(b"late");
            world.unchanged("the old backend wakes up", Outcome::NoConnection, &late)?;
        }
        checked += world.checked();
    }
    Ok(checked)
}
