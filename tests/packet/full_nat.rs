//! `full-nat`: the balancer's own ports, and whose they are. (What packets look like is in `matrix`.)

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb::config::Protocol;
use lb::dataplane::{BackendEntry, Forwarding, PortLease, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use crate::aging;
use crate::jiffies;
use crate::kind::{FIRST_OWN_PORT, Family, Flavour, Kind, Mode, OWN_PORTS, one_port};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let kind = Kind {
                mode: Mode::FullNat,
                family,
                protocol,
                flavour: Flavour::Plain,
            };
            let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
                let name = format!("full_nat::{title}_{}", kind.slug());
                cases.push(Case::of(kind.cell(), name, move || run(kind)));
            };
            case("every_port_once", every_port);
            case("without_a_port_nothing_goes_out", exhausted);
            case("another_backend_has_ports", elsewhere);
            case("a_port_is_not_given_twice_while_its_connection_lives", living);
            case("a_port_rests_before_it_is_given_again", rests);
            case("two_services_share_an_endpoint", shared);
            case("an_endpoint_is_shared_with_nat", shared_with_nat);
            case("no_room_in_the_table", table_full);
            case("ports_that_nobody_has", nobodys);
        }
    }
    cases
}

/// A service whose backends have so many ports each.
fn with_ports(kind: Kind, servers: u8, ports: u16) -> ServiceEntry {
    let mut service = kind.service(servers);
    for backend in &mut service.backends {
        let Forwarding::FullNat { lease, .. } = &mut backend.forwarding else {
            panic!("a full-nat service");
        };
        lease.ports = ports;
    }
    service
}

fn every_port(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talks: Vec<_> = (0..OWN_PORTS)
        .map(|number| kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number))
        .collect();
    for talk in &talks {
        world.establish(talk)?;
    }
    for talk in talks.iter().rev() {
        world.both("each its own", talk, |frame| frame)?;
        assert_eq!(world.connection(talk.client)?.own_port, talk.own_port);
    }
    Ok(world.checked())
}

fn exhausted(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[with_ports(kind, 1, 3)])?;
    for number in 0..3 {
        world.establish(&kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number))?;
    }
    for number in 3..8 {
        let first = kind.talk(number, 1).client_opens();
        world.unchanged("one more", Outcome::PortsExhausted, &first)?;
    }
    assert_eq!(world.connections()?.len(), 3, "nothing is remembered of those");
    for number in 0..3 {
        let talk = kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number);
        world.both("the others go on", &talk, |frame| frame)?;
    }
    Ok(world.checked())
}

fn elsewhere(kind: Kind) -> anyhow::Result<usize> {
    let mut service = with_ports(kind, 2, 2);
    service.slots = vec![1, 2];
    let world = World::new(&[service.clone()])?;
    // In turn: 1, 2, 1, 2. Then both are exhausted.
    for (number, (server, port)) in (0..).zip([(1, 0), (2, 0), (1, 1), (2, 1)]) {
        world.establish(&kind.talk(number, server).by_own_port(FIRST_OWN_PORT + port))?;
    }
    world.unchanged(
        "both exhausted",
        Outcome::PortsExhausted,
        &kind.talk(9, 1).client_opens(),
    )?;

    service = with_ports(kind, 2, 1);
    if let Forwarding::FullNat { lease, .. } = &mut service.backends[1].forwarding {
        lease.ports = 50;
    }
    let world = World::new(&[service])?;
    world.establish(&kind.talk(0, 1))?;
    for number in 1..20u16 {
        let talk = kind
            .talk(number.into(), 2)
            .by_own_port(FIRST_OWN_PORT + number - 1);
        world.open("the first has none: the second takes it", &talk)?;
    }
    Ok(world.checked() + 5)
}

/// However long ago it was given.
fn living(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[with_ports(kind, 1, 2)])?;
    let talks = [0, 1].map(|n| kind.talk(n.into(), 1).by_own_port(FIRST_OWN_PORT + n));
    for talk in &talks {
        world.establish(talk)?;
    }
    for _ in 0..3 {
        aging::ports(&mut world, 5000)?;
        let first = kind.talk(7, 1).client_opens();
        world.unchanged("both are in use", Outcome::PortsExhausted, &first)?;
        for talk in &talks {
            world.both("they live", talk, |frame| frame)?;
        }
    }
    // One is forgotten: its port may go to somebody else, whom the backend's late packets reach.
    aging::entries(&mut world, 2000)?;
    world.both("one of them is kept", &talks[1], |frame| frame)?;
    let now = world.dataplane.now()?;
    assert_eq!(world.dataplane.connections().sweep(now), 1);
    jiffies::next()?;
    let next = kind.talk(7, 1);
    world.open("in its place", &next)?;
    if kind.is_tcp() {
        let late = talks[0].client_says(b"late");
        let expected = Seen::refused(Outcome::FullNatUnknown, &late);
        world.expect("the one that is forgotten", &late.bytes(), &expected)?;
    }
    world.both("the one that has it now", &next, |frame| frame)?;
    world.both("the other one", &talks[1], |frame| frame)?;
    Ok(world.checked())
}

