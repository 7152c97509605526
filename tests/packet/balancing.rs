//! Who gets a connection, and that he keeps it.

use std::collections::BTreeMap;
use std::sync::Barrier;

use lb::dataplane::ServiceEntry;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::kind::one_port;
use crate::seen::Seen;
use crate::talk::{Talk, client};
use crate::world::{CLIENT, World, web, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("balancing::round_robin_is_exact", round_robin),
        Case::new("balancing::weights_are_slots", weights),
        Case::new("balancing::round_robin_is_exact_across_cpus", across_cpus),
        Case::new("balancing::a_connection_keeps_its_backend", keeps),
        Case::new("balancing::a_syn_leaves_a_backend_that_is_down", syn_to_down),
        Case::new("balancing::a_backend_that_is_gone", gone),
    ]
}

/// The servers that so many new connections go to.
fn sequence(world: &World, connections: std::ops::Range<u32>) -> anyhow::Result<Vec<u8>> {
    connections
        .map(|number| world.server_of(&Talk::new(client(number), 1).client_sends().syn()))
        .collect()
}

fn with_slots(servers: u8, slots: &[u16]) -> ServiceEntry {
    ServiceEntry {
        slots: slots.to_vec(),
        ..www(servers)
    }
}

fn round_robin() -> anyhow::Result<()> {
    for servers in [1, 2, 3, 40] {
        let world = World::new(&[www(servers)])?;
        let expected: Vec<u8> = (1..=servers).cycle().take(200).collect();
        assert_eq!(sequence(&world, 0..200)?, expected, "{servers} servers");
    }
    Ok(())
}

fn weights() -> anyhow::Result<()> {
    let cases: &[(&str, &[u16], &[u8])] = &[
        ("2:1", &[1, 2, 1], &[1, 2, 1, 1, 2, 1, 1, 2, 1]),
        ("1:3:1", &[2, 1, 2, 3, 2], &[2, 1, 2, 3, 2, 2, 1, 2, 3, 2]),
        ("0:1", &[2], &[2, 2, 2]),
    ];
    for (purpose, slots, expected) in cases {
        let world = World::new(&[with_slots(3, slots)])?;
        assert_eq!(
            sequence(&world, 0..expected.len() as u32)?,
            *expected,
            "{purpose}"
        );
    }
    // More slots than a cache line of them has, and not at the start of one.
    let slots: Vec<u16> = (0..1000u16).map(|i| 1 + (i % 16 * i + i / 7) % 3).collect();
    let first = ServiceEntry {
        number: 2,
        vip: "203.0.113.9".parse()?,
        ports: one_port(80),
        backends: vec![],
        slots: vec![],
        ..www(0)
    };
    let first = ServiceEntry {
        backends: vec![web(9)],
        slots: vec![9; 17],
        ..first
    };
    let world = World::new(&[first, with_slots(3, &slots)])?;
    let expected: Vec<u8> = slots.iter().map(|id| *id as u8).collect();
    assert_eq!(sequence(&world, 0..1000)?, expected);
    Ok(())
}

/// Runs `work` in so many threads, spread over all CPUs and let go at the same moment.
pub fn on_all_cpus<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let cpus = std::thread::available_parallelism()?.get();
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    let mut set = CpuSet::new();
                    set.set(thread % cpus)?;
                    // In a container that may not use this CPU the threads run where they are.
                    let _ = sched_setaffinity(Pid::from_raw(0), &set);
                    barrier.wait();
                    work(thread)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("the thread ends well"))
            .collect()
    })
}

