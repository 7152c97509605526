//! Modes in which the backend's answers do not come by the balancer: what says that a connection lives, and what need not be
//! remembered.

use anyhow::Context as _;
use aya::maps::Array;
use lb_common::return_hop::RETURN_HOPS;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use crate::aging;
use crate::frame::Frame;
use crate::kind::{FIRST_OWN_PORT, Flavour, Kind};
use crate::talk::Talk;
use crate::world::{TIMEOUTS, World, was_noted};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::stateful() {
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("one_sided::{title}_{}", kind.slug());
            cases.push(Case::of(kind.cell(), name, move || run(kind)));
        };
        if !kind.is_answered() {
            case("busy_for_a_moment_and_then_idle", idle);
        }
        if kind.flavour == Flavour::Plain {
            case("only_who_is_answered_has_a_way_back", ways_back);
        }
    }
    cases
}

/// The end of the handshake, a request, what acknowledges the response; or as many datagrams.
const GOES_ON: [&[u8]; 3] = [b"", b"request", b""];

/// Within a tick: what goes on in a later one is in `matrix`.
fn idle(kind: Kind) -> anyhow::Result<usize> {
    let [half_open, of_established, _] = TIMEOUTS;
    let mut world = World::new(&[kind.service(1)])?;
    let lives = kind.talk(1, 1);
    world.open("one", &lives)?;
    for payload in GOES_ON {
        world.forward("it goes on", &lives, lives.client_says(payload))?;
    }
    let entry = world.connection(lives.client)?;
    assert_eq!(entry.state, State::Established);
    assert!(was_noted(&entry, 0, of_established), "{entry:?}");
    let stops = one_that_stops(&world, kind)?;

    aging::entries(&mut world, half_open + 2)?;
    let now = world.dataplane.now()?;
    assert!(world.dataplane.connections().sweep(now) >= 1);
    assert!(world.connections()?.iter().all(|it| it.client != stops.client));
    world.forward("and on, after a while", &lives, lives.client_says(b"again"))?;
    assert_eq!(world.connection(lives.client)?.state, State::Established);
    Ok(world.checked())
}

/// Another connection, whose client stops when one packet is missing.
fn one_that_stops(world: &World, kind: Kind) -> anyhow::Result<Talk> {
    for number in 2.. {
        let begin = world.dataplane.now()?;
        let stops = kind.talk(number, 1);
        world.open("another", &stops)?;
        for payload in &GOES_ON[1..] {
            world.forward("not for long", &stops, stops.client_says(payload))?;
            if kind.is_tcp() && *payload == GOES_ON[1] {
                assert_eq!(world.connection(stops.client)?.state, State::Unconfirmed);
            }
        }
        // In the next tick it would be established.
        if world.dataplane.now()? == begin {
            assert_eq!(world.connection(stops.client)?.state, State::Unconfirmed);
            return Ok(stops);
        }
    }
    unreachable!("there is no last client")
}

/// Routers, each with clients of its own.
const ROUTERS: u8 = 20;

/// Numbers of ways back are few: those that nobody asks for take none.
fn ways_back(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[kind.service(1)])?;
    for number in 0..ROUTERS {
        let talk = Talk {
            router: [0x02, 0, 0, 0, 7, number],
            ..kind
                .talk(number.into(), 1)
                .by_own_port(FIRST_OWN_PORT + u16::from(number))
        };
        world.establish(&talk)?;
        world.both("data", &talk, |frame| frame)?;
        let fragments: Vec<Frame> = talk.client_says(&[1; 900]).fragments(&[480]);
        for fragment in fragments {
            world.pass(&fragment.bytes())?;
        }
    }
    let expected = if kind.is_answered() { ROUTERS } else { 0 };
    assert_eq!(known_ways(&mut world)?, usize::from(expected));
    Ok(world.checked())
}

/// How many ways back are remembered.
fn known_ways(world: &mut World) -> anyhow::Result<usize> {
    const NAME: &str = "RETURN_HOP_TABLE";
    let map = world.dataplane.ebpf_mut().map_mut(NAME).context(NAME)?;
    let hops: Array<_, [u64; 2]> = Array::try_from(map)?;
    let mut known = 0;
    for number in 0..RETURN_HOPS {
        known += usize::from(hops.get(&number, 0)? != [0, 0]);
    }
    Ok(known)
}
