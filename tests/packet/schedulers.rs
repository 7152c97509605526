//! Who gets a new connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb::config::Protocol;
use lb::dataplane::{BackendEntry, LoadOptions, ServiceEntry};
use lb_common::abi::Choice;
use lb_common::outcome::Outcome;
use lb_tests::harness::{Case, report};

use crate::balancing::on_all_cpus;
use crate::kind::{Family, Flavour, Kind, Mode, NAT, one_port};
use crate::pool::OPTIONS;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = [
        (2, Family::Ipv4),
        (3, Family::Ipv4),
        (7, Family::Ipv4),
        (3, Family::Ipv6),
    ]
    .into_iter()
    .map(|(servers, family)| {
        let kind = Kind { family, ..NAT };
        let name = format!(
            "schedulers::round_robin_of_100000_over_{servers}_servers_{}",
            kind.slug()
        );
        Case::of(kind.cell(), name, move || round_robin(kind, servers))
    })
    .collect();
    for family in [Family::Ipv4, Family::Ipv6] {
        let kind = Kind { family, ..NAT };
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("schedulers::{title}_{}", kind.slug());
            cases.push(Case::of(kind.cell(), name, move || run(kind)));
        };
        case("weights_are_exact_over_a_cycle", weighted);
        case("the_least_loaded", least);
        case("the_least_loaded_for_its_weight", least_weighted);
        case("random_reaches_all", random);
        case("hashing_is_the_same_everywhere", hash);
        case("a_client_stays_with_its_server", source);
        case("a_client_stays_across_services", source_across_services);
    }
    for mode in [Mode::Nat, Mode::Dsr, Mode::Ipip] {
        let kind = Kind {
            mode,
            protocol: Protocol::Udp,
            flavour: Flavour::Stateless,
            ..NAT
        };
        let name = format!("schedulers::stateless_by_{}", kind.slug());
        cases.push(Case::of(kind.cell(), name, move || stateless(kind)));
    }
    cases
}

fn choosing(kind: Kind, choice: Choice, servers: u8, slots: &[u16]) -> ServiceEntry {
    ServiceEntry {
        choice,
        slots: slots.to_vec(),
        ..kind.service(servers)
    }
}

/// The server of each of so many new connections, and of nobody else's.
fn shares(world: &World, kind: Kind, clients: std::ops::Range<u32>) -> anyhow::Result<BTreeMap<u8, u32>> {
    let mut shares = BTreeMap::new();
    for number in clients {
        let server = world.server_of(&kind.talk(number, 1).client_opens())?;
        *shares.entry(server).or_default() += 1;
    }
    Ok(shares)
}

/// Exact, whichever CPUs the connections come in by: the shares differ by one at most.
fn round_robin(kind: Kind, servers: u8) -> anyhow::Result<usize> {
    const CONNECTIONS: u32 = 100_000;
    // So much that there is a place for everybody: what finds none is chosen for by hashing.
    const ROOM: u32 = 4 * CONNECTIONS;
    let threads = std::thread::available_parallelism()?.get().clamp(2, 8);
    let world = World::with_room(&[kind.service(servers)], ROOM)?;
    let opened = |server: u8| anyhow::Ok(world.dataplane.counters().backend(server.into())?.opened);
    let before = (1..=servers).map(opened).collect::<anyhow::Result<Vec<_>>>()?;
    let each = on_all_cpus(threads, |thread| {
        let first = thread as u32 * CONNECTIONS / threads as u32;
        let next = (thread as u32 + 1) * CONNECTIONS / threads as u32;
        shares(&world, kind, first..next)
    })?;
    let mut sum = BTreeMap::new();
    for (server, share) in each.into_iter().flatten() {
        *sum.entry(server).or_insert(0) += share;
    }
    let (least, most) = (sum.values().min().copied(), sum.values().max().copied());
    let difference = most.unwrap_or(0) - least.unwrap_or(0);
    report(
        "shares of 100,000 connections, round robin from several CPUs",
        format!(
            "{} servers, {}: {:?}, largest difference {difference}",
            servers,
            kind.cell().family,
            sum.values().collect::<Vec<_>>()
        ),
    );
    assert_eq!(sum.len(), usize::from(servers));
    assert_eq!(sum.values().sum::<u32>(), CONNECTIONS);
    assert!(difference <= 1, "{sum:?}");
    for (server, before) in (1..=servers).zip(before) {
        assert_eq!(opened(server)? - before, u64::from(sum[&server]));
    }
    Ok(1)
}

