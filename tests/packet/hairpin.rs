//! Backends that are clients: of their own service, of another one, and of the world.

use std::net::SocketAddr;

use lb::config::Protocol;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::kind::{Family, Flavour, Kind, Mode};
use crate::talk::Talk;
use crate::world::{INSIDE_MAC, World, web_mac};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Nat, Mode::FullNat] {
        for family in [Family::Ipv4, Family::Ipv6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let kind = Kind {
                    mode,
                    family,
                    protocol,
                    flavour: Flavour::Plain,
                };
                let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
                    let name = format!("hairpin::{title}_{}", kind.slug());
                    cases.push(Case::of(kind.cell(), name, move || run(kind)));
                };
                case("a_backend_is_a_client_of_its_own_service", own_service);
                case("a_backend_alone_is_a_client_of_its_own_service", alone);
                case("a_backend_is_a_client_of_others", others);
            }
        }
    }
    cases
}

/// From a port that is not its service's.
fn from_backend(kind: Kind, client: u8, server: u8) -> Talk {
    Talk {
        client: SocketAddr::new(kind.endpoint(client).ip(), 55_000),
        router: web_mac(client),
        ..kind.talk(0, server)
    }
}

/// In `nat` mode another one takes it: its own answers would go past the balancer, which could not put the VIP in their
/// place. In `full-nat` mode they come back.
fn own_service(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let mut own_ports = [0; 3];
    for number in 0..6u16 {
        // Web1's turn and web2's turn; in nat mode web2 takes both.
        let server = match kind.mode {
            Mode::Nat => 2,
            _ => (number % 2) as u8 + 1,
        };
        let mut talk = from_backend(kind, 1, server);
        talk.client.set_port(55_000 + number);
        talk.own_port += own_ports[usize::from(server)];
        own_ports[usize::from(server)] += 1;
        world.establish(&talk)?;
        world.both("data", &talk, |frame| frame)?;
    }
    Ok(world.checked())
}

fn alone(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = from_backend(kind, 1, 1);
    if kind.mode == Mode::Nat {
        world.unchanged(
            "nobody else can take it",
            Outcome::HairpinToSelf,
            &talk.client_opens(),
        )?;
        if kind.is_tcp() {
            let middle = talk.client_says(b"x");
            world.unchanged("from the middle", Outcome::HairpinToSelf, &middle)?;
        }
        assert_eq!(world.connections()?, []);
    } else {
        world.establish(&talk)?;
        world.both("it takes it itself", &talk, |frame| frame)?;
    }
    Ok(world.checked())
}

/// Of the world, from any of its ports, that of its service included; and directly of its neighbour.
fn others(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let outside = SocketAddr::new(kind.router_address(), 443);
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    for (port, outcome) in [
        (55_000, Outcome::NotOurs),
        (talk.server().port(), Outcome::NoConnection),
    ] {
        let from = SocketAddr::new(talk.server().ip(), port);
        for frame in [talk.client_opens(), talk.client_says(b"x")] {
            let out = frame
                .with_source(from)
                .with_destination(outside)
                .between(web_mac(1), INSIDE_MAC);
            let purpose = format!("to the outside, from port {port}");
            world.unchanged(&purpose, outcome, &out)?;
            let back = out.with_source(outside).with_destination(from);
            world.unchanged("and back", Outcome::NotOurs, &back)?;
        }
    }
    let neighbour = talk
        .client_opens()
        .with_source(SocketAddr::new(talk.server().ip(), 55_001))
        .with_destination(kind.talk(1, 2).server())
        .between(web_mac(1), INSIDE_MAC);
    world.unchanged("to its neighbour", Outcome::NotOurs, &neighbour)?;
    world.both("its client", &talk, |frame| frame)?;
    assert_eq!(world.connections()?.len(), 1);
    Ok(world.checked())
}
