//! Connections without an entry, since the table is full or flooded: that all of their packets go to one backend even while
//! the slots change, and that nobody else's are taken for theirs.

use std::collections::BTreeSet;

use lb::dataplane::{BackendEntry, ServiceEntry};
use lb_common::abi::Choice;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::aging;
use crate::frame::{Frame, Says};
use crate::kind::{Flavour, Kind, Mode, one_port};
use crate::namespace;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::stateful() {
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("unremembered::{title}_{}", kind.slug());
            let run = move || namespace::inside(move || run(kind));
            cases.push(Case::of(kind.cell(), name, run).needs(NetworkNamespaces));
        };
        if kind.mode != Mode::FullNat {
            case("while_the_table_is_full_and_slots_change", full);
            case("while_the_table_is_flooded_and_slots_change", flooded);
        }
        if kind.mode == Mode::Nat && kind.flavour == Flavour::Plain {
            case("direct_access_while_the_table_is_flooded", direct_access);
            case("not_to_an_endpoint_of_several_services", shared);
        }
    }
    cases
}

/// Two buckets, at home in which is every connection: eight fit.
const TINY: u32 = 1;
const WAYS: u32 = 8;

/// Slots of `web1` become slots of `web3`; those of `web2` stay.
const BEFORE: [u16; 8] = [1, 2, 1, 2, 1, 2, 1, 2];
const AFTER: [u16; 8] = [3, 2, 3, 2, 3, 2, 3, 2];

fn hashing(kind: Kind, slots: &[u16], previous: &[u16]) -> ServiceEntry {
    ServiceEntry {
        choice: Choice::Hash,
        slots: slots.to_vec(),
        previous_slots: previous.to_vec(),
        ..kind.service(3)
    }
}

/// Fills the smallest table with connections that must stay.
fn fill(world: &World, kind: Kind) -> anyhow::Result<Vec<Talk>> {
    let mut talks = Vec::new();
    for number in 0..WAYS {
        let number = 1000 + number;
        let server = world.server_of(&kind.talk(number, 1).client_opens())?;
        let talk = kind.talk(number, server);
        if talk.is_answered() {
            world.pass(&talk.backend_accepts().bytes())?;
        }
        for _ in 0..3 {
            world.pass(&talk.client_says(b"x").bytes())?;
        }
        assert_eq!(world.connection(talk.client)?.state, State::Established);
        talks.push(talk);
    }
    Ok(talks)
}

/// Those of a flood push each other out of the table, and whatever else is half-open.
fn strangers(world: &World, kind: Kind, first: u32, count: u32) -> anyhow::Result<()> {
    for number in first..first + count {
        world.pass(&kind.talk(number, 1).client_opens().bytes())?;
    }
    Ok(())
}

/// Each client's connection, with the server that it had by the slots before.
fn of_clients(world: &World, kind: Kind, count: u32) -> anyhow::Result<Vec<Talk>> {
    let talks = (0..count).map(|number| {
        let server = world.server_of(&kind.talk(number, 1).client_opens())?;
        anyhow::Ok(kind.talk(number, server))
    });
    let talks = talks.collect::<anyhow::Result<Vec<_>>>()?;
    let servers: BTreeSet<_> = talks.iter().map(|talk| talk.backend.id).collect();
    assert_eq!(servers, BTreeSet::from([1, 2]));
    Ok(talks)
}

/// What the client sends, to and fro between the beginning and the middle of its connection.
fn packets(talk: &Talk) -> [(&'static str, Frame); 4] {
    [
        ("the first packet", talk.client_opens()),
        ("data", talk.client_says(b"data")),
        ("the first packet again", talk.client_opens()),
        ("more data", talk.client_says(b"more")),
    ]
}

/// An error about what the backend has sent to the client gets there as well.
fn is_told(world: &World, kind: Kind, talk: &Talk) -> anyhow::Result<()> {
    let about = talk.backend_says(b"");
    let quoted = about.packet.header_length() + 8;
    let error = talk.error_from_clients_side(&about, Says::TooBig(1400), kind.router_address(), quoted);
    let expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(&error));
    world.expect("an error", &error.bytes(), &expected)
}

fn full(kind: Kind) -> anyhow::Result<usize> {
    const CLIENTS: u32 = 40;
    let mut world = World::with_room(&[hashing(kind, &BEFORE, &[])], TINY)?;
    let kept = fill(&world, kind)?;
    let talks = of_clients(&world, kind, CLIENTS)?;
    let untracked = |world: &World, talk: &Talk, purpose: &str, frame: &Frame| {
        let expected = Seen::to_backend(talk, frame).named(Outcome::ToBackendUntracked);
        world.expect(purpose, &frame.bytes(), &expected)
    };

    world.publish(&[hashing(kind, &AFTER, &BEFORE)])?;
    for (number, talk) in talks.iter().enumerate() {
        // Half of them have begun before the change, and are in their middle.
        for (purpose, frame) in &packets(talk)[number % 2..] {
            untracked(&world, talk, purpose, frame)?;
        }
        if talk.is_answered() {
            let answer = talk.backend_says(b"answer");
            let expected = Seen::to_client(talk, &answer).named(Outcome::ToClientUntracked);
            world.expect("an answer", &answer.bytes(), &expected)?;
        }
        is_told(&world, kind, talk)?;
    }

    // Where its backend is down there is nothing to keep.
    let mut service = hashing(kind, &AFTER, &BEFORE);
    service.backends[0].up = false;
    world.publish(&[service])?;
    for (number, talk) in (0..).zip(&talks) {
        let server = if talk.backend.id == 1 { 3 } else { 2 };
        let talk = kind.talk(number, server);
        for (purpose, frame) in &packets(&talk) {
            untracked(&world, &talk, purpose, frame)?;
        }
        is_told(&world, kind, &talk)?;
    }
    for talk in kept.iter().filter(|talk| talk.backend.id != 1) {
        world.both("those that are in the table", talk, |frame| frame)?;
    }
    assert_eq!(world.connections()?.len(), WAYS as usize);
    Ok(world.checked())
}

