//! How long connections are remembered, what confirms them, and when a client's port is another connection's.

use anyhow::ensure;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_common::tick::slack;
use lb_tests::harness::Case;

use super::{each, established, within_a_tick};
use crate::aging;
use crate::kind::Kind;
use crate::talk::Talk;
use crate::world::{TIMEOUTS, World, was_noted};

pub fn cases() -> Vec<Case> {
    [
        each(one_sided(), "confirmed_by_traffic_in_a_later_tick", |kind| {
            within_a_tick(kind, later_tick)
        }),
        each(one_sided(), "confirmed_by_several_packets", |kind| {
            within_a_tick(kind, goes_on)
        }),
        each(Kind::stateful(), "timeouts_of_every_state", |kind| {
            within_a_tick(kind, timeouts)
        }),
        each(Kind::stateful(), "what_is_over_but_not_swept_goes_on", over),
        each(Kind::stateful(), "a_sweep_removes_what_is_over", sweep),
        each(
            two_sided_tcp(),
            "a_port_is_reused_when_its_connection_is_over",
            reused,
        ),
        each(
            one_sided_tcp(),
            "a_port_is_reused_when_its_connection_is_over",
            reused_one_sided,
        ),
        each(Kind::all(), "fragments_that_come_too_late", late_fragments),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn one_sided() -> Vec<Kind> {
    let mut kinds = Kind::stateful();
    kinds.retain(|kind| !kind.is_answered());
    kinds
}

fn one_sided_tcp() -> Vec<Kind> {
    let mut kinds = one_sided();
    kinds.retain(|kind| kind.is_tcp());
    kinds
}

fn two_sided_tcp() -> Vec<Kind> {
    let mut kinds = Kind::stateful();
    kinds.retain(|kind| kind.is_answered() && kind.is_tcp());
    kinds
}

/// The entry's state, and that it was noted just now.
fn is(world: &World, talk: &Talk, state: State, timeout: u16) -> anyhow::Result<()> {
    was(0, world, talk, state, timeout)
}

/// The entry's state, and that it was noted so many ticks ago.
fn was(ticks_ago: u16, world: &World, talk: &Talk, state: State, timeout: u16) -> anyhow::Result<()> {
    let connection = world.connection(talk.client)?;
    ensure!(
        (connection.service, connection.backend) == (1, talk.backend.id),
        "{connection:?}"
    );
    ensure!(connection.state == state, "{connection:?}, not {state:?}");
    ensure!(
        was_noted(&connection, ticks_ago, timeout),
        "{connection:?}, not {timeout}"
    );
    Ok(())
}

/// Answers do not come by here: what goes on later than the first packets was not a flood's.
fn later_tick(kind: Kind) -> anyhow::Result<usize> {
    let [half_open, of_established, closing] = TIMEOUTS;
    let mut world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.open("the first packet", &talk)?;
    if kind.is_tcp() {
        aging::entries(&mut world, 2)?;
        world.forward("the same SYN, later", &talk, talk.client_opens())?;
        is(&world, &talk, State::SynSeen, half_open)?;
    }
    world.forward("the next one", &talk, talk.client_says(b""))?;
    is(&world, &talk, State::Unconfirmed, half_open)?;
    aging::entries(&mut world, 2)?;
    world.forward("later", &talk, talk.client_says(b"x"))?;
    is(&world, &talk, State::Established, of_established)?;
    world.forward("and on", &talk, talk.client_says(b"x"))?;
    is(&world, &talk, State::Established, of_established)?;
    if kind.is_tcp() {
        world.forward("FIN", &talk, talk.client_says(b"").fin())?;
        is(&world, &talk, State::ClientFin, closing)?;
        world.forward("ACKs of a download", &talk, talk.client_says(b""))?;
        is(&world, &talk, State::ClientFin, closing)?;
        world.forward("RST", &talk, talk.client_sends().rst())?;
        is(&world, &talk, State::Reset, closing)?;
        world.forward("it was forged", &talk, talk.client_says(b"y"))?;
        is(&world, &talk, State::Established, of_established)?;
    }
    Ok(world.checked())
}

/// So is what goes on for some packets within a moment.
fn goes_on(kind: Kind) -> anyhow::Result<usize> {
    let [half_open, of_established, _] = TIMEOUTS;
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.open("the first packet", &talk)?;
    for number in 1..=2 {
        world.forward(&format!("{number} more"), &talk, talk.client_says(b"x"))?;
        is(&world, &talk, State::Unconfirmed, half_open)?;
    }
    world.forward("the third", &talk, talk.client_says(b"x"))?;
    is(&world, &talk, State::Established, of_established)?;
    Ok(world.checked())
}

/// Each service has its own.
fn timeouts(kind: Kind) -> anyhow::Result<usize> {
    let [half_open, of_established, closing] = [33, 3000, 7];
    let mut service = kind.service(1);
    service.backends[0].timeouts = [half_open, of_established, closing];
    let mut world = World::new(&[service])?;
    let talk = kind.talk(1, 1);
    world.open("the first packet", &talk)?;
    let first = if kind.is_tcp() {
        State::SynSeen
    } else {
        State::Unconfirmed
    };
    is(&world, &talk, first, half_open)?;
    aging::entries(&mut world, 20)?;
    was(20, &world, &talk, first, half_open)?;
    world.forward("the same again", &talk, talk.client_opens())?;
    // With UDP, where answers are not seen, that confirms it.
    if kind.is_tcp() || kind.is_answered() {
        is(&world, &talk, first, half_open)?;
    }
    if kind.is_answered() {
        world.answer("the answer", &talk, talk.backend_accepts())?;
        world.forward("the next one", &talk, talk.client_says(b""))?;
        is(&world, &talk, State::Established, of_established)?;
        aging::entries(&mut world, slack(of_established) - 2)?;
        world.both("nothing changes for a while", &talk, |frame| frame)?;
        was(
            slack(of_established) - 2,
            &world,
            &talk,
            State::Established,
            of_established,
        )?;
        aging::entries(&mut world, 4)?;
        world.forward("and then it is noted again", &talk, talk.client_says(b""))?;
        is(&world, &talk, State::Established, of_established)?;
        aging::entries(&mut world, 2999)?;
        was(2999, &world, &talk, State::Established, of_established)?;
        world.answer("the backend alone keeps it", &talk, talk.backend_says(b"!"))?;
        is(&world, &talk, State::Established, of_established)?;
        if kind.is_tcp() {
            world.answer("FIN", &talk, talk.backend_says(b"").fin())?;
            is(&world, &talk, State::BackendFin, closing)?;
            world.forward("RST", &talk, talk.client_sends().rst())?;
            is(&world, &talk, State::Reset, closing)?;
        }
    }
    Ok(world.checked())
}

/// Until it is swept, or somebody takes its place, an entry is as good as any: nobody is in a hurry.
fn over(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    aging::entries(&mut world, 2000)?;
    assert!(world.connection(talk.client)?.ticks_left < 0);
    assert!(!world.connection(talk.client)?.is_open());
    if talk.is_answered() {
        world.answer("an answer", &talk, talk.backend_says(b"!"))?;
    }
    world.forward("and on", &talk, talk.client_says(b"?"))?;
    assert!(world.connection(talk.client)?.ticks_left > 0);
    Ok(world.checked())
}

fn sweep(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    let stays = kind.talk(2, 1).by_own_port(talk.own_port + 1);
    aging::entries(&mut world, 2000)?;
    world.open("another one", &stays)?;
    let now = world.dataplane.now()?;
    assert_eq!(world.dataplane.connections().sweep(now), 1);
    assert_eq!(world.dataplane.connections().sweep(now), 0);
    assert_eq!(world.connections()?.len(), 1);
    world.forward("the other one stays", &stays, stays.client_says(b"x"))?;
    if talk.is_answered() {
        world.unchanged("forgotten", Outcome::NoConnection, &talk.backend_says(b"!"))?;
    }
    Ok(world.checked())
}

/// A SYN is a new connection once the old one is over, and not before.
fn reused(kind: Kind) -> anyhow::Result<usize> {
    let mut checked = 0;
    let one = |world: &World, talk: &Talk, by_client: bool, rst: bool| {
        if by_client {
            let frame = if rst {
                talk.client_sends().rst()
            } else {
                talk.client_says(b"").fin()
            };
            world.forward("the end", talk, frame)
        } else {
            let frame = if rst {
                talk.backend_sends().rst().ack()
            } else {
                talk.backend_says(b"").fin()
            };
            world.answer("the end", talk, frame)
        }
    };
    let second = kind.talk(1, 2);
    for by_client in [true, false] {
        let (_, first) = established(kind)?;
        let world = World::new(&[kind.service(2)])?;
        world.establish(&first)?;
        world.forward("a SYN on a living one", &first, first.client_opens())?;
        one(&world, &first, by_client, false)?;
        world.forward("a SYN on a half-closed one", &first, first.client_opens())?;
        one(&world, &first, !by_client, false)?;
        assert_eq!(world.connection(first.client)?.state, State::Closed);
        world.establish(&second)?;
        assert_eq!(world.connection(first.client)?.backend, 2);
        world.unchanged(
            "the old backend",
            Outcome::NoConnection,
            &first.backend_says(b"late"),
        )?;
        checked += world.checked();

        // Both the RST and the SYN may be forged: nothing is concluded until the timeout is over.
        let world = World::new(&[kind.service(2)])?;
        world.establish(&first)?;
        one(&world, &first, by_client, true)?;
        assert_eq!(world.connection(first.client)?.state, State::Reset);
        world.forward("a SYN after a RST", &first, first.client_opens())?;
        world.both("it was forged", &first, |frame| frame)?;
        assert_eq!(world.connection(first.client)?.state, State::Established);
        checked += world.checked();
    }
    // Refused by the server: over as well.
    let world = World::new(&[kind.service(2)])?;
    let first = kind.talk(1, 1);
    world.open("SYN", &first)?;
    world.answer("refused", &first, first.backend_sends().rst().ack())?;
    assert_eq!(world.connection(first.client)?.state, State::Closed);
    world.establish(&second)?;
    Ok(checked + world.checked())
}

/// What the backend says is not seen, nor when a connection is over; but that a handshake came to nothing.
fn reused_one_sided(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let (first, second) = (kind.talk(1, 1), kind.talk(1, 2));
    world.establish(&first)?;
    world.forward("a SYN on a half-open one", &first, first.client_opens())?;
    world.forward("RST", &first, first.client_sends().rst())?;
    assert_eq!(world.connection(first.client)?.state, State::Closed);
    world.establish(&second)?;
    assert_eq!(world.connection(first.client)?.backend, 2);
    for number in 0..3 {
        world.forward(&format!("{number}"), &second, second.client_says(b"x"))?;
    }
    assert_eq!(world.connection(first.client)?.state, State::Established);
    world.forward("a SYN on a living one", &second, second.client_opens())?;
    world.forward("FIN", &second, second.client_says(b"").fin())?;
    world.forward("a SYN on a half-closed one", &second, second.client_opens())?;
    world.forward("RST", &second, second.client_sends().rst())?;
    assert_eq!(world.connection(first.client)?.state, State::Reset);
    world.forward(
        "a SYN after a RST, which may be forged",
        &second,
        second.client_opens(),
    )?;
    assert_eq!(world.connection(first.client)?.backend, 2);
    Ok(world.checked())
}

/// Jiffies of a tick: at 100 Hz, and at 1,000.
const SHORTEST_TICK: u64 = 512;
const LONGEST_TICK: u64 = 4096;

/// A first fragment is remembered for about as long as hosts wait for the others.
fn late_fragments(kind: Kind) -> anyhow::Result<usize> {
    let (mut world, talk) = established(kind)?;
    let fragments = |number| {
        let datagram = talk.client_says(b"").filled_to(2000).identification(number);
        datagram.fragments(&[800])
    };
    world.pass(&fragments(1)[0].bytes())?;
    aging::fragments(&mut world, 7 * SHORTEST_TICK)?;
    assert_ne!(
        world.pass(&fragments(1)[1].bytes())?.1,
        fragments(1)[1].bytes(),
        "not too late"
    );
    aging::fragments(&mut world, 10 * LONGEST_TICK)?;
    world.unchanged("too late", Outcome::FragmentUnmatched, &fragments(1)[1])?;
    world.pass(&fragments(1)[0].bytes())?;
    assert_ne!(
        world.pass(&fragments(1)[1].bytes())?.1,
        fragments(1)[1].bytes(),
        "sent again"
    );
    Ok(world.checked() + 2)
}