/// After a connection has ended the backend may remember it for a while.
fn rests(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[with_ports(kind, 1, 1)])?;
    let first = kind.talk(1, 1);
    world.establish(&first)?;
    if kind.is_tcp() {
        world.forward("FIN", &first, first.client_says(b"").fin())?;
        world.answer("FIN", &first, first.backend_says(b"").fin())?;
        world.forward("the last ACK", &first, first.client_says(b""))?;
        assert_eq!(world.connection(first.client)?.state, State::Closed);
    } else {
        aging::entries(&mut world, 2000)?;
        let now = world.dataplane.now()?;
        assert_eq!(world.dataplane.connections().sweep(now), 1);
    }
    let next = kind.talk(2, 1);
    world.unchanged("at once", Outcome::PortsExhausted, &next.client_opens())?;
    aging::ports(&mut world, 3)?;
    // Where all were taken nobody tries again in the same jiffy.
    jiffies::next()?;
    world.establish(&next)?;
    if kind.is_tcp() {
        let last = first.client_says(b"");
        let expected = Seen::refused(Outcome::FullNatUnknown, &last);
        world.expect("the last ACK once more", &last.bytes(), &expected)?;
    }
    world.both("undisturbed by that", &next, |frame| frame)?;
    Ok(world.checked())
}

fn second_service(kind: Kind, forwarding: Forwarding) -> ServiceEntry {
    let backend = BackendEntry {
        id: 77,
        forwarding,
        ..kind.backend(1)
    };
    ServiceEntry {
        number: 2,
        ports: one_port(8080),
        ..kind.service_of(vec![backend])
    }
}

fn talk_to_second(kind: Kind, client: u32, service: &ServiceEntry) -> Talk {
    Talk {
        backend: service.backends[0].clone(),
        ..kind.talk(client, 1).at_port(8080)
    }
}

/// Each has its own ports towards it.
fn shared(kind: Kind) -> anyhow::Result<usize> {
    let lease = PortLease {
        first_port: 30_000,
        ports: 10,
        first_element: 500,
    };
    let source = kind.own_address();
    let second = second_service(kind, Forwarding::FullNat { source, lease });
    let world = World::new(&[kind.service(1), second.clone()])?;
    let one = kind.talk(1, 1);
    // The same client, from the same port.
    let other = talk_to_second(kind, 1, &second).by_own_port(30_000);
    let third = talk_to_second(kind, 2, &second).by_own_port(30_001);
    for talk in [&one, &other, &third] {
        world.establish(talk)?;
    }
    for talk in [&third, &one, &other, &one] {
        world.both("each its own", talk, |frame| frame)?;
    }
    let stray = one.clone().by_own_port(30_005);
    world.unchanged(
        "to a port that nobody has",
        Outcome::NoConnection,
        &stray.backend_says(b"?"),
    )?;
    Ok(world.checked())
}

fn shared_with_nat(kind: Kind) -> anyhow::Result<usize> {
    let second = second_service(kind, Forwarding::Nat);
    let world = World::new(&[kind.service(1), second.clone()])?;
    let one = kind.talk(1, 1);
    let other = talk_to_second(kind, 1, &second);
    for talk in [&one, &other] {
        world.establish(talk)?;
    }
    for talk in [&other, &one, &other] {
        world.both("each its own", talk, |frame| frame)?;
    }
    Ok(world.checked())
}

/// Without an entry its port could not be found again: the connection is not taken, and that has a name.
fn table_full(kind: Kind) -> anyhow::Result<usize> {
    let world = World::with_room(&[kind.service(1)], 1)?;
    let talks: Vec<_> = (0..8u16)
        .map(|number| kind.talk(number.into(), 1).by_own_port(FIRST_OWN_PORT + number))
        .collect();
    for talk in &talks {
        world.establish(talk)?;
    }
    for number in 20..30 {
        let first = kind.talk(number, 1).client_opens();
        world.unchanged("one more", Outcome::TableFull, &first)?;
    }
    for talk in &talks {
        world.both("the others go on", talk, |frame| frame)?;
    }
    let clients: BTreeSet<_> = world.connections()?.iter().map(|c| c.client).collect();
    assert_eq!(clients.len(), talks.len());
    Ok(world.checked())
}

/// The host's own, those of others, and those that were never given.
fn nobodys(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    for port in [
        FIRST_OWN_PORT - 1,
        FIRST_OWN_PORT + 1,
        FIRST_OWN_PORT + OWN_PORTS - 1,
        FIRST_OWN_PORT + OWN_PORTS,
        22,
        65_535,
    ] {
        let stray = talk.clone().by_own_port(port);
        let purpose = format!("port {port}");
        world.unchanged(&purpose, Outcome::NoConnection, &stray.backend_says(b"?"))?;
    }
    let other_address = SocketAddr::new(kind.router_address(), talk.own_port);
    let elsewhere = talk.backend_says(b"?").with_destination(other_address);
    world.unchanged("the port of another address", Outcome::NoConnection, &elsewhere)?;
    let direct = talk.backend_says(b"?").with_destination(talk.client);
    world.unchanged("to the client itself", Outcome::NoConnection, &direct)?;
    Ok(world.checked())
}