/// Each packet is the only one that finds its connection's entry, or does not find it.
fn flooded(kind: Kind) -> anyhow::Result<usize> {
    const CLIENTS: u32 = 20;
    let old = World::new(&[hashing(kind, &BEFORE, &[])])?;
    let talks = of_clients(&old, kind, CLIENTS)?;
    let mut world = World::with_room(&[hashing(kind, &AFTER, &BEFORE)], TINY)?;
    aging::flood(&mut world, 2, 0)?;
    assert!(world.dataplane.is_flooded(world.dataplane.now()?));
    for (number, talk) in (1..).zip(&talks) {
        for (round, (purpose, frame)) in packets(talk).into_iter().enumerate() {
            let mut expected = if !kind.is_tcp() || round % 2 == 0 {
                Seen::opening(talk, &frame)
            } else {
                Seen::to_backend(talk, &frame)
            };
            if kind.is_tcp() && round % 2 == 1 && talk.backend.id == 1 {
                expected = expected.named(Outcome::ToBackendAtRisk);
            }
            world.expect(purpose, &frame.bytes(), &expected)?;
            // Whether or not a tick ends just now, it is older than all that come.
            aging::entries(&mut world, 1)?;
            strangers(&world, kind, 200_000 + number * 1000, 2 * WAYS)?;
            assert!(world.connections()?.iter().all(|it| it.client != talk.client));
        }
        if talk.is_answered() {
            let answer = talk.backend_accepts();
            let expected = Seen::to_client(talk, &answer).named(Outcome::ToClientUntracked);
            world.expect("an answer", &answer.bytes(), &expected)?;
        }
    }
    Ok(world.checked())
}

/// Whoever talks to a backend directly gets its own answers while somebody else floods the table: only what may be the answer
/// to a connection that was lost as it began is taken for one.
fn direct_access(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::with_room(&[kind.service(3)], TINY)?;
    let direct = kind.talk(7, 1);
    let mut middle = vec![("data", direct.backend_says(b"data"))];
    if kind.is_tcp() {
        middle.push(("an acknowledgment", direct.backend_says(b"")));
        middle.push(("FIN", direct.backend_says(b"").fin()));
        middle.push(("RST", direct.backend_sends().rst()));
        middle.push(("RST and ACK", direct.backend_sends().rst().ack()));
    }
    let first = direct.backend_accepts();
    world.unchanged("nobody floods", Outcome::NoConnection, &first)?;
    for (purpose, frame) in &middle {
        world.unchanged(purpose, Outcome::NoConnection, frame)?;
    }
    aging::flood(&mut world, 2, 0)?;
    strangers(&world, kind, 1000, 50)?;
    let rewritten = |frame: &Frame| Seen::to_client(&direct, frame).named(Outcome::ToClientUntracked);
    world.expect("the first answer", &first.bytes(), &rewritten(&first))?;
    for (purpose, frame) in &middle {
        if kind.is_tcp() {
            world.unchanged(purpose, Outcome::NoConnection, frame)?;
        } else {
            world.expect(purpose, &frame.bytes(), &rewritten(frame))?;
        }
    }
    Ok(world.checked())
}

/// Whose answers they were nobody could tell without an entry.
fn shared(kind: Kind) -> anyhow::Result<usize> {
    let again = BackendEntry {
        id: 77,
        ..kind.backend(1)
    };
    let second = ServiceEntry {
        number: 2,
        ports: one_port(8080),
        ..kind.service_of(vec![again])
    };
    // The first service's second server is its own.
    let world = World::with_room(&[kind.service(2), second], TINY)?;
    let kept = fill(&world, kind)?;
    let (mut refused, mut untracked) = (0, 0);
    for number in 0..30 {
        let own = kind.talk(number, 2);
        for frame in [own.client_opens(), own.client_says(b"data")] {
            let seen = world.run(&frame.bytes())?;
            let (there, nowhere) = (
                Seen::to_backend(&own, &frame).named(Outcome::ToBackendUntracked),
                Seen::unchanged(Outcome::TableFull, &frame.bytes()),
            );
            assert!(
                seen == there || seen == nowhere,
                "client {number}: {}",
                seen.difference(&nowhere)
            );
            if seen == there {
                untracked += 1;
            } else {
                refused += 1;
            }
        }
        let elsewhere = own.clone().at_port(8080).client_opens();
        world.unchanged("to the other service", Outcome::TableFull, &elsewhere)?;
        let answer = kind.talk(number, 1).backend_accepts();
        world.unchanged("from the shared endpoint", Outcome::NoConnection, &answer)?;
    }
    assert!(refused > 10 && untracked > 10, "{refused}, {untracked}");
    for talk in &kept {
        world.both("those that are in the table", talk, |frame| frame)?;
    }
    assert_eq!(world.connections()?.len(), WAYS as usize);
    Ok(world.checked() + refused + untracked)
}
