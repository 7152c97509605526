//! `full-nat`: whose own ports make room when all are taken, and what that costs. (More is in `full_nat`.)

use std::time::Instant;

use anyhow::Context as _;
use aya::maps::Array;
use lb::config::Protocol;
use lb::dataplane::{Forwarding, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use crate::aging;
use crate::jiffies;
use crate::kind::{FIRST_OWN_PORT, Family, Flavour, Kind, Mode};
use crate::seen::Seen;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let kind = Kind {
                mode: Mode::FullNat,
                family,
                protocol,
                flavour: Flavour::Plain,
            };
            let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
                let name = format!("own_ports::{title}_{}", kind.slug());
                cases.push(Case::of(kind.cell(), name, move || run(kind)));
            };
            case("half_open_connections_make_room", half_open);
            case("established_connections_make_none", established);
            case("nobody_tries_again_at_once", at_once);
            case("another_backend_at_no_cost", elsewhere);
        }
    }
    cases
}

/// For how many ticks a port rests after it was given, and one more.
const REST: u16 = 3;
/// How many ports are tried in turn, each time.
const IN_TURN: u64 = 8;

/// A service whose backends have so many ports each.
fn with_ports(kind: Kind, ports: &[u16]) -> ServiceEntry {
    let mut service = kind.service(ports.len() as u8);
    for (backend, ports) in service.backends.iter_mut().zip(ports) {
        let Forwarding::FullNat { lease, .. } = &mut backend.forwarding else {
            panic!("a full-nat service");
        };
        lease.ports = *ports;
    }
    service
}

/// All ports have rested, and the jiffy in which all were taken is over: until then nobody tries again.
fn later(world: &mut World) -> anyhow::Result<()> {
    aging::ports(world, REST)?;
    jiffies::next()?;
    Ok(())
}

fn half_open(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[with_ports(kind, &[3])])?;
    let talk = |number: u16| kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number);
    let kept = talk(0);
    world.establish(&kept)?;
    world.open("the first packet alone", &talk(1))?;
    world.open("the first packet", &talk(2))?;
    world.answer("and an answer", &talk(2), talk(2).backend_accepts())?;
    let mut half_open = vec![talk(1), talk(2)];
    let first = kind.talk(9, 1).client_opens();
    world.unchanged("none has rested", Outcome::PortsExhausted, &first)?;
    for number in 10..16 {
        later(&mut world)?;
        let new = kind.talk(number, 1);
        let first = new.client_opens();
        assert_eq!(world.server_of(&first)?, 1, "client {number}");
        let own_port = world.connection(new.client)?.own_port;
        let new = new.by_own_port(own_port);
        let whose = half_open.iter().position(|it| it.own_port == new.own_port);
        let loser = half_open.remove(whose.context("a half-open connection's port")?);
        assert_eq!(world.connections()?.len(), 3, "the one that had it is forgotten");
        world.answer("its answers reach the new one", &new, new.backend_accepts())?;
        if kind.is_tcp() {
            let late = loser.client_says(b"late");
            let expected = Seen::refused(Outcome::FullNatUnknown, &late);
            world.expect("the one that had it", &late.bytes(), &expected)?;
        }
        world.both("the established one goes on", &kept, |frame| frame)?;
        half_open.push(new);
    }
    Ok(world.checked())
}

fn established(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[with_ports(kind, &[3])])?;
    let talks = [0, 1, 2].map(|n| kind.talk(n.into(), 1).by_own_port(FIRST_OWN_PORT + n));
    for talk in &talks {
        world.establish(talk)?;
    }
    if kind.is_tcp() {
        world.forward("half-closed", &talks[1], talks[1].client_says(b"").fin())?;
        world.forward("a RST, maybe forged", &talks[2], talks[2].client_sends().rst())?;
        assert_eq!(world.connection(talks[2].client)?.state, State::Reset);
    }
    for number in 10..15 {
        later(&mut world)?;
        let first = kind.talk(number, 1).client_opens();
        world.unchanged("all are in use", Outcome::PortsExhausted, &first)?;
    }
    for talk in &talks {
        assert_eq!(world.connection(talk.client)?.own_port, talk.own_port);
        world.both("they go on", talk, |frame| frame)?;
    }
    Ok(world.checked())
}

