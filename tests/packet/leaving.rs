//! Backends and services that were removed from the configuration: connections that they have go on, datagrams like segments,
//! and new ones go elsewhere.

use lb::dataplane::ServiceEntry;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::kind::{FIRST_OWN_PORT, Kind};
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::stateful() {
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("leaving::{title}_{}", kind.slug());
            cases.push(Case::of(kind.cell(), name, move || run(kind)));
        };
        case("a_leaving_backend_keeps_its_connections", backend);
        case("a_leaving_service_keeps_its_connections", service);
        case("a_new_connection_from_the_same_port", same_port);
        if !kind.is_tcp() {
            case("a_backend_that_is_down_loses_its_flows", down);
        }
    }
    cases
}

/// `web1` was removed, as the daemon says it: it takes nothing new, and is not probed any more.
fn without_first(kind: Kind) -> ServiceEntry {
    let mut service = kind.service(2);
    service.slots = vec![2];
    service.backends[0].up = false;
    service.backends[0].leaving = true;
    service
}

/// The whole service was.
fn removed(kind: Kind) -> ServiceEntry {
    let mut service = ServiceEntry {
        leaving: true,
        slots: vec![],
        ..kind.service(2)
    };
    for backend in &mut service.backends {
        (backend.up, backend.leaving) = (false, true);
    }
    service
}

/// An established connection to each of two servers.
fn both_established(kind: Kind) -> anyhow::Result<(World, [Talk; 2])> {
    let world = World::new(&[kind.service(2)])?;
    let talks = [kind.talk(1, 1), kind.talk(2, 2)];
    for talk in &talks {
        world.establish(talk)?;
    }
    Ok((world, talks))
}

fn backend(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talks) = both_established(kind)?;
    let young = kind.talk(3, 1).by_own_port(FIRST_OWN_PORT + 1);
    world.open("it has just begun", &young)?;
    world.publish(&[without_first(kind)])?;
    for talk in talks.iter().chain([&young]) {
        for _ in 0..3 {
            world.both("it goes on", talk, |frame| frame)?;
        }
        assert_eq!(world.connection(talk.client)?.backend, talk.backend.id);
    }
    for number in 1..4u16 {
        let new = kind.talk(10 + u32::from(number), 2);
        world.open("a new one", &new.by_own_port(FIRST_OWN_PORT + number))?;
    }
    Ok(world.checked())
}

fn service(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talks) = both_established(kind)?;
    world.publish(&[removed(kind)])?;
    for talk in &talks {
        for _ in 0..3 {
            world.both("it goes on", talk, |frame| frame)?;
        }
    }
    let new = kind.talk(3, 1);
    for frame in [new.client_opens(), new.client_says(b"x")] {
        world.unchanged("anything new", Outcome::NotOurs, &frame)?;
    }
    assert_eq!(world.connections()?.len(), 2);
    Ok(world.checked())
}

/// A SYN says that it is a new connection; a datagram says nothing, and more likely belongs to what its port did before.
fn same_port(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, [talk, _]) = both_established(kind)?;
    world.publish(&[without_first(kind)])?;
    let expected = if kind.is_tcp() { 2 } else { 1 };
    assert_eq!(world.server_of(&talk.client_opens())?, expected);
    assert_eq!(world.connection(talk.client)?.backend, u16::from(expected));
    assert_eq!(world.server_of(&talk.client_says(b"x"))?, expected);

    let (mut world, [talk, _]) = both_established(kind)?;
    world.publish(&[removed(kind)])?;
    let first = talk.client_opens();
    if kind.is_tcp() {
        world.unchanged("nobody is there to take it", Outcome::NotOurs, &first)?;
    } else {
        world.forward("a datagram like any other", &talk, first)?;
    }
    world.both("the old one goes on", &talk, |frame| frame)?;
    Ok(world.checked() + 2)
}

/// It is still wanted, but does not answer: its flows are better off elsewhere.
fn down(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, [talk, other]) = both_established(kind)?;
    let mut service = without_first(kind);
    service.backends[0].leaving = false;
    world.publish(&[service])?;
    for payload in [&b"one"[..], b"two"] {
        assert_eq!(world.server_of(&talk.client_says(payload))?, 2);
    }
    assert_eq!(world.connection(talk.client)?.backend, 2);
    world.both("the other one's", &other, |frame| frame)?;
    Ok(world.checked() + 2)
}
