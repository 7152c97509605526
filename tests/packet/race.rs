//! Several CPUs at the same buckets at once, tens of millions of times.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb::dataplane::ServiceEntry;
use lb_common::bench::{SOURCE, SOURCE_IPV6};
use lb_common::tick::Tick;
use lb_tests::harness::{Case, report};
use nix::sched::sched_getcpu;

use crate::aging;
use crate::balancing::on_all_cpus;
use crate::kind::{Family, Flavour, Kind, NAT};
use crate::repeater::{Repeater, plan};
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let narrow = NAT;
    let wide = Kind {
        flavour: Flavour::Range,
        ..NAT
    };
    let ipv6 = Kind {
        family: Family::Ipv6,
        ..NAT
    };
    let mut cases = Vec::new();
    for kind in [narrow, wide, ipv6] {
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("race::{title}_{}", kind.slug());
            cases.push(Case::of(kind.cell(), name, move || run(kind)));
        };
        case("services_fight_for_eight_places", services);
        case("cpus_open_the_same_connections", flows);
        case("cpus_open_the_same_connections_step_by_step", step_by_step);
    }
    cases
}

const TITLE: &str = "CPUs racing for the same buckets";

/// Packets on each CPU.
const PACKETS: u32 = 10_000_000;

fn cpus() -> anyhow::Result<usize> {
    Ok(std::thread::available_parallelism()?.get().clamp(2, 8))
}

/// The address of the first client; a client's number is added.
fn first_client(kind: Kind) -> anyhow::Result<SocketAddr> {
    let address: IpAddr = if kind.is_ipv4() {
        "10.0.0.0".parse()?
    } else {
        "2001:db8:ace::".parse()?
    };
    Ok(SocketAddr::new(address, 40_000))
}

fn source(kind: Kind) -> u32 {
    if kind.is_ipv4() { SOURCE } else { SOURCE_IPV6 }
}

/// Services with a server each fight for eight places, each CPU for another service, while user space deletes. A key of
/// one entry read with the value of another would take a packet to another service's server, whose counter shows it.
fn services(kind: Kind) -> anyhow::Result<usize> {
    const CLIENTS: u32 = 16;
    let cpus = cpus()?;
    let server_of = |cpu: usize| (cpu % 8 + 1) as u8;
    let vip = |server: u8| {
        let mut vip = kind.vip();
        vip.set_ip(match vip.ip() {
            IpAddr::V4(address) => IpAddr::from((u32::from(address) + u32::from(server)).to_be_bytes()),
            IpAddr::V6(address) => IpAddr::from((u128::from(address) + u128::from(server)).to_be_bytes()),
        });
        vip
    };
    let services: Vec<_> = (1..=8)
        .map(|server| ServiceEntry {
            number: server.into(),
            vip: vip(server).ip(),
            ..kind.service_of(vec![kind.backend(server)])
        })
        .collect();
    let mut world = World::with_room(&services, 1)?;
    // Young entries make room for each other.
    aging::flood(&mut world, 2, 0)?;
    let mut repeater = Repeater::new()?;
    let client = first_client(kind)?;
    repeater.prepare(world.dataplane.program()?.fd()?, |cpu| {
        let server = server_of(cpu);
        let talk = Talk {
            client,
            vip: vip(server),
            ..kind.talk(0, server)
        };
        plan(&talk.client_opens(), source(kind), CLIENTS)
    })?;
    let counters = |server: u8| anyhow::Ok(world.dataplane.counters().backend(server.into())?.packets_in);
    let before = (1..=8).map(counters).collect::<anyhow::Result<Vec<_>>>()?;
    let (ran, deleted) = while_deleting(&world, || {
        on_all_cpus(cpus, |_| {
            repeater.run(PACKETS)?;
            Ok(server_of(sched_getcpu()?))
        })
    });
    let mut expected = BTreeMap::new();
    for server in ran? {
        *expected.entry(server).or_insert(0) += u64::from(PACKETS);
    }
    assert!(expected.len() > 1 && deleted > 100, "the race was none");
    let mut wrong = 0;
    for (server, before) in (1..=8).zip(before) {
        let packets = expected.get(&server).copied().unwrap_or(0);
        wrong += packets.abs_diff(counters(server)? - before);
    }
    let packets = cpus as u64 * u64::from(PACKETS);
    report(
        TITLE,
        format!(
            "{}: {packets} packets of {cpus} services, {deleted} entries deleted meanwhile: {wrong} to a wrong backend",
            kind.slug()
        ),
    );
    assert_eq!(wrong, 0);
    Ok(1)
}

