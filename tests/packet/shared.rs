//! One endpoint behind several services.

use std::net::IpAddr;

use lb::config::Protocol;
use lb::dataplane::{BackendEntry, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::frame::Says;
use crate::kind::{Family, Flavour, Kind, Mode, one_port};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for flavour in [Flavour::Plain, Flavour::Range] {
                let kind = Kind {
                    mode: Mode::Nat,
                    family,
                    protocol,
                    flavour,
                };
                let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
                    let name = format!("shared::{title}_{}", kind.slug());
                    cases.push(Case::of(kind.cell(), name, move || run(kind)));
                };
                case("each_service_gets_its_answers", both_work);
                case("eight_services", eight);
                case("a_collision_takes_another_backend", collision);
                case("a_collision_without_another_backend", no_other);
                case("a_service_that_is_gone", gone);
            }
        }
    }
    cases
}

/// `web1`, …, as a backend of another service: the same endpoint, another id.
fn again(kind: Kind, server: u8, id: u16) -> BackendEntry {
    BackendEntry {
        id,
        ..kind.backend(server)
    }
}

/// Another service: at another port of the VIP, or if the first has several of those, at another VIP.
fn another(kind: Kind, number: u16, backends: Vec<BackendEntry>) -> ServiceEntry {
    let service = kind.service_of(backends);
    match kind.flavour {
        Flavour::Range => ServiceEntry {
            number,
            vip: other_vip(kind, number),
            ..service
        },
        _ => ServiceEntry {
            number,
            ports: one_port(8000 + number),
            ..service
        },
    }
}

fn other_vip(kind: Kind, number: u16) -> IpAddr {
    match kind.vip().ip() {
        IpAddr::V4(address) => (u32::from(address) + u32::from(number)).to_be_bytes().into(),
        IpAddr::V6(address) => (u128::from(address) + u128::from(number)).to_be_bytes().into(),
    }
}

/// A client's connection by way of another service.
fn in_another(kind: Kind, number: u16, client: u32, backend: BackendEntry) -> Talk {
    let mut talk = kind.talk(client, 1);
    match kind.flavour {
        Flavour::Range => talk.vip.set_ip(other_vip(kind, number)),
        _ => talk.vip.set_port(8000 + number),
    }
    Talk { backend, ..talk }
}

fn both_work(kind: Kind) -> anyhow::Result<usize> {
    let shared = again(kind, 1, 101);
    let world = World::new(&[kind.service(1), another(kind, 2, vec![shared.clone()])])?;
    let first = kind.talk(1, 1);
    let second = in_another(kind, 2, 2, shared);
    world.establish(&first)?;
    world.establish(&second)?;
    for talk in [&first, &second, &first] {
        world.both("data", talk, |frame| frame)?;
        let about = talk.client_says(b"");
        let quoted = about.packet.header_length() + 8;
        let from = talk.backend.endpoint.ip();
        let error = talk.error_from_backends_side(&about, Says::TooBig(1300), from, quoted);
        let expected = Seen::changed(Outcome::IcmpToClient, &talk.error_at_client(&error)).transmitted();
        world.expect("an error about it", &error.bytes(), &expected)?;
    }
    let probe = kind.talk(3, 1).backend_says(b"ok");
    world.unchanged("an answer to neither", Outcome::NoConnection, &probe)?;
    Ok(world.checked())
}

fn eight(kind: Kind) -> anyhow::Result<usize> {
    let services: Vec<_> = (1..=8)
        .map(|number| another(kind, number, vec![again(kind, 1, 100 + number)]))
        .collect();
    let world = World::new(&services)?;
    let talks: Vec<_> = (1..=8u16)
        .map(|number| in_another(kind, number, number.into(), again(kind, 1, 100 + number)))
        .collect();
    for talk in &talks {
        world.establish(talk)?;
    }
    for talk in talks.iter().rev() {
        world.both("data", talk, |frame| frame)?;
    }
    Ok(world.checked())
}

/// The same client, from the same port, to the same endpoint by way of two services: their answers could not be told apart.
fn collision(kind: Kind) -> anyhow::Result<usize> {
    let shared = again(kind, 1, 101);
    let other = kind.backend(2);
    let services = [
        kind.service(1),
        another(kind, 2, vec![shared.clone(), other.clone()]),
    ];
    let world = World::new(&services)?;
    let first = kind.talk(1, 1);
    world.establish(&first)?;
    // It is the shared endpoint's turn, where the client's port is taken.
    let second = in_another(kind, 2, 1, other);
    world.establish(&second)?;
    for talk in [&first, &second, &first] {
        world.both("each its own", talk, |frame| frame)?;
    }
    // Another port may have the shared one.
    world.establish(&in_another(kind, 2, 7, shared))?;
    Ok(world.checked())
}

fn no_other(kind: Kind) -> anyhow::Result<usize> {
    let shared = again(kind, 1, 101);
    let world = World::new(&[kind.service(1), another(kind, 2, vec![shared.clone()])])?;
    let first = kind.talk(1, 1);
    world.establish(&first)?;
    let second = in_another(kind, 2, 1, shared);
    let outcome = Outcome::SharedEndpointCollision;
    world.unchanged("the first packet", outcome, &second.client_opens())?;
    assert_eq!(world.connections()?.len(), 1);
    world.both("the other connection goes on", &first, |frame| frame)?;
    Ok(world.checked())
}

/// From one moment to the next, and back: nothing of it is forgotten.
fn gone(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    world.publish(&[])?;
    for frame in [talk.client_says(b"?"), talk.backend_says(b"!")] {
        world.unchanged("nobody's", Outcome::NotOurs, &frame)?;
    }
    world.publish(&[kind.service(1)])?;
    world.both("back", &talk, |frame| frame)?;
    Ok(world.checked())
}
