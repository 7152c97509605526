//! Pinging a VIP.

use std::net::IpAddr;

use lb::dataplane::ServiceEntry;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::frame::{Extension, Frame};
use crate::kind::{Family, Kind, NAT, one_port};
use crate::seen::Seen;
use crate::world::{ROUTER_MAC, UPLINK_MAC, World};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, name) in [(Family::Ipv4, "ipv4"), (Family::Ipv6, "ipv6")] {
        let kind = Kind { family, ..NAT };
        let mut case = |title: &str, run: fn(Kind) -> anyhow::Result<()>| {
            cases.push(Case::new(format!("echo::{title}_{name}"), move || run(kind)));
        };
        case("answered", answered);
        case("left_to_the_kernel", left_to_the_kernel);
        case("answered_without_backends", without_backends);
        case("one_service_of_a_vip_is_enough", one_service);
    }
    cases
}

fn service(kind: Kind, answer_ping: bool) -> ServiceEntry {
    ServiceEntry {
        answer_ping,
        ..kind.service(1)
    }
}

fn request(kind: Kind, payload: &[u8]) -> Frame {
    Frame::echo_request(kind.client(1).ip(), kind.vip().ip(), payload)
}

fn is_answered(world: &World, purpose: &str, request: &Frame) -> anyhow::Result<()> {
    let reply = Seen::changed(Outcome::EchoAnswered, &request.echo_reply());
    world.expect(purpose, &request.bytes(), &reply)
}

fn answered(kind: Kind) -> anyhow::Result<()> {
    let world = World::new(&[service(kind, true)])?;
    for length in [0, 1, 2, 55, 56, 1400, 2000] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 13) as u8).collect();
        is_answered(&world, &format!("{length} bytes"), &request(kind, &payload))?;
    }
    for time_to_live in [0, 1, 2, 255] {
        let request = request(kind, b"from near and far").time_to_live(time_to_live);
        is_answered(&world, &format!("time to live {time_to_live}"), &request)?;
    }
    let odd = if kind.is_ipv4() {
        request(kind, b"options").ipv4_options(10)
    } else {
        request(kind, b"options").extensions(&[Extension::HopByHop(0), Extension::DestinationOptions(2)])
    };
    is_answered(&world, "with options", &odd)?;
    is_answered(&world, "padded", &request(kind, b"").padding(&[0; 18]))?;

    let damaged = request(kind, b"damaged");
    let mut reply = Seen::changed(Outcome::EchoAnswered, &damaged.echo_reply());
    let mut sent = damaged.bytes();
    for frame in [&mut sent, &mut reply.frame] {
        let last = frame.len() - 1;
        frame[last] ^= 1;
    }
    world.expect("damaged, and its reply as well", &sent, &reply)?;
    assert_eq!(world.connections()?, []);
    Ok(())
}

fn left_to_the_kernel(kind: Kind) -> anyhow::Result<()> {
    let world = World::new(&[service(kind, false)])?;
    world.unchanged("to the VIP", Outcome::IcmpNotOurs, &request(kind, b"ping"))?;
    let world = World::new(&[service(kind, true)])?;
    let elsewhere: [IpAddr; 2] = [kind.router_address(), kind.endpoint(1).ip()];
    for address in elsewhere {
        let request = Frame::echo_request(kind.client(1).ip(), address, b"ping");
        world.unchanged("to somebody else", Outcome::IcmpNotOurs, &request)?;
    }
    let reply = request(kind, b"ping").echo_reply();
    world.unchanged(
        "a reply",
        Outcome::IcmpNotOurs,
        &reply.between(ROUTER_MAC, UPLINK_MAC),
    )?;
    let long = request(kind, &[5; 2000]).fragments(&[1000]);
    world.unchanged("the first part of one", Outcome::IcmpNotOurs, &long[0])?;
    world.unchanged("a later part of one", Outcome::IcmpNotOurs, &long[1])
}

fn without_backends(kind: Kind) -> anyhow::Result<()> {
    let mut nobody = service(kind, true);
    nobody.slots.clear();
    let world = World::new(&[nobody.clone()])?;
    is_answered(&world, "nobody takes connections", &request(kind, b"ping"))?;
    nobody.backends.clear();
    let world = World::new(&[nobody])?;
    is_answered(&world, "there is nobody", &request(kind, b"ping"))
}

fn one_service(kind: Kind) -> anyhow::Result<()> {
    let other = ServiceEntry {
        number: 2,
        ports: one_port(80),
        ..service(kind, false)
    };
    let other = ServiceEntry {
        backends: vec![],
        slots: vec![],
        ..other
    };
    let world = World::new(&[other.clone(), service(kind, true)])?;
    is_answered(&world, "the second one says so", &request(kind, b"ping"))?;
    let world = World::new(&[service(kind, true), other])?;
    is_answered(&world, "the first one says so", &request(kind, b"ping"))
}