/// Runs something while user space deletes all entries, again and again; how many those were.
fn while_deleting<T>(world: &World, work: impl FnOnce() -> T) -> (T, usize) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut deleted = 0;
            while !over.load(Ordering::Relaxed) {
                deleted += delete_all(world);
                std::thread::sleep(Duration::from_micros(50));
            }
            deleted
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        (result, sweeper.join().expect("the sweeper ends well"))
    })
}

fn delete_all(world: &World) -> usize {
    let now = world.dataplane.now().map_or(0, |now| now.0);
    world
        .dataplane
        .connections()
        .sweep(Tick(now.wrapping_add(20_000)))
}

/// All CPUs open the same connections at the same time, and user space forgets them: what is left in the end is one entry for
/// each, and its packets go there.
fn flows(kind: Kind) -> anyhow::Result<usize> {
    const CLIENTS: u32 = 256;
    let cpus = cpus()?;
    let world = World::with_room(&[kind.service(7)], 1000)?;
    let mut repeater = Repeater::new()?;
    let talk = Talk {
        client: first_client(kind)?,
        ..kind.talk(0, 1)
    };
    repeater.prepare(world.dataplane.program()?.fd()?, |_| {
        plan(&talk.client_opens(), source(kind), CLIENTS)
    })?;
    let (ran, deleted) = while_deleting(&world, || on_all_cpus(cpus, |_| repeater.run(PACKETS)));
    ran?;
    // Once more, without anybody deleting.
    on_all_cpus(cpus, |_| repeater.run(100 * CLIENTS))?;
    assert!(deleted > 1000, "the race was none");
    let entries = world.connections()?;
    let clients: BTreeSet<_> = entries.iter().map(|entry| entry.client).collect();
    let duplicates = entries.len() - clients.len();
    let packets = cpus as u64 * u64::from(PACKETS);
    report(
        TITLE,
        format!(
            "{}: {packets} packets of {CLIENTS} connections on {cpus} CPUs, {deleted} entries deleted meanwhile: \
             {duplicates} duplicate entries left",
            kind.slug()
        ),
    );
    assert_eq!(duplicates, 0);
    assert_eq!(clients.len(), CLIENTS as usize);
    for entry in entries {
        let talk = Talk {
            client: entry.client,
            ..kind.talk(0, entry.backend as u8)
        };
        world.forward("it goes where its entry says", &talk, talk.client_says(b"x"))?;
    }
    Ok(1 + world.checked())
}

/// The same from user space, so that it is known what became of each packet.
fn step_by_step(kind: Kind) -> anyhow::Result<usize> {
    const FLOWS: u32 = 64;
    const ROUNDS: u32 = 60;
    let world = World::new(&[kind.service(7)])?;
    for round in 0..ROUNDS {
        let talk = |number| kind.talk(round * FLOWS + number, 1);
        let servers = |frame: fn(&Talk) -> crate::frame::Frame| {
            on_all_cpus(4, |_| {
                (0..FLOWS)
                    .map(|number| world.server_of(&frame(&talk(number))))
                    .collect::<anyhow::Result<Vec<_>>>()
            })
        };
        let opened = servers(Talk::client_opens)?;
        let followed = servers(|talk| talk.client_says(b""))?;
        let entries: BTreeMap<_, _> = world
            .connections()?
            .into_iter()
            .map(|entry| (entry.client, entry.backend))
            .collect();
        assert_eq!(
            entries.len(),
            world.connections()?.len(),
            "round {round}: duplicates"
        );
        for number in 0..FLOWS as usize {
            let backend = entries[&talk(number as u32).client];
            for (thread, servers) in followed.iter().enumerate() {
                let purpose = format!("round {round}, flow {number}, thread {thread}");
                assert_eq!(u16::from(servers[number]), backend, "{purpose}");
            }
            assert!(opened.iter().any(|servers| u16::from(servers[number]) == backend));
        }
        delete_all(&world);
        assert_eq!(world.connections()?, []);
    }
    Ok(1)
}
