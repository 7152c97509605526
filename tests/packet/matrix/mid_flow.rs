//! Packets from the middle of connections that are not known: after a restart, or from another balancer.

use std::collections::BTreeMap;

use anyhow::ensure;
use lb::dataplane::ServiceEntry;
use lb_common::abi::Choice;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use super::{each, within_a_tick};
use crate::kind::{Kind, Mode};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(forwarded(), "mid_flow_without_an_entry", by_hash),
        each(forwarded(), "mid_flow_and_confirmed", |kind| {
            within_a_tick(kind, confirmed)
        }),
        each(forwarded(), "mid_flow_between_two_tables", two_tables),
        each(forwarded(), "mid_flow_and_refused_by_the_backend", refused),
        each(forwarded(), "a_rst_without_an_entry", rst),
        each(full_nat(), "mid_flow_without_an_entry", unknown_ports),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Of TCP: with UDP there is no middle.
fn forwarded() -> Vec<Kind> {
    let mut kinds = Kind::stateful();
    kinds.retain(|kind| kind.is_tcp() && kind.mode != Mode::FullNat);
    kinds
}

fn full_nat() -> Vec<Kind> {
    let mut kinds = Kind::stateful();
    kinds.retain(|kind| kind.is_tcp() && kind.mode == Mode::FullNat);
    kinds
}

/// A client's packet goes to one of a service's servers, under a name; which.
fn goes_somewhere(
    world: &World,
    kind: Kind,
    client: u32,
    outcome: Outcome,
    frame: impl Fn(&Talk) -> crate::frame::Frame,
) -> anyhow::Result<Talk> {
    let sent = frame(&kind.talk(client, 1));
    let seen = world.run(&sent.bytes())?;
    let id = *seen.backends.keys().next().expect("a backend got it");
    let talk = kind.talk(client, id as u8);
    let expected = Seen::to_backend(&talk, &sent).named(outcome);
    assert!(
        seen == expected,
        "client {client}: {}",
        seen.difference(&expected)
    );
    Ok(talk)
}

fn is(world: &World, talk: &Talk, state: State) -> anyhow::Result<()> {
    let connection = world.connection(talk.client)?;
    ensure!(connection.state == state, "{connection:?}, not {state:?}");
    Ok(())
}

/// Always to the same server for the same client, whichever balancer of the fleet it is; and different clients go to
/// different servers.
fn by_hash(kind: Kind) -> anyhow::Result<usize> {
    const CLIENTS: u32 = 300;
    let worlds = [World::new(&[kind.service(3)])?, World::new(&[kind.service(3)])?];
    for number in 0..2 {
        worlds[1].pass(&kind.talk(10_000 + number, 1).client_opens().bytes())?; // the cursor stands elsewhere
    }
    let mut shares = BTreeMap::<u16, u32>::new();
    for number in 0..CLIENTS {
        let mut chosen = Vec::new();
        for world in &worlds {
            let data = |talk: &Talk| talk.client_says(b"data");
            let talk = goes_somewhere(world, kind, number, Outcome::ToBackendAtRisk, data)?;
            chosen.push(talk.backend.id);
        }
        assert_eq!(chosen[0], chosen[1], "client {number}");
        *shares.entry(chosen[0]).or_default() += 1;
    }
    assert!(
        shares.len() == 3 && shares.values().all(|share| (70..130).contains(share)),
        "{shares:?}"
    );
    Ok(worlds.iter().map(World::checked).sum::<usize>() + 1)
}

/// Half-open, until somebody shows that there is such a connection.
fn confirmed(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(3)])?;
    let data = |talk: &Talk| talk.client_says(b"data");
    let talk = goes_somewhere(&world, kind, 1, Outcome::ToBackendAtRisk, data)?;
    is(&world, &talk, State::Unconfirmed)?;
    world.forward("more data", &talk, talk.client_says(b"more"))?;
    is(&world, &talk, State::Unconfirmed)?;
    if talk.is_answered() {
        world.answer("the backend knows it", &talk, talk.backend_says(b"yes"))?;
    } else {
        world.forward("it goes on", &talk, talk.client_says(b"more"))?;
        world.forward("and on", &talk, talk.client_says(b"more"))?;
    }
    is(&world, &talk, State::Established)?;
    Ok(world.checked() + 1)
}

