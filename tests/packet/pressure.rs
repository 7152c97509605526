//! A table that is being flooded: half-open connections have to make room. Those that are but seconds old only once all that
//! there are were chosen for by hashing, so that a lost entry does not change the backend; until then, new ones do without.

use std::collections::BTreeSet;

use lb::dataplane::LoadOptions;
use lb_common::abi::Evictions;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::aging;
use crate::kind::{Flavour, Kind, Mode};
use crate::namespace;
use crate::pool::OPTIONS;
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
        // Programs that nobody has used before are dear: of each kind of key, and of each way to see a connection, one does.
        let is_chosen = kind.is_tcp() == kind.is_ipv4() || kind.mode == Mode::Nat;
        match kind.mode {
            Mode::FullNat if is_chosen => case("a_flood_evicts_half_open_connections_only", full_nat),
            Mode::FullNat => {}
            _ => {
                case("what_is_evicted_keeps_its_backend", keeps);
                if is_chosen && kind.mode != Mode::Ipip {
                    case("a_flood_evicts_half_open_connections_only", flood);
                    case("old_half_open_connections_are_no_flood", no_flood);
                }
            }
        }
    }
    cases
}

/// Two buckets, at home in which is every connection: eight fit.
const TINY: LoadOptions = LoadOptions {
    max_connections: 1,
    max_wide_connections: 1,
    ..OPTIONS
};
const WAYS: usize = 8;
/// So many in a moment are a flood, whichever of the CPUs they come in by.
const FLOOD: u32 = Evictions::FLOOD as u32 * 16;

/// Somebody whom nothing is known of.
struct Strangers(u32);

impl Strangers {
    /// So many open connections.
    fn come(&mut self, world: &World, kind: Kind, many: u32) -> anyhow::Result<()> {
        for _ in 0..many {
            self.0 += 1;
            world.pass(&kind.talk(self.0, 1).client_opens().bytes())?;
        }
        Ok(())
    }
}

/// The server that a client's first packet goes to.
fn first_of(world: &World, kind: Kind, client: u32) -> anyhow::Result<u8> {
    world.server_of(&kind.talk(client, 1).client_opens())
}

/// Makes an entry established, as far as the mode's traffic does it.
fn establish(world: &World, kind: Kind, client: u32) -> anyhow::Result<Talk> {
    let server = first_of(world, kind, client)?;
    let own_port = world.connection(kind.client(client))?.own_port;
    let talk = kind.talk(client, server).by_own_port(own_port);
    if talk.is_answered() {
        world.pass(&talk.backend_accepts().bytes())?;
    }
    for _ in 0..3 {
        world.pass(&talk.client_says(b"").bytes())?;
    }
    assert_eq!(world.connection(talk.client)?.state, State::Established);
    Ok(talk)
}

fn go_on(world: &World, talks: &[Talk]) -> anyhow::Result<()> {
    for talk in talks {
        world.both("an established one goes on", talk, |frame| frame)?;
        assert_eq!(world.connection(talk.client)?.state, State::Established);
    }
    Ok(())
}

fn flood(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::alone(&[kind.service(3)], TINY)?;
    let talks = [1, 2, 3].map(|client| establish(&world, kind, client));
    let talks = talks.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let is_flooded =
        |world: &World| -> anyhow::Result<bool> { Ok(world.dataplane.is_flooded(world.dataplane.now()?)) };
    // As many as there is room for, chosen for in turn: nothing is lost.
    let young: Vec<_> = (0..(WAYS - talks.len()) as u32)
        .map(|number| first_of(&world, kind, 100 + number).map(|server| kind.talk(100 + number, server)))
        .collect::<anyhow::Result<_>>()?;
    assert!(!is_flooded(&world)?);

    let mut strangers = Strangers(1000);
    let counted = world.counting(|| strangers.come(&world, kind, 3))?;
    assert_eq!(
        counted,
        [(Outcome::ToBackendUntracked.name(), 3)].into(),
        "a few do without"
    );
    assert!(!is_flooded(&world)?, "a few are no flood");
    let counted = world.counting(|| strangers.come(&world, kind, FLOOD))?;
    assert_eq!(
        counted,
        [(Outcome::ToBackendUntracked.name(), u64::from(FLOOD))].into()
    );
    assert!(is_flooded(&world)?);
    assert_eq!(world.dataplane.counters().evicted()?, 0);
    for talk in &young {
        world.forward("those that were before it go on", talk, talk.client_opens())?;
    }
    go_on(&world, &talks)?;

    // When all that are young were chosen for by hashing, they make room for each other.
    aging::flood(&mut world, 2, 0)?;
    let counted = world.counting(|| strangers.come(&world, kind, FLOOD))?;
    assert_eq!(counted, [(Outcome::ToBackend.name(), u64::from(FLOOD))].into());
    assert_eq!(world.dataplane.counters().evicted()?, u64::from(FLOOD));
    assert_eq!(world.connections()?.len(), WAYS);
    go_on(&world, &talks)?;
    Ok(world.checked() + 2)
}

