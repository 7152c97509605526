//! Fragments to a VIP that no service is for: the host itself may listen on a VIP's other ports, and must get all of a datagram.

use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::frame::Frame;
use crate::kind::{Flavour, Kind};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::all() {
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("passed_fragments::{title}_{}", kind.slug());
            cases.push(Case::of(kind.cell(), name, move || run(kind)));
        };
        case("to_a_port_of_a_vip_that_no_service_has", no_service);
        case("to_a_service_that_leaves", leaving);
        case("and_then_a_services_datagram", then_ours);
    }
    cases
}

const CUTS: [usize; 2] = [480, 1024];

/// A datagram's fragments: the first one, and the later ones.
fn fragments(frame: &Frame, identification: u16) -> (Frame, Vec<Frame>) {
    let whole = frame.clone().payload(&[7; 1500]).identification(identification);
    let mut all = whole.fragments(&CUTS);
    (all.remove(0), all)
}

/// All pass once the first one has; before that they are nobody's, to a VIP.
fn pass(world: &World, frame: &Frame, identification: u16) -> anyhow::Result<()> {
    let (first, later) = fragments(frame, identification);
    for fragment in &later {
        world.unchanged("before the first one", Outcome::FragmentUnmatched, fragment)?;
    }
    world.unchanged("the first one", Outcome::NotOurs, &first)?;
    for fragment in later.iter().rev().chain(&later) {
        world.unchanged("after it", Outcome::FragmentOfNobody, fragment)?;
    }
    let (_, others) = fragments(frame, identification + 1);
    world.unchanged("another datagram's", Outcome::FragmentUnmatched, &others[0])
}

/// Ports that no service has: in front of those of a range, and behind them.
fn free_ports(kind: Kind) -> [u16; 3] {
    match kind.flavour {
        Flavour::Range => [500, 6999, 8000],
        Flavour::Plain | Flavour::Stateless => [500, 442, 444],
    }
}

fn no_service(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    for (number, port) in (0u16..).zip(free_ports(kind)) {
        let talk = kind.talk(1, 1).at_port(port);
        pass(&world, &talk.client_says(b""), 10 * number)?;
    }
    assert_eq!(world.connections()?, []);
    Ok(world.checked())
}

fn leaving(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[kind.service(1)])?;
    let mut service = kind.service(1);
    (service.leaving, service.slots) = (true, vec![]);
    world.publish(&[service])?;
    pass(&world, &kind.talk(1, 1).client_says(b""), 1)?;
    Ok(world.checked())
}

/// A client that uses an identification anew, for a datagram to a service.
fn then_ours(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.open("the first datagram, or SYN", &talk)?;
    let [port, ..] = free_ports(kind);
    pass(&world, &talk.clone().at_port(port).client_says(b""), 1)?;
    ours(&world, &talk, 1)?;
    pass(&world, &talk.clone().at_port(port).client_says(b""), 3)?;
    Ok(world.checked())
}

fn ours(world: &World, talk: &Talk, identification: u16) -> anyhow::Result<()> {
    let whole = talk.client_says(&[7; 1500]).identification(identification);
    let left = talk.fragments_at_backend(&whole, &CUTS);
    for (number, (sent, left)) in whole.fragments(&CUTS).iter().zip(left).enumerate() {
        let mut expected = Seen::to_backend(talk, sent);
        if number != 0 {
            expected = expected.named(Outcome::FragmentToBackend);
        }
        expected.frame = left.bytes();
        world.expect(&format!("fragment {number}"), &sent.bytes(), &expected)?;
    }
    Ok(())
}