/// How many ports were tried in turn towards a backend, and the jiffy in which all were taken.
fn tried(world: &mut World, backend: u16) -> anyhow::Result<(u64, u64)> {
    const NAME: &str = "BACKEND_STATES";
    let map = world.dataplane.ebpf_mut().map_mut(NAME).context(NAME)?;
    let states: Array<_, [u64; 4]> = Array::try_from(map)?;
    let [_, _, port_cursor, exhausted] = states.get(&backend.into(), 0)?;
    Ok((port_cursor, exhausted))
}

/// Runs something, and says how often all ports towards a backend were tried in vain meanwhile, and how often that may be.
fn tries_during(
    world: &mut World,
    backend: u16,
    work: impl FnOnce(&World) -> anyhow::Result<()>,
) -> anyhow::Result<(u64, u64)> {
    let (before, _) = tried(world, backend)?;
    let begin = Instant::now();
    work(world)?;
    let most = begin.elapsed().as_millis() as u64 + 2;
    let (after, _) = tried(world, backend)?;
    assert_eq!((after - before) % IN_TURN, 0, "each time all of a turn are tried");
    Ok(((after - before) / IN_TURN, most))
}

fn at_once(kind: Kind) -> anyhow::Result<usize> {
    const MANY: u32 = 3000;
    let mut world = World::new(&[with_ports(kind, &[2])])?;
    for number in 0..2 {
        world.establish(&kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number))?;
    }
    assert_eq!(tried(&mut world, 1)?, (2, 0), "never were all taken");
    let frames: Vec<_> = (0..MANY)
        .map(|number| kind.talk(100 + number, 1).client_opens().bytes())
        .collect();
    let (tries, most) = tries_during(&mut world, 1, |world| {
        for frame in &frames {
            assert_eq!(world.pass(frame)?.1, *frame);
        }
        Ok(())
    })?;
    assert!(
        (1..=most.min(u64::from(MANY) / 2)).contains(&tries),
        "{tries} times, at most {most}"
    );
    let (_, last) = tried(&mut world, 1)?;
    assert_ne!(last, 0);
    for _ in 0..3 {
        jiffies::next()?;
        let (tries, _) = tries_during(&mut world, 1, |world| {
            world.unchanged(
                "in a later jiffy",
                Outcome::PortsExhausted,
                &kind.talk(99, 1).client_opens(),
            )
        })?;
        assert_eq!(tries, 1);
    }
    assert!(tried(&mut world, 1)?.1 > last);
    // And nothing stands in the way once there is a port again.
    aging::entries(&mut world, 2000)?;
    let now = world.dataplane.now()?;
    assert_eq!(world.dataplane.connections().sweep(now), 2);
    later(&mut world)?;
    assert_eq!(world.server_of(&kind.talk(99, 1).client_opens())?, 1);
    Ok(world.checked() + MANY as usize)
}

/// The other backend takes every connection, though it is the first one's turn half of the time.
fn elsewhere(kind: Kind) -> anyhow::Result<usize> {
    const MANY: u16 = 80;
    let mut world = World::new(&[with_ports(kind, &[1, 100])])?;
    world.establish(&kind.talk(0, 1))?;
    let (tries, most) = tries_during(&mut world, 1, |world| {
        for number in 0..MANY {
            let talk = kind.talk(1 + u32::from(number), 2);
            world.open("it has ports", &talk.by_own_port(FIRST_OWN_PORT + number))?;
        }
        Ok(())
    })?;
    assert!((1..=most).contains(&tries), "{tries} times, at most {most}");
    world.both("the first one's", &kind.talk(0, 1), |frame| frame)?;
    Ok(world.checked())
}
