//! Services of several ports. (What packets look like is in `matrix`.)

use std::net::SocketAddr;

use lb::config::{Ports, Protocol};
use lb::dataplane::{BackendEntry, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::frame::Says;
use crate::kind::{FIRST_OWN_PORT, Family, Flavour, Kind, Mode, RANGE, one_port};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Nat, Mode::FullNat, Mode::Dsr, Mode::Ipip] {
        for family in [Family::Ipv4, Family::Ipv6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let kind = Kind {
                    mode,
                    family,
                    protocol,
                    flavour: Flavour::Range,
                };
                let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
                    let name = format!("ranges::{title}_{}", kind.slug());
                    cases.push(Case::of(kind.cell(), name, move || run(kind)));
                };
                case("the_first_port_and_the_last", edges);
                case("every_port_is_a_connection_of_its_own", ports);
                case("a_service_of_one_port_comes_first", one_port_first);
                case("any_port", any_port);
            }
        }
    }
    cases
}

fn edges(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    for (number, port) in (0u16..).zip([RANGE.0, RANGE.0 + 1, 7500, RANGE.1]) {
        let talk = kind
            .talk(number.into(), 1)
            .at_port(port)
            .by_own_port(FIRST_OWN_PORT + number);
        world.establish(&talk)?;
        world.both("data", &talk, |frame| frame)?;
        assert_eq!(world.connection(talk.client)?.vip_port, port);
    }
    for port in [RANGE.0 - 1, RANGE.1 + 1, 1, 80, 65_535, 0] {
        let talk = kind.talk(9, 1).at_port(port);
        for frame in [talk.client_opens(), talk.client_says(b"x")] {
            world.unchanged(&format!("port {port}"), Outcome::NotOurs, &frame)?;
        }
        if talk.is_answered() {
            let answer = talk.backend_says(b"x");
            world.unchanged(&format!("from port {port}"), Outcome::NoConnection, &answer)?;
            let about = talk.client_says(b"x");
            let quoted = about.packet.header_length() + 8;
            let from = talk.backend.endpoint.ip();
            let error = talk.error_from_backends_side(&about, Says::PortUnreachable, from, quoted);
            world.unchanged("an error about that port", Outcome::IcmpNotOurs, &error)?;
        }
    }
    Ok(world.checked())
}

/// The same client's, from the same port.
fn ports(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(3)])?;
    let talks: Vec<Talk> = (0..9u16)
        .map(|number| {
            let server = (number % 3) as u8 + 1;
            let own_port = FIRST_OWN_PORT + number / 3;
            kind.talk(1, server).at_port(7100 + number).by_own_port(own_port)
        })
        .collect();
    for talk in &talks {
        world.establish(talk)?;
    }
    for talk in talks.iter().rev() {
        world.both("each its own", talk, |frame| frame)?;
        let about = talk.backend_says(b"");
        let quoted = about.packet.header_length() + 8;
        let error = talk.error_from_clients_side(&about, Says::TooBig(1300), kind.router_address(), quoted);
        let expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(&error));
        world.expect("an error about it", &error.bytes(), &expected)?;
    }
    assert_eq!(world.connections()?.len(), talks.len());
    Ok(world.checked())
}

/// One port of a range is another service's: its packets go there, both ways, and the others do not.
fn one_port_first(kind: Kind) -> anyhow::Result<usize> {
    let single = Kind {
        flavour: Flavour::Plain,
        ..kind
    };
    let endpoint = match kind.mode {
        Mode::Nat | Mode::FullNat => SocketAddr::new(kind.endpoint(2).ip(), 8443),
        Mode::Dsr | Mode::Ipip => SocketAddr::new(kind.endpoint(2).ip(), 7443),
    };
    let backend = BackendEntry {
        endpoint,
        ..single.backend(2)
    };
    let one = ServiceEntry {
        number: 2,
        ports: one_port(7443),
        ..single.service_of(vec![backend.clone()])
    };
    for services in [[kind.service(1), one.clone()], [one.clone(), kind.service(1)]] {
        let world = World::new(&services)?;
        let to_one = Talk {
            backend: backend.clone(),
            ..single.talk(1, 2).at_port(7443)
        };
        let to_range = kind.talk(1, 1).at_port(7444);
        for talk in [&to_one, &to_range] {
            world.establish(talk)?;
        }
        for talk in [&to_range, &to_one, &to_range] {
            world.both("each its own", talk, |frame| frame)?;
        }
        if kind.is_answered() {
            // The range's backend has that port as well; nothing of the range comes from there.
            let stray = kind.talk(1, 1).at_port(7443).backend_says(b"?");
            world.unchanged("from the range's backend", Outcome::NoConnection, &stray)?;
        }
    }
    Ok(16)
}

fn any_port(kind: Kind) -> anyhow::Result<usize> {
    let service = ServiceEntry {
        ports: Ports::Range(1..=65_535),
        ..kind.service(1)
    };
    let world = World::new(&[service])?;
    for (number, port) in (0u16..).zip([1, 22, 443, 8443, 50_000, 65_535]) {
        let talk = kind
            .talk(number.into(), 1)
            .at_port(port)
            .by_own_port(FIRST_OWN_PORT + number);
        world.establish(&talk)?;
        world.both("data", &talk, |frame| frame)?;
    }
    world.unchanged(
        "port 0",
        Outcome::NotOurs,
        &kind.talk(9, 1).at_port(0).client_opens(),
    )?;
    Ok(world.checked())
}
