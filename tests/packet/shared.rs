//! One endpoint behind several services, and services that leave.

use std::net::{Ipv4Addr, SocketAddr};

use lb::dataplane::{BackendEntry, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use crate::talk::{Talk, client};
use crate::world::{CLIENT, World, service, web, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("shared::each_service_gets_its_answers", both_work),
        Case::new("shared::eight_services", eight),
        Case::new("shared::a_collision_takes_another_backend", collision),
        Case::new("shared::a_collision_without_another_backend", no_other),
        Case::new("shared::a_leaving_service_keeps_its_connections", leaving),
        Case::new("shared::a_service_that_is_gone", gone),
    ]
}

fn second_vip() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(203, 0, 113, 20).into(), 8080)
}

/// `web1`, …, as a backend of another service: the same endpoint, another id.
fn again(server: u8, id: u16) -> BackendEntry {
    BackendEntry { id, ..web(server) }
}

fn in_second(client: SocketAddr, server: u8, id: u16) -> Talk {
    Talk {
        vip: second_vip(),
        backend: again(server, id),
        ..Talk::new(client, server)
    }
}

fn both_work() -> anyhow::Result<()> {
    let world = World::new(&[www(1), service(2, second_vip(), vec![again(1, 101)])])?;
    let first = Talk::new(client(1), 1);
    let second = in_second(client(2), 1, 101);
    world.establish(&first)?;
    world.establish(&second)?;
    for talk in [&first, &second] {
        world.forward("data", talk, talk.client_sends().ack().payload(b"?"))?;
        world.answer("data", talk, talk.backend_sends().ack().payload(b"!"))?;
    }
    let probe = Talk::new(client(3), 1).backend_sends().ack();
    world.unchanged("an answer to neither", Outcome::NoConnection, &probe)
}

fn eight() -> anyhow::Result<()> {
    let vip = |number: u16| SocketAddr::new(Ipv4Addr::new(203, 0, 113, 100).into(), number);
    let services: Vec<_> = (1..=8)
        .map(|n| service(n, vip(n), vec![again(1, 100 + n)]))
        .collect();
    let world = World::new(&services)?;
    for number in 1..=8u16 {
        let talk = Talk {
            vip: vip(number),
            backend: again(1, 100 + number),
            ..Talk::new(client(number.into()), 1)
        };
        world.establish(&talk)?;
        world.answer("data", &talk, talk.backend_sends().ack().payload(b"!"))?;
    }
    Ok(())
}

fn collision() -> anyhow::Result<()> {
    let world = World::new(&[www(1), service(2, second_vip(), vec![again(1, 101), web(2)])])?;
    let first = Talk::new(CLIENT, 1);
    world.establish(&first)?;
    // The cursor stands at the shared endpoint, where the client's port is taken.
    let second = in_second(CLIENT, 2, 2);
    world.establish(&second)?;
    world.forward("the first goes on", &first, first.client_sends().ack())?;
    world.answer("and is answered as such", &first, first.backend_sends().ack())?;
    world.answer("as is the second", &second, second.backend_sends().ack())?;
    // Another port may have the shared one.
    world.establish(&in_second(client(7), 1, 101))
}

fn no_other() -> anyhow::Result<()> {
    let world = World::new(&[www(1), service(2, second_vip(), vec![again(1, 101)])])?;
    let first = Talk::new(CLIENT, 1);
    world.establish(&first)?;
    let second = in_second(CLIENT, 1, 101);
    let syn = second.client_sends().syn();
    world.unchanged("SYN", Outcome::SharedEndpointCollision, &syn)?;
    assert_eq!(world.connections()?.len(), 1);
    world.answer("the first is answered", &first, first.backend_sends().ack())
}

fn leaving() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    let talk = Talk::new(client(1), 1);
    world.establish(&talk)?;
    world.publish(&[ServiceEntry {
        leaving: true,
        slots: vec![],
        ..www(1)
    }])?;
    world.forward("data", &talk, talk.client_sends().ack().payload(b"?"))?;
    world.answer("data", &talk, talk.backend_sends().ack().payload(b"!"))?;
    let new = Talk::new(client(2), 1);
    for frame in [
        new.client_sends().syn(),
        new.client_sends().ack(),
        new.client_sends().rst(),
    ] {
        world.unchanged("anything new", Outcome::NotOurs, &frame)?;
    }
    world.forward("FIN", &talk, talk.client_sends().ack().fin())?;
    world.answer("FIN", &talk, talk.backend_sends().ack().fin())?;
    assert_eq!(world.connection(talk.client)?.state, State::Closed);
    let syn = talk.client_sends().syn();
    world.unchanged("a new one from the old port", Outcome::NotOurs, &syn)
}

fn gone() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    let talk = Talk::new(client(1), 1);
    world.establish(&talk)?;
    world.publish(&[])?;
    for frame in [talk.client_sends().ack(), talk.backend_sends().ack()] {
        world.unchanged("nobody's", Outcome::NotOurs, &frame)?;
    }
    world.publish(&[www(1)])?;
    world.forward("back", &talk, talk.client_sends().ack())
}