fn weighted(kind: Kind) -> anyhow::Result<usize> {
    // 5:3:1, as the daemon interleaves it.
    let cycle = [1, 2, 1, 2, 1, 3, 1, 2, 1];
    let world = World::new(&[choosing(kind, Choice::Cursor, 3, &cycle)])?;
    for round in 0..10 {
        let clients = round * 9..(round + 1) * 9;
        assert_eq!(
            shares(&world, kind, clients)?,
            BTreeMap::from([(1, 5), (2, 3), (3, 1)])
        );
    }
    Ok(1)
}

/// Of two, always the one with fewer connections; of several, the better of two that are looked at.
fn least(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[choosing(kind, Choice::Least, 2, &[1, 2])])?;
    world.dataplane.set_loads(|id| if id == 1 { 30 } else { 0 });
    assert_eq!(shares(&world, kind, 0..30)?, BTreeMap::from([(2, 30)]));
    assert_eq!(
        world.dataplane.load_of(2),
        Some((30, 1)),
        "each one opened is counted"
    );
    let even = shares(&world, kind, 30..130)?;
    assert!(even.values().all(|share| (49..=51).contains(share)), "{even:?}");
    assert_eq!(world.dataplane.load_of(1).map(|(load, _)| load), Some(80));

    let world = World::new(&[choosing(kind, Choice::Least, 5, &[1, 2, 3, 4, 5])])?;
    world
        .dataplane
        .set_loads(|id| if id == 3 { 1_000_000 } else { 0 });
    let without = shares(&world, kind, 0..400)?;
    assert_eq!(
        without.keys().copied().collect::<Vec<_>>(),
        [1, 2, 4, 5],
        "the worst is never the better"
    );
    assert!(
        without.values().all(|share| (70..130).contains(share)),
        "{without:?}"
    );
    let world = World::new(&[choosing(kind, Choice::Least, 1, &[1])])?;
    assert_eq!(
        shares(&world, kind, 0..10)?,
        BTreeMap::from([(1, 10)]),
        "a single one"
    );
    // A packet of a known connection, and one from the middle, count for nothing.
    let talk = kind.talk(0, 1);
    world.forward("data", &talk, talk.client_says(b"x"))?;
    world.pass(&kind.talk(500, 1).client_says(b"x").bytes())?;
    assert_eq!(world.dataplane.load_of(1), Some((10, 1)));
    Ok(1)
}

fn least_weighted(kind: Kind) -> anyhow::Result<usize> {
    let mut service = choosing(kind, Choice::Least, 2, &[1, 2]);
    service.backends[0].weight = 3;
    let world = World::new(&[service])?;
    let shares = shares(&world, kind, 0..400)?;
    assert!((298..=302).contains(&shares[&1]), "{shares:?}");
    Ok(1)
}

fn random(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[choosing(kind, Choice::Random, 4, &[1, 2, 3, 4, 4])])?;
    let shares = shares(&world, kind, 0..2000)?;
    // Five slots of 400 each; six standard deviations are 108.
    assert!(
        (1..=3).all(|server| (292..508).contains(&shares[&server])) && (668..932).contains(&shares[&4]),
        "{shares:?}"
    );
    let world = World::new(&[choosing(kind, Choice::Random, 2, &[1, 2])])?;
    let same: Vec<_> = (0..64)
        .map(|number| world.server_of(&kind.talk(number, 1).client_opens()))
        .collect::<anyhow::Result<_>>()?;
    let again: Vec<_> = (64..128)
        .map(|number| world.server_of(&kind.talk(number, 1).client_opens()))
        .collect::<anyhow::Result<_>>()?;
    assert_ne!(same, again, "not in turn either");
    Ok(1)
}

