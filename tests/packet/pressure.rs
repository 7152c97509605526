//! A table that is being flooded: living half-open connections have to make room, and while that is so all choices are made
//! by hashing, so that a lost entry does not change the backend.

use std::collections::BTreeSet;

use lb_common::abi::Evictions;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::aging;
use crate::kind::{Flavour, Kind, Mode};
use crate::namespace;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::stateful() {
        if kind.flavour == Flavour::Range || kind.is_ipv4() != kind.is_inside_ipv4() {
            continue;
        }
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("pressure::{title}_{}", kind.slug());
            let run = move || namespace::inside(move || run(kind));
            cases.push(Case::of(kind.cell(), name, run).needs(NetworkNamespaces));
        };
        case("a_flood_evicts_half_open_connections_only", flood);
        if kind.mode != Mode::FullNat {
            case("what_is_evicted_keeps_its_backend", keeps);
        }
        case("old_half_open_connections_are_no_flood", no_flood);
    }
    cases
}

/// Two buckets, at home in which is every connection: eight fit.
const TINY: u32 = 1;
const WAYS: usize = 8;
/// So many young entries that make way are a flood, on however many CPUs they arrive: the tests' packets come on one or two.
const A_FLOOD: u32 = 2 * Evictions::FLOOD as u32 + 50;

fn flooding(kind: Kind) -> anyhow::Result<World> {
    World::with_room(&[kind.service(3)], TINY)
}

/// A client's first packet, to whichever server; `full-nat`'s own ports do not run out, since they are forgotten as well.
fn first_of(world: &World, kind: Kind, client: u32) -> anyhow::Result<u8> {
    world.server_of(&kind.talk(client, 1).client_opens())
}

/// Makes an entry established, as far as the mode's traffic does it.
fn establish(world: &mut World, kind: Kind, client: u32) -> anyhow::Result<Talk> {
    let server = first_of(world, kind, client)?;
    let own_port = world.connection(kind.client(client))?.own_port;
    let talk = kind.talk(client, server).by_own_port(own_port);
    if talk.is_answered() {
        world.pass(&talk.backend_accepts().bytes())?;
        world.pass(&talk.client_says(b"").bytes())?;
    } else {
        world.pass(&talk.client_says(b"").bytes())?;
        aging::entries(world, 2)?;
        world.pass(&talk.client_says(b"").bytes())?;
    }
    assert_eq!(world.connection(talk.client)?.state, State::Established);
    Ok(talk)
}

fn flood(kind: Kind) -> anyhow::Result<usize> {
    let mut world = flooding(kind)?;
    let talks = [
        establish(&mut world, kind, 1)?,
        establish(&mut world, kind, 2)?,
        establish(&mut world, kind, 3)?,
    ];
    let now = |world: &World| world.dataplane.now();
    assert!(!world.dataplane.is_flooded(now(&world)?));
    let rest = WAYS - talks.len();
    // As many as there is room for: nothing is lost.
    for number in 0..rest {
        first_of(&world, kind, 100 + number as u32)?;
    }
    assert_eq!(
        (world.dataplane.counters().evicted()?, world.connections()?.len()),
        (0, WAYS)
    );
    assert!(!world.dataplane.is_flooded(now(&world)?));
    let most = if kind.mode == Mode::FullNat { A_FLOOD } else { 1000 };
    for number in 0..most {
        first_of(&world, kind, 1000 + number)?;
    }
    assert_eq!(world.dataplane.counters().evicted()?, u64::from(most));
    assert!(world.dataplane.is_flooded(now(&world)?));
    assert_eq!(world.connections()?.len(), WAYS);
    for talk in &talks {
        world.both("an established one goes on", talk, |frame| frame)?;
        assert_eq!(world.connection(talk.client)?.state, State::Established);
    }
    Ok(world.checked() + most as usize)
}