/// Any program that counted without an atomic fetch-and-add would deal some slots twice.
fn across_cpus() -> anyhow::Result<()> {
    const THREADS: u32 = 4;
    const EACH: u32 = 2500;
    let world = World::with_room(&[www(3)], 50_000)?;
    let seen = on_all_cpus(THREADS as usize, |thread| {
        let first = thread as u32 * EACH;
        sequence(&world, first..first + EACH)
    })?;
    let mut shares = BTreeMap::new();
    for server in seen.concat() {
        *shares.entry(server).or_insert(0) += 1;
    }
    // 10,000 connections over three servers.
    assert_eq!(shares, BTreeMap::from([(1, 3334), (2, 3333), (3, 3333)]));
    for (id, share) in [(1, 3334), (2, 3333), (3, 3333)] {
        assert_eq!(
            world.dataplane.counters().backend(id)?.opened,
            share,
            "server {id}"
        );
    }
    assert_eq!(world.connections()?.len(), (THREADS * EACH) as usize);
    Ok(())
}

fn keeps() -> anyhow::Result<()> {
    let mut world = World::new(&[www(3)])?;
    let first = Talk::new(CLIENT, 1);
    let second = Talk::new(client(2), 2);
    world.open("SYN", &first)?;
    world.forward("the same SYN again", &first, first.client_sends().syn())?;
    world.forward("and again", &first, first.client_sends().syn())?;
    world.answer("SYN-ACK", &first, first.backend_sends().syn().ack())?;
    world.answer(
        "the same SYN-ACK again",
        &first,
        first.backend_sends().syn().ack(),
    )?;
    world.forward("ACK", &first, first.client_sends().ack())?;
    world.establish(&second)?;

    let mut down = www(3);
    (down.backends[0].up, down.backends[1].up) = (false, false);
    down.slots = vec![3];
    let mut other_hop = www(3);
    other_hop.slots = vec![3, 3];
    let cases = [
        ("the same again, in the other copy", www(3)),
        ("other slots", with_slots(3, &[3, 2, 2])),
        ("both drained", with_slots(3, &[3])),
        ("nobody takes connections", with_slots(3, &[])),
        ("more servers", www(5)),
        (
            "leaving",
            ServiceEntry {
                leaving: true,
                ..www(3)
            },
        ),
        ("down, but the service does not reset", down),
        ("and back", www(3)),
    ];
    for (purpose, services) in cases {
        let is_up = services.backends[0].up;
        world.publish(&[services])?;
        for talk in [&first, &second] {
            world.forward(purpose, talk, talk.client_sends().ack().payload(b"?"))?;
            world.answer(purpose, talk, talk.backend_sends().ack().payload(b"!"))?;
            if is_up {
                world.forward(purpose, talk, talk.client_sends().syn())?;
            }
            assert_eq!(
                world.connection(talk.client)?.state,
                State::Established,
                "{purpose}"
            );
        }
    }
    Ok(())
}

fn syn_to_down() -> anyhow::Result<()> {
    let mut world = World::new(&[www(2)])?;
    let talk = Talk::new(CLIENT, 1);
    world.open("SYN", &talk)?;
    let mut service = with_slots(2, &[2]);
    service.backends[0].up = false;
    world.publish(&[service])?;
    let elsewhere = Talk::new(CLIENT, 2);
    world.open("the SYN again, since nobody answered", &elsewhere)?;
    world.answer("SYN-ACK", &elsewhere, elsewhere.backend_sends().syn().ack())?;
    let late = talk.backend_sends().syn().ack().bytes();
    world.expect(
        "the first server's",
        &late,
        &Seen::unchanged(Outcome::NoConnection, &late),
    )
}

/// Its id is not in the tables any more: what its connections send is like the middle of an unknown connection.
fn gone() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    let mut service = www(2);
    service.backends.remove(0);
    service.slots = vec![2];
    world.publish(&[service])?;
    let elsewhere = Talk::new(CLIENT, 2);
    let data = talk.client_sends().ack().payload(b"x");
    let expected = Seen::to_backend(&elsewhere, &data).named(Outcome::ToBackendAtRisk);
    world.expect("data", &data.bytes(), &expected)?;
    let connection = world.connection(CLIENT)?;
    assert_eq!((connection.backend, connection.state), (2, State::Unconfirmed));
    let late = talk.backend_sends().ack().bytes();
    world.expect(
        "from the one that is gone",
        &late,
        &Seen::unchanged(Outcome::NotOurs, &late),
    )
}
