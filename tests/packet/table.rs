//! The connection table: full, flooded, raced, listed and swept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb::dataplane::ServiceEntry;
use lb_common::bench::SOURCE;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_common::tick::Tick;
use lb_tests::harness::Case;
use nix::sched::sched_getcpu;

use crate::balancing::on_all_cpus;
use crate::repeater::{Repeater, plan};
use crate::seen::Seen;
use crate::talk::{Talk, client};
use crate::world::{CLIENT, TIMEOUTS, World, service, web, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("table::a_flood_evicts_no_established_connection", flood),
        Case::new("table::half_open_connections_make_way", half_open),
        Case::new("table::without_room_connections_go_by_hash", untracked),
        Case::new("table::closed_connections_make_way", closed_make_way),
        Case::new("table::what_a_listing_says", listing),
        Case::new("table::a_sweep_removes_what_is_over", sweep),
        Case::new("table::a_race_gives_no_wrong_backend", race_of_services),
        Case::new(
            "table::a_race_leaves_one_entry_for_each_connection",
            race_of_flows,
        ),
        Case::new("table::the_clock", clock),
    ]
}

/// The smallest table: two buckets, at home in which is every connection. Eight fit.
const TINY: u32 = 1;
const WAYS: u32 = 8;

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

fn half_open() -> anyhow::Result<()> {
    let world = World::with_room(&[www(3)], TINY)?;
    let old = world.establish_somewhere(client(1000))?;
    for number in 1..WAYS {
        world.pass(&Talk::new(client(number), 1).client_sends().syn().bytes())?;
    }
    assert_eq!(world.connections()?.len(), WAYS as usize);
    for number in WAYS..5 * WAYS {
        let syn = Talk::new(client(number), 1).client_opens();
        let talk = Talk::new(client(number), world.server_of(&syn)?);
        world.forward("it takes a half-open one's place, and is remembered", &talk, syn)?;
        assert_eq!(world.connections()?.len(), WAYS as usize);
    }
    world.forward(
        "the established one is still there",
        &old,
        old.client_sends().ack(),
    )
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
    let age = |ticks_left: i16, timeout: u16| (i32::from(timeout) - i32::from(ticks_left)).abs() <= 1;
    let listed = |state: State, timeout: u16| -> anyhow::Result<()> {
        let connection = world.connection(CLIENT)?;
        assert_eq!(
            (connection.service, connection.backend, connection.state),
            (1500, 77, state)
        );
        assert!(age(connection.ticks_left, timeout), "{connection:?}");
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
    assert_eq!(table.sweep(later(established - 1)), 0, "not before its time");
    assert_eq!(table.sweep(later(established + 2)), 50);
    assert_eq!(world.connections()?, []);
    let late = Talk::new(client(1), 1).backend_sends().ack().bytes();
    world.expect("forgotten", &late, &Seen::unchanged(Outcome::NoConnection, &late))
}

/// Services with a server each fight for eight places, each CPU for another service, while user space deletes. A key of
/// one entry read with the value of another would take a packet to another service's server, whose counter shows it.
fn race_of_services() -> anyhow::Result<()> {
    const CLIENTS: u32 = 16;
    const PACKETS: u32 = 10_000_000;
    let cpus = std::thread::available_parallelism()?.get().clamp(2, 8);
    let vip = |server: u8| format!("203.0.113.{server}:443").parse();
    let server_of = |cpu: usize| (cpu % 8 + 1) as u8;
    let services = (1..=8)
        .map(|server| Ok(service(u16::from(server), vip(server)?, vec![web(server)])))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let world = World::with_room(&services, TINY)?;
    let mut repeater = Repeater::new()?;
    repeater.prepare(world.dataplane.program()?.fd()?, |cpu| {
        let server = server_of(cpu);
        let talk = Talk {
            vip: vip(server)?,
            ..Talk::new("10.0.0.0:40000".parse()?, server)
        };
        plan(&talk.client_sends().syn(), SOURCE, CLIENTS)
    })?;
    let over = AtomicBool::new(false);
    let (ran, deleted) = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut deleted = 0;
            while !over.load(Ordering::Relaxed) {
                let now = world.dataplane.now().map_or(0, |now| now.0);
                deleted += world
                    .dataplane
                    .connections()
                    .sweep(Tick(now.wrapping_add(20_000)));
                std::thread::sleep(Duration::from_micros(50));
            }
            deleted
        });
        let ran = on_all_cpus(cpus, |_| {
            repeater.run(PACKETS)?;
            Ok(server_of(sched_getcpu()?))
        });
        over.store(true, Ordering::Relaxed);
        (ran, sweeper.join().expect("the sweeper ends well"))
    });
    let mut expected = BTreeMap::new();
    for server in ran? {
        *expected.entry(server).or_insert(0) += u64::from(PACKETS);
    }
    assert!(expected.len() > 1 && deleted > 100, "the race was none");
    for (server, packets) in expected {
        assert_eq!(
            world.dataplane.counters().backend(server.into())?.packets_in,
            packets,
            "web{server}"
        );
    }
    Ok(())
}

/// All CPUs open the same connections at the same time: afterwards each has one entry, and all its packets go there.
fn race_of_flows() -> anyhow::Result<()> {
    const FLOWS: u32 = 64;
    let world = World::new(&[www(7)])?;
    for round in 0..60 {
        let flow = |number| client(round * FLOWS + number);
        let opened = on_all_cpus(4, |_| {
            (0..FLOWS)
                .map(|number| world.server_of(&Talk::new(flow(number), 1).client_sends().syn()))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let followed = on_all_cpus(4, |_| {
            (0..FLOWS)
                .map(|number| world.server_of(&Talk::new(flow(number), 1).client_sends().ack()))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        for number in 0..FLOWS as usize {
            let entry = world.connection(flow(number as u32))?;
            for (thread, servers) in followed.iter().enumerate() {
                assert_eq!(
                    u16::from(servers[number]),
                    entry.backend,
                    "round {round}, flow {number}, thread {thread}"
                );
            }
            assert!(
                opened
                    .iter()
                    .any(|servers| u16::from(servers[number]) == entry.backend)
            );
        }
        let now = world.dataplane.now()?;
        world
            .dataplane
            .connections()
            .sweep(Tick(now.0.wrapping_add(20_000)));
        assert_eq!(world.connections()?, []);
    }
    Ok(())
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