/// Without an entry a new connection could not be served: it takes a half-open one's place at once, and its port with it.
fn full_nat(kind: Kind) -> anyhow::Result<usize> {
    let world = World::alone(&[kind.service(3)], TINY)?;
    let talks = [1, 2, 3].map(|client| establish(&world, kind, client));
    let talks = talks.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut strangers = Strangers(1000);
    strangers.come(&world, kind, (WAYS - talks.len()) as u32)?;
    assert_eq!(world.dataplane.counters().evicted()?, 0);
    // As long as there are ports that have rested.
    let counted = world.counting(|| strangers.come(&world, kind, 200))?;
    assert_eq!(counted, [(Outcome::ToBackend.name(), 200)].into());
    assert_eq!(world.dataplane.counters().evicted()?, 200);
    assert_eq!(world.connections()?.len(), WAYS);
    go_on(&world, &talks)?;
    Ok(world.checked() + 1)
}

/// Opened while the table is flooded, and lost at once: the next packets, and answers, go on as if nothing had been.
fn keeps(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::with_options(&[kind.service(3)], TINY)?;
    aging::flood(&mut world, 2, 0)?;
    let mut strangers = Strangers(1000);
    let mut servers = BTreeSet::new();
    for number in 0..30 {
        let server = first_of(&world, kind, number)?;
        servers.insert(server);
        let talk = kind.talk(number, server);
        // Whether or not a tick ends just now, it is older than all that come.
        aging::entries(&mut world, 1)?;
        strangers.come(&world, kind, 2 * WAYS as u32)?;
        assert!(
            world.connections()?.iter().all(|it| it.client != talk.client),
            "it is evicted"
        );
        if talk.is_answered() {
            let answer = talk.backend_accepts();
            let expected = Seen::to_client(&talk, &answer).named(Outcome::ToClientUntracked);
            world.expect("an answer", &answer.bytes(), &expected)?;
        }
        assert_eq!(
            world.server_of(&talk.client_opens())?,
            server,
            "the first packet again"
        );
        aging::entries(&mut world, 1)?;
        strangers.come(&world, kind, 2 * WAYS as u32)?;
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
    let mut world = World::alone(&[kind.service(3)], TINY)?;
    let turns = |world: &World, from: u32| {
        let clients = from..from + 6;
        clients
            .map(|number| first_of(world, kind, number))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let evicted = |world: &World| world.dataplane.counters().evicted();
    assert_eq!(turns(&world, 0)?, [1, 2, 3, 1, 2, 3]);
    aging::entries(&mut world, 5)?;
    assert_eq!(
        turns(&world, 100)?,
        [1, 2, 3, 1, 2, 3],
        "two found room, four were given some"
    );
    assert_eq!(evicted(&world)?, 4);
    aging::entries(&mut world, 20)?;
    assert_eq!(
        turns(&world, 200)?,
        [1, 2, 3, 1, 2, 3],
        "what is over makes room without a word"
    );
    assert_eq!(evicted(&world)?, 4);
    assert!(!world.dataplane.is_flooded(world.dataplane.now()?));

    // During a flood, and for a while after it, by hashing.
    aging::flood(&mut world, 9, 7)?;
    let by_hash = turns(&world, 400)?;
    assert_eq!(turns(&world, 400)?, by_hash);
    aging::entries(&mut world, 2000)?;
    aging::flood(&mut world, 12, 9)?;
    assert_eq!(
        turns(&world, 500)?,
        turns_from(turns(&world, 600)?[0]),
        "in turn again"
    );
    Ok(40)
}

/// Six turns, of three servers, of which this one is the first; it was its turn six turns later as well.
fn turns_from(first: u8) -> Vec<u8> {
    (0..6).map(|number| (first - 1 + number) % 3 + 1).collect()
}