/// A service that chooses by hashing: where the present and the previous table agree, nothing is at risk; where they do not,
/// to where the connection must have been before, while that is up.
fn two_tables(kind: Kind) -> anyhow::Result<usize> {
    const CLIENTS: u32 = 200;
    let service = |slots: &[u16], previous: &[u16], first_is_up: bool| {
        let mut service = ServiceEntry {
            choice: Choice::Hash,
            slots: slots.to_vec(),
            previous_slots: previous.to_vec(),
            ..kind.service(3)
        };
        service.backends[0].up = first_is_up;
        service
    };
    let data = |talk: &Talk| talk.client_says(b"data");
    // Slots of 1 became slots of 3; those of 2 stayed.
    let (before, after) = ([1, 2, 1, 2, 1, 2, 1, 2], [3, 2, 3, 2, 3, 2, 3, 2]);
    let fresh = |first_is_up, previous: &[u16]| World::new(&[service(&after, previous, first_is_up)]);
    let (up, down, alone) = (fresh(true, &before)?, fresh(false, &before)?, fresh(true, &[])?);
    let old = World::new(&[service(&before, &[], true)])?;
    let mut moved = 0;
    for number in 0..CLIENTS {
        let was = goes_somewhere(&old, kind, number, Outcome::ToBackend, data)?
            .backend
            .id;
        let (outcome, is) = if was == 1 {
            (Outcome::ToBackendAtRisk, 3)
        } else {
            (Outcome::ToBackend, 2)
        };
        moved += u32::from(was == 1);
        let to = |world: &World, outcome| {
            goes_somewhere(world, kind, number, outcome, data).map(|it| it.backend.id)
        };
        assert_eq!(to(&up, outcome)?, was, "it stays while its backend is up");
        assert_eq!(to(&down, outcome)?, is, "it moves if not");
        assert_eq!(
            to(&alone, Outcome::ToBackend)?,
            is,
            "nothing is known of a previous table"
        );
        let first = kind.talk(number + 1000, 1).client_opens();
        up.pass(&first.bytes())?;
    }
    assert!((60..140).contains(&moved), "{moved}");
    let new: Vec<_> = up.connections()?.iter().map(|c| (c.state, c.backend)).collect();
    assert!(
        new.iter().all(|(state, id)| *state != State::SynSeen || *id != 1),
        "new ones go by the present table"
    );
    assert!(new.iter().any(|(state, _)| *state == State::SynSeen));
    Ok(1)
}

fn refused(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let data = |talk: &Talk| talk.client_says(b"data");
    let talk = goes_somewhere(&world, kind, 1, Outcome::ToBackendAtRisk, data)?;
    if talk.is_answered() {
        world.answer("never heard of it", &talk, talk.backend_sends().rst())?;
    } else {
        world.forward(
            "the client was told past the balancer",
            &talk,
            talk.client_sends().rst(),
        )?;
    }
    assert_eq!(world.connection(talk.client)?.state, State::Closed);
    world.open("SYN", &talk)?;
    Ok(world.checked() + 1)
}

/// The end of a connection that is not known: nothing to remember.
fn rst(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let rows: [fn(&Talk) -> crate::frame::Frame; 3] = [
        |talk| talk.client_sends().rst(),
        |talk| talk.client_sends().rst().ack(),
        |talk| talk.client_sends().rst().syn(),
    ];
    for row in rows {
        goes_somewhere(&world, kind, 1, Outcome::ToBackendAtRisk, row)?;
    }
    assert_eq!(world.connections()?, []);
    Ok(rows.len())
}

/// Whatever own port it had is not known any more, and another one would be another connection: the client is told.
fn unknown_ports(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let talk = kind.talk(1, 1);
    for (purpose, frame) in [
        ("data", talk.client_says(b"data")),
        ("FIN", talk.client_says(b"").fin()),
        ("SYN-ACK", talk.client_sends().syn().ack()),
        ("nothing at all", talk.client_sends()),
    ] {
        let expected = Seen::refused(Outcome::FullNatUnknown, &frame);
        world.expect(purpose, &frame.bytes(), &expected)?;
    }
    for frame in [talk.client_sends().rst(), talk.client_sends().rst().syn()] {
        world.unchanged("RST", Outcome::RstForNobody, &frame)?;
    }
    assert_eq!(world.connections()?, [], "nothing is remembered");
    world.unchanged(
        "from the backend",
        Outcome::NoConnection,
        &talk.backend_says(b"?"),
    )?;
    Ok(world.checked())
}
