//! The connection table: full, flooded, listed and swept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb::dataplane::{Connection, ServiceEntry};
use lb::observed_state::Observed;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_common::tick::{Tick, slack};
use lb_tests::harness::Case;

use crate::kind::{Family, Kind, NAT};
use crate::seen::Seen;
use crate::talk::{Talk, client};
use crate::world::{CLIENT, TIMEOUTS, World, service, was_noted, web, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("table::a_flood_evicts_no_established_connection", flood),
        Case::new("table::without_room_connections_go_by_hash", untracked),
        Case::new("table::closed_connections_make_way", closed_make_way),
        Case::new("table::what_a_listing_says", listing),
        Case::new("table::counting_agrees_with_the_listing", counting),
        Case::new("table::a_sweep_removes_what_is_over", sweep),
        Case::new("table::the_clock", clock),
    ]
}

/// The smallest table: two buckets, at home in which is every connection. Eight fit.
const TINY: u32 = 1;
const WAYS: u32 = 8;

/// Connections of all states, to several backends, in both tables, before and after their time, and ways that were left.
fn counting() -> anyhow::Result<()> {
    let wide = Kind {
        family: Family::Ipv6,
        ..NAT
    };
    let mut other = wide.service(2);
    other.number = 2;
    for (backend, slot) in other.backends.iter_mut().zip(&mut other.slots) {
        backend.id += 10;
        *slot += 10;
    }
    let world = World::with_room(&[www(3), other], 2000)?;
    for number in 0..600 {
        let talk = world.establish_somewhere(client(number))?;
        match number % 4 {
            0 => drop(world.pass(&talk.client_sends().rst().bytes())?),
            1 => drop(world.pass(&Talk::new(client(10_000 + number), 1).client_sends().syn().bytes())?),
            2 => drop(world.pass(&wide.talk(number, 1).client_opens().bytes())?),
            _ => {}
        }
    }
    let now = world.dataplane.now()?;
    let table = world.dataplane.connections();
    let [half_open, established, closing] = TIMEOUTS;
    let established = established + slack(established);
    let moments = [0, half_open + 2, closing + 2, established + 2].map(|ticks| now.after(ticks));
    let mut seen = BTreeSet::new();
    for now in moments.into_iter().chain([now.after(half_open + 2)]) {
        let observed = Observed::count(table, now);
        let listed: Vec<_> = table.iter(now).collect();
        let open = |of: &dyn Fn(&Connection) -> bool| {
            listed.iter().filter(|it| it.is_open() && of(it)).count() as u64
        };
        assert_eq!(observed.total_open(), open(&|_| true));
        assert_eq!(observed.wide_open(), open(&|it| it.wide));
        for id in 0..20 {
            assert_eq!(observed.open(id), open(&|it| it.backend == id), "backend {id}");
            let is_named = listed.iter().any(|it| it.backend == id);
            assert_eq!(observed.names_backend(id), is_named, "backend {id}");
        }
        for number in 0..4 {
            let is_named = listed.iter().any(|it| it.service == number);
            assert_eq!(observed.names_service(number), is_named, "service {number}");
        }
        seen.insert((observed.total_open(), observed.wide_open()));
        // From the second moment on there are ways that have been left.
        table.sweep(now);
    }
    assert!(seen.len() >= 3, "moments do not differ: {seen:?}");
    Ok(())
}