/// Opened while the table is flooded, and lost at once: the next packets, and answers, go on as if nothing had been.
fn keeps(kind: Kind) -> anyhow::Result<usize> {
    let world = flooding(kind)?;
    for number in 0..WAYS as u32 + A_FLOOD {
        first_of(&world, kind, 1000 + number)?;
    }
    let mut servers = BTreeSet::new();
    for number in 0..30 {
        let server = first_of(&world, kind, number)?;
        servers.insert(server);
        let talk = kind.talk(number, server);
        for lost in 0..2 * WAYS as u32 {
            first_of(&world, kind, 10_000 + number * 100 + lost)?;
        }
        assert!(
            world.connections()?.iter().all(|it| it.client != talk.client),
            "it is evicted"
        );
        if talk.is_answered() {
            let answer = talk.backend_accepts();
            let expected = Seen::to_client(&talk, &answer).named(Outcome::ToClientUntracked);
            world.expect("an answer", &answer.bytes(), &expected)?;
        }
        let first = talk.client_opens();
        assert_eq!(world.server_of(&first)?, server, "the first packet again");
        for lost in 0..2 * WAYS as u32 {
            first_of(&world, kind, 20_000 + number * 100 + lost)?;
        }
        if kind.is_tcp() {
            let next = talk.client_says(b"data");
            let expected = Seen::to_backend(&talk, &next).named(Outcome::ToBackendAtRisk);
            world.expect("from the middle", &next.bytes(), &expected)?;
            world.forward("and remembered again", &talk, talk.client_says(b"more"))?;
        }
    }
    assert_eq!(
        servers,
        BTreeSet::from([1, 2, 3]),
        "different clients go to different servers"
    );
    Ok(world.checked())
}

/// What has been half-open for long is given up without anybody being under attack: the next connections go in turn.
fn no_flood(kind: Kind) -> anyhow::Result<usize> {
    let mut world = flooding(kind)?;
    let turns = |world: &World, from: u32| {
        (from..from + 6)
            .map(|number| first_of(world, kind, number))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    assert_eq!(turns(&world, 0)?, [1, 2, 3, 1, 2, 3]);
    aging::entries(&mut world, 5)?;
    assert_eq!(
        turns(&world, 100)?,
        [1, 2, 3, 1, 2, 3],
        "two found room, four were given some"
    );
    assert_eq!(world.dataplane.counters().evicted()?, 4);
    let now = world.dataplane.now()?;
    assert!(!world.dataplane.is_flooded(now));
    aging::entries(&mut world, 20)?;
    assert_eq!(
        turns(&world, 200)?,
        [1, 2, 3, 1, 2, 3],
        "what is over makes room without a word"
    );
    assert_eq!(world.dataplane.counters().evicted()?, 4);
    // Now all are young; but a few are no flood.
    assert_eq!(turns(&world, 300)?, [1, 2, 3, 1, 2, 3]);
    assert!(!world.dataplane.is_flooded(world.dataplane.now()?));
    for number in 0..A_FLOOD {
        first_of(&world, kind, 1000 + number)?;
    }
    assert!(world.dataplane.is_flooded(world.dataplane.now()?));
    let by_hash: Vec<_> = (400..430)
        .map(|n| first_of(&world, kind, n))
        .collect::<anyhow::Result<_>>()?;
    let again: Vec<_> = (400..430)
        .map(|n| first_of(&world, kind, n))
        .collect::<anyhow::Result<_>>()?;
    assert_eq!(by_hash, again);
    let in_turn: Vec<_> = [1, 2, 3].into_iter().cycle().take(30).collect();
    assert_ne!(by_hash, in_turn);
    aging::flood(&mut world, 7)?;
    assert_eq!(first_of(&world, kind, 400)?, by_hash[0], "not long ago");
    aging::entries(&mut world, 2000)?;
    aging::flood(&mut world, 9)?;
    assert!(!world.dataplane.is_flooded(world.dataplane.now()?));
    let turns = turns(&world, 500)?;
    assert!(
        turns.windows(2).all(|pair| pair[1] == pair[0] % 3 + 1),
        "in turn again: {turns:?}"
    );
    Ok(90)
}
