//! What a stranger can do who forges a client's address, and whom nobody can tell from the client: cut no connection, and hold
//! no place against others.

use lb_common::outcome::Outcome;
use lb_common::tcp_state::{State, TimeoutClass};
use lb_tests::harness::Case;

use crate::aging;
use crate::frame::Frame;
use crate::kind::{FIRST_OWN_PORT, Flavour, Kind};
use crate::talk::Talk;
use crate::world::{TIMEOUTS, World};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::stateful() {
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("forged::{title}_{}", kind.slug());
            cases.push(Case::of(kind.cell(), name, move || run(kind)));
        };
        if kind.is_tcp() {
            case("a_rst_and_a_syn_cut_no_connection", rst_and_syn);
            case("a_syn_after_the_end_is_a_new_connection", after_the_end);
        } else if kind.is_answered() {
            case("an_answered_datagram_holds_no_place", answered);
            if kind.flavour == Flavour::Plain {
                case("answered_datagrams_make_way", make_way);
            }
        }
    }
    cases
}

/// The entry is the connection's still, and is nobody's whose handshake goes on.
fn is_whole(world: &World, talk: &Talk, purpose: &str) -> anyhow::Result<()> {
    let entry = world.connection(talk.client)?;
    let own_port = if entry.own_port == 0 { 0 } else { talk.own_port };
    assert_eq!(
        (entry.backend, entry.own_port),
        (talk.backend.id, own_port),
        "{purpose}: {entry:?}"
    );
    assert_ne!(
        entry.state.timeout_class(),
        TimeoutClass::HalfOpen,
        "{purpose}: {entry:?}"
    );
    Ok(())
}

/// A stranger's segment, and its name.
type Forgery = (&'static str, fn(&Talk) -> Frame);

/// With other sequence numbers than the connection's: the program keeps none, and the backend takes none of them.
fn rst_and_syn(kind: Kind) -> anyhow::Result<usize> {
    let mut checked = 0;
    let forgeries: [Forgery; 3] = [
        ("RST", |talk| talk.client_sends().sequence(77).rst()),
        ("SYN", |talk| talk.client_sends().sequence(99).syn()),
        ("FIN", |talk| talk.client_sends().sequence(11).ack().fin()),
    ];
    for order in [
        &[0, 1][..],
        &[1, 0],
        &[0, 1, 0, 1],
        &[2, 1],
        &[2, 0, 1],
        &[0, 0, 1, 1],
    ] {
        // Two servers: a new choice would be the other one's.
        let mut world = World::new(&[kind.service(2)])?;
        let talk = kind.talk(1, 1);
        world.establish(&talk)?;
        world.both("data", &talk, |frame| frame)?;
        world.forward("data, so that it is established", &talk, talk.client_says(b"x"))?;
        assert_eq!(world.connection(talk.client)?.state, State::Established);
        for forgery in order {
            let (name, forged) = forgeries[*forgery];
            let purpose = format!("{order:?}: forged {name}");
            world.forward(&purpose, &talk, forged(&talk))?;
            is_whole(&world, &talk, &purpose)?;
        }
        // Longer than a handshake is given, and what is over goes.
        aging::entries(&mut world, TIMEOUTS[0] + 2)?;
        let now = world.dataplane.now()?;
        assert_eq!(world.dataplane.connections().sweep(now), 0, "{order:?}");
        if talk.is_answered() {
            world.answer("its answers go on", &talk, talk.backend_says(b"y"))?;
            is_whole(&world, &talk, "an answer")?;
        }
        world.both("so does the client", &talk, |frame| frame)?;
        is_whole(&world, &talk, "data")?;
        checked += world.checked();
    }
    Ok(checked)
}

fn after_the_end(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let first = kind.talk(1, 1);
    world.open("SYN", &first)?;
    if first.is_answered() {
        world.answer("SYN-ACK", &first, first.backend_accepts())?;
        world.forward("ACK", &first, first.client_says(b""))?;
        world.forward("FIN", &first, first.client_says(b"").fin())?;
        world.answer("FIN", &first, first.backend_says(b"").fin())?;
    } else {
        world.forward("RST of what is half-open", &first, first.client_sends().rst())?;
    }
    assert_eq!(world.connection(first.client)?.state, State::Closed);
    let second = kind.talk(1, 2);
    world.establish(&second)?;
    world.both("the new one", &second, |frame| frame)?;
    assert_eq!(world.connection(first.client)?.backend, 2);
    Ok(world.checked())
}

/// The backend answers whomever a datagram seems to be from; that the client goes on proves that it is there.
fn answered(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.open("a query", &talk)?;
    for payload in [b"one", b"two"] {
        world.answer("an answer", &talk, talk.backend_says(payload))?;
        let state = world.connection(talk.client)?.state;
        assert_eq!(state.timeout_class(), TimeoutClass::HalfOpen, "{state:?}");
    }
    let stranger = kind.talk(2, 1).by_own_port(FIRST_OWN_PORT + 1);
    world.open("another query", &stranger)?;
    world.answer("and its answer", &stranger, stranger.backend_says(b"one"))?;
    world.forward("the client goes on", &talk, talk.client_says(b"more"))?;
    assert_eq!(world.connection(talk.client)?.state, State::Established);
    aging::entries(&mut world, TIMEOUTS[0] + 2)?;
    let now = world.dataplane.now()?;
    assert_eq!(world.dataplane.connections().sweep(now), 1, "the other one");
    world.both("it is kept", &talk, |frame| frame)?;
    world.unchanged(
        "the other one's",
        Outcome::NoConnection,
        &stranger.backend_says(b"?"),
    )?;
    Ok(world.checked())
}

/// The smallest table has room for so many connections.
const WAYS: u16 = 8;

fn make_way(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::with_room(&[kind.service(1)], 1)?;
    aging::flood(&mut world, 2, 0)?;
    let evicted = world.dataplane.counters().evicted()?;
    let talk = |number: u16| kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number);
    let kept = talk(0);
    world.establish(&kept)?;
    for number in 1..4 * WAYS {
        let forged = talk(number);
        world.open("a query", &forged)?;
        world.answer("its answer", &forged, forged.backend_says(b"!"))?;
        assert_eq!(world.connection(forged.client)?.state, State::SynAckSeen);
    }
    assert_eq!(world.connections()?.len(), usize::from(WAYS));
    let evicted = world.dataplane.counters().evicted()? - evicted;
    assert_eq!(evicted, u64::from(3 * WAYS));
    world.both("one whose client went on", &kept, |frame| frame)?;
    Ok(world.checked())
}