fn flood() -> anyhow::Result<()> {
    let world = World::with_room(&[www(3)], 1000)?;
    let talks = (0..500)
        .map(|number| world.establish_somewhere(client(number)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for number in 0..20_000 {
        let (action, _) = world.pass(
            &Talk::new(client(100_000 + number), 1)
                .client_sends()
                .syn()
                .bytes(),
        )?;
        assert_eq!(action, 4, "a flood's SYN is forwarded like any other");
    }
    for talk in &talks {
        world.forward("after the flood", talk, talk.client_sends().ack())?;
        world.answer("after the flood", talk, talk.backend_sends().ack())?;
    }
    let established = world
        .connections()?
        .iter()
        .filter(|c| c.state == State::Established)
        .count();
    assert_eq!(established, talks.len());
    Ok(())
}

/// Fills the smallest table with connections that must stay.
fn full(world: &World) -> anyhow::Result<Vec<Talk>> {
    (0..WAYS)
        .map(|number| world.establish_somewhere(client(number)))
        .collect()
}

fn untracked() -> anyhow::Result<()> {
    let world = World::with_room(&[www(3)], TINY)?;
    let stranger = Talk::new(client(500), 1).backend_sends().syn().ack().bytes();
    let talks = full(&world)?;
    world.expect(
        "nobody is untracked yet",
        &stranger,
        &Seen::unchanged(Outcome::NoConnection, &stranger),
    )?;
    let mut servers = BTreeSet::new();
    for number in 100..130 {
        let (syn, ack) = {
            let talk = Talk::new(client(number), 1);
            (
                talk.client_sends().syn(),
                talk.client_sends().ack().payload(b"data"),
            )
        };
        let server = world.server_of(&syn)?;
        servers.insert(server);
        let talk = Talk::new(client(number), server);
        for frame in [syn, ack] {
            let expected = Seen::to_backend(&talk, &frame).named(Outcome::ToBackendUntracked);
            world.expect("always the same server", &frame.bytes(), &expected)?;
        }
    }
    assert_eq!(servers, BTreeSet::from([1, 2, 3]));
    for talk in &talks {
        world.forward("those that are in it", talk, talk.client_sends().ack())?;
        world.answer("those that are in it", talk, talk.backend_sends().ack())?;
    }
    assert_eq!(world.connections()?.len(), WAYS as usize);
    Ok(())
}

fn closed_make_way() -> anyhow::Result<()> {
    let world = World::with_room(&[www(3)], TINY)?;
    let talks = full(&world)?;
    let closed = &talks[3];
    world.forward("FIN", closed, closed.client_sends().ack().fin())?;
    world.answer("FIN", closed, closed.backend_sends().ack().fin())?;
    let reset = &talks[5];
    world.answer("RST", reset, reset.backend_sends().rst())?;
    let new = world.establish_somewhere(client(100))?;
    assert_eq!(world.connection(new.client)?.state, State::Established);
    assert!(
        world
            .connections()?
            .iter()
            .all(|connection| connection.client != closed.client)
    );
    // A RST may be forged: that connection keeps its place.
    let syn = Talk::new(client(101), 1).client_sends().syn();
    assert_eq!(
        world.run(&syn.bytes())?.outcomes,
        BTreeMap::from([("to_backend_untracked", 1)])
    );
    world.forward("it was forged", reset, reset.client_sends().ack())?;
    assert_eq!(world.connection(reset.client)?.state, State::Established);
    Ok(())
}

fn listing() -> anyhow::Result<()> {
    let other = ServiceEntry {
        ..service(1500, "203.0.113.11:80".parse()?, vec![web(77)])
    };
    let world = World::new(&[www(1), other])?;
    let talk = Talk {
        vip: "203.0.113.11:80".parse()?,
        backend: web(77),
        ..Talk::new(CLIENT, 77)
    };
    let listed = |state: State, timeout: u16| -> anyhow::Result<()> {
        let connection = world.connection(CLIENT)?;
        assert_eq!(
            (connection.service, connection.backend, connection.state),
            (1500, 77, state)
        );
        assert!(was_noted(&connection, 0, timeout), "{connection:?}");
        Ok(())
    };
    let [half_open, established, closing] = TIMEOUTS;
    world.open("SYN", &talk)?;
    listed(State::SynSeen, half_open)?;
    assert!(world.connection(CLIENT)?.is_open());
    world.answer("SYN-ACK", &talk, talk.backend_sends().syn().ack())?;
    listed(State::SynAckSeen, half_open)?;
    world.forward("ACK", &talk, talk.client_sends().ack())?;
    listed(State::Established, established)?;
    world.answer("FIN", &talk, talk.backend_sends().ack().fin())?;
    listed(State::BackendFin, closing)?;
    world.forward("RST", &talk, talk.client_sends().rst())?;
    listed(State::Reset, closing)?;
    assert!(!world.connection(CLIENT)?.is_open());
    world.answer("it was forged", &talk, talk.backend_sends().ack())?;
    listed(State::Established, established)?;
    assert!(world.dataplane.connections().bytes() >= 10_000 * 16);
    Ok(())
}

fn sweep() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    for number in 0..100 {
        let talk = Talk::new(client(number), 1);
        if number % 2 == 0 {
            world.pass(&talk.client_sends().syn().bytes())?;
        } else {
            world.establish_somewhere(talk.client)?;
        }
    }
    let table = world.dataplane.connections();
    let now = world.dataplane.now()?;
    let later = |ticks| Tick(now.0.wrapping_add(ticks));
    let [half_open, established, _] = TIMEOUTS;
    assert_eq!(table.sweep(now), 0);
    assert_eq!(table.sweep(later(half_open - 1)), 0, "not before its time");
    assert_eq!(table.sweep(later(half_open + 2)), 50);
    assert_eq!(table.sweep(later(half_open + 2)), 0);
    assert!(
        world
            .connections()?
            .iter()
            .all(|connection| connection.state == State::Established)
    );
    let established = established + slack(established);
    assert_eq!(table.sweep(later(established - 1)), 0, "not before its time");
    assert_eq!(table.sweep(later(established + 2)), 50);
    assert_eq!(world.connections()?, []);
    let late = Talk::new(client(1), 1).backend_sends().ack().bytes();
    world.expect("forgotten", &late, &Seen::unchanged(Outcome::NoConnection, &late))
}

/// The table's clock agrees with the system's: it starts five minutes before the machine does (the kernel's
/// INITIAL_JIFFIES) and goes as fast.
fn clock() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let tick = world.dataplane.clock().duration(1);
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(7)).contains(&tick),
        "{tick:?}"
    );
    let uptime = Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?);
    let expected = (uptime.as_secs_f64() - 300.0) / tick.as_secs_f64();
    let difference = f64::from(world.dataplane.now()?.0) - expected.rem_euclid(65536.0);
    assert!(difference.abs() < 3.0, "{difference} ticks");
    for seconds in [30, 120, 7440] {
        let timeout = Duration::from_secs(seconds);
        let ticks = world.dataplane.clock().ticks(timeout);
        assert!(world.dataplane.clock().duration(ticks) >= timeout);
        assert!(world.dataplane.clock().duration(ticks) <= timeout + 2 * tick);
    }
    Ok(())
}
