//! Answers in a backend's stead: connections that nobody takes, and those whose backend is down.

use std::net::SocketAddrV4;

use lb::dataplane::ServiceEntry;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use crate::frame::{Frame, Talk};
use crate::world::{CLIENT, Seen, World, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("resets::nobody_takes_connections", no_backend),
        Case::new("resets::existing_connections_live_without_slots", draining),
        Case::new("resets::a_backend_that_is_down_with_on_down_reset", on_down_reset),
        Case::new("resets::a_syn_after_a_reset_goes_elsewhere", syn_after_reset),
        Case::new("resets::a_rst_to_a_reset_connection_is_dropped", rst_after_reset),
    ]
}

/// Segments of every kind that is answered; and the answer's numbers differ in each.
fn answered(client_sends: &dyn Fn() -> Frame) -> Vec<(&'static str, Frame)> {
    let mut last = client_sends().ack().fin().payload(b"bye");
    last.tcp.sequence_number = u32::MAX;
    let mut wraps = client_sends().fin().payload(b"bye");
    wraps.tcp.sequence_number = u32::MAX;
    vec![
        ("ACK", client_sends().ack()),
        ("data", client_sends().ack().payload(b"odd")),
        ("data without ACK", client_sends().payload(b"four")),
        ("nothing at all", client_sends()),
        ("FIN without ACK", client_sends().fin()),
        ("FIN with ACK, at the end of the numbers", last),
        ("FIN without ACK, over the end of the numbers", wraps),
        ("IP options", client_sends().ack().ipv4_options(10)),
        (
            "IP and TCP options, payload, without ACK",
            client_sends().ipv4_options(3).tcp_options(10).payload(&[1; 1001]),
        ),
        ("padding", client_sends().ack().padding(&[0; 6])),
    ]
}

fn opening(client_sends: &dyn Fn() -> Frame) -> Vec<(&'static str, Frame)> {
    vec![
        ("SYN", client_sends().syn()),
        ("SYN with TCP options", client_sends().syn().tcp_options(5)),
        ("SYN with data", client_sends().syn().payload(b"early")),
        ("SYN and FIN", client_sends().syn().fin()),
        ("SYN-ACK", client_sends().syn().ack()),
    ]
}

fn no_backend() -> anyhow::Result<()> {
    let mut service = www(1);
    service.slots.clear();
    let world = World::new(&[
        service,
        ServiceEntry {
            number: 2,
            vip: SocketAddrV4::new(*CLIENT.ip(), 1),
            ..www(0)
        },
    ])?;
    let talk = Talk::new(CLIENT, 1);
    let client_sends = || talk.client_sends();
    for (purpose, frame) in [opening(&client_sends), answered(&client_sends)].concat() {
        world.expect(
            purpose,
            &frame.bytes(),
            &Seen::refused(Outcome::RefusedNoBackend, &frame),
        )?;
    }
    for frame in [
        talk.client_sends().rst(),
        talk.client_sends().rst().ack(),
        talk.client_sends().syn().rst(),
    ] {
        let frame = frame.bytes();
        world.expect("RST", &frame, &Seen::unchanged(Outcome::RstForNobody, &frame))?;
    }
    assert_eq!(world.connections()?, [], "nothing is remembered");
    Ok(())
}

fn draining() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    let mut service = www(1);
    service.slots.clear();
    world.publish(&[service])?;
    world.forward("data", &talk, talk.client_sends().ack().payload(b"x"))?;
    world.answer("data", &talk, talk.backend_sends().ack().payload(b"x"))?;
    world.forward("RST", &talk, talk.client_sends().rst())
}

fn down(mut service: ServiceEntry) -> ServiceEntry {
    let first = service.backends.first_mut().expect("it has backends");
    (first.up, first.reset) = (false, true);
    service.slots.retain(|id| *id != 1);
    service
}

fn on_down_reset() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    world.publish(&[down(www(2))])?;
    assert_eq!(world.connection(CLIENT)?.state, State::Established);
    let client_sends = || talk.client_sends();
    for (purpose, frame) in answered(&client_sends) {
        world.expect(
            purpose,
            &frame.bytes(),
            &Seen::refused(Outcome::ResetBackendDown, &frame),
        )?;
        assert_eq!(world.connection(CLIENT)?.state, State::Closed, "{purpose}");
    }
    Ok(())
}

fn syn_after_reset() -> anyhow::Result<()> {
    for reset_first in [false, true] {
        let mut world = World::new(&[www(1)])?;
        let talk = Talk::new(CLIENT, 1);
        world.establish(&talk)?;
        world.publish(&[down(www(2))])?;
        if reset_first {
            let ack = talk.client_sends().ack();
            world.expect(
                "ACK",
                &ack.bytes(),
                &Seen::refused(Outcome::ResetBackendDown, &ack),
            )?;
        }
        let elsewhere = Talk::new(CLIENT, 2);
        world.establish(&elsewhere)?;
        let late = talk.backend_sends().ack().payload(b"late").bytes();
        world.expect(
            "the old backend wakes up",
            &late,
            &Seen::unchanged(Outcome::NoConnection, &late),
        )?;
        let connection = world.connection(CLIENT)?;
        assert_eq!((connection.backend, connection.state), (2, State::Established));
    }
    Ok(())
}

fn rst_after_reset() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    world.publish(&[down(www(2))])?;
    let rst = talk.client_sends().rst().ack().bytes();
    world.expect("RST", &rst, &Seen::unchanged(Outcome::RstForNobody, &rst))?;
    assert!(!world.connection(CLIENT)?.is_open());
    Ok(())
}