/// The same client goes to the same server by every balancer of a fleet, which have the seed in common, and by no other.
fn hash(kind: Kind) -> anyhow::Result<usize> {
    let service = choosing(kind, Choice::Hash, 3, &[1, 2, 3, 3, 2, 1]);
    let first = World::new(std::slice::from_ref(&service))?;
    let second = World::new(std::slice::from_ref(&service))?;
    let other_seed = LoadOptions {
        selection_seed: 8,
        ..OPTIONS
    };
    let other = World::with_options(&[service], other_seed)?;
    let (mut shares, mut elsewhere) = (BTreeMap::<_, u32>::new(), 0);
    for number in 0..600 {
        let first_packet = kind.talk(number, 1).client_opens();
        let server = first.server_of(&first_packet)?;
        assert_eq!(second.server_of(&first_packet)?, server);
        elsewhere += u32::from(other.server_of(&first_packet)? != server);
        *shares.entry(server).or_default() += 1;
    }
    assert!(
        shares.values().all(|share| (150..250).contains(share)),
        "{shares:?}"
    );
    assert!((320..480).contains(&elsewhere), "{elsewhere} of 600");
    Ok(1)
}

/// A client's host, whatever port it comes from and goes to.
fn source(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[choosing(kind, Choice::Source, 3, &[1, 2, 3])])?;
    let mut shares = BTreeMap::<_, u32>::new();
    for host in 0..90 {
        let servers: Vec<_> = (0..20)
            .map(|port| world.server_of(&kind.talk(host * 50_000 + port * 7, 1).client_opens()))
            .collect::<anyhow::Result<_>>()?;
        assert!(servers.iter().all(|server| *server == servers[0]), "{servers:?}");
        *shares.entry(servers[0]).or_default() += 1;
    }
    assert!(
        shares.len() == 3 && shares.values().all(|share| (12..55).contains(share)),
        "{shares:?}"
    );
    Ok(1)
}

/// http and https of one VIP, and both protocols: the same server, though it is another backend of each service.
fn source_across_services(kind: Kind) -> anyhow::Result<usize> {
    let service = |number: u16, port: u16, protocol: Protocol| {
        let backends: Vec<_> = (1..=3u8)
            .map(|server| BackendEntry {
                id: number * 10 + u16::from(server),
                endpoint: SocketAddr::new(kind.endpoint(server).ip(), port + 8000),
                ..kind.backend(server)
            })
            .collect();
        ServiceEntry {
            number,
            ports: one_port(port),
            protocol,
            choice: Choice::Source,
            ..kind.service_of(backends)
        }
    };
    let world = World::new(&[
        service(1, 80, Protocol::Tcp),
        service(2, 443, Protocol::Tcp),
        service(3, 443, Protocol::Udp),
    ])?;
    let mut reached = BTreeMap::<_, u32>::new();
    for host in 0..60 {
        let to = |port, protocol| {
            let talk = Talk {
                protocol,
                ..kind.talk(host * 50_000 + u32::from(port), 1).at_port(port)
            };
            world.server_of(&talk.client_opens())
        };
        let http = to(80, Protocol::Tcp)?;
        assert_eq!(to(443, Protocol::Tcp)?, http);
        assert_eq!(to(443, Protocol::Udp)?, http);
        *reached.entry(http).or_default() += 1;
    }
    assert_eq!(reached.len(), 3, "{reached:?}");
    Ok(1)
}

/// No entry: each packet goes where the present table says, and to the same server while that stays.
fn stateless(kind: Kind) -> anyhow::Result<usize> {
    let mut checked = 0;
    for choice in [Choice::Hash, Choice::Source] {
        let mut world = World::new(&[choosing(kind, choice, 3, &[1, 2, 3])])?;
        let clients: Vec<u32> = (0..100).map(|n| n * 10_007).collect();
        let mut servers = Vec::new();
        for number in &clients {
            let first = kind.talk(*number, 1).client_opens();
            let server = world.server_of(&first)?;
            for _ in 0..2 {
                let talk = kind.talk(*number, server);
                let next = talk.client_says(b"next");
                let expected = Seen::to_backend(&talk, &next).named(Outcome::ToBackendStateless);
                world.expect("the same server", &next.bytes(), &expected)?;
            }
            servers.push(server);
        }
        assert_eq!(world.connections()?, [], "nothing is remembered");
        // Web3 is replaced in its slot: nobody else's packets go elsewhere.
        world.publish(&[choosing(kind, choice, 4, &[1, 2, 4])])?;
        let mut moved = 0;
        for (number, before) in clients.iter().zip(&servers) {
            let after = world.server_of(&kind.talk(*number, 1).client_opens())?;
            assert_eq!(after, if *before == 3 { 4 } else { *before });
            moved += u32::from(*before == 3);
        }
        assert!((15..55).contains(&moved), "{moved}");
        checked += world.checked();
    }
    Ok(checked)
}
