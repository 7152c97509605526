//! What a rewritten packet looks like: every byte, both directions.

use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use crate::frame::Talk;
use crate::world::{CLIENT, INGRESS, Seen, World, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("nat::a_connection_from_syn_to_both_fins", connection),
        Case::new("nat::direct_access_from_a_port_that_was_balanced", direct_access),
        Case::new("nat::ip_options_of_every_length", ip_options),
        Case::new("nat::tcp_options_of_every_length", tcp_options),
        Case::new("nat::padding_is_left_alone", padding),
        Case::new("nat::payloads_of_every_parity", payloads),
        Case::new("nat::checksums_at_their_edges", checksum_edges),
        Case::new("nat::a_damaged_packet_leaves_damaged", damaged),
        Case::new("nat::time_to_live", time_to_live),
        Case::new("nat::first_fragments_are_dropped_by_name", first_fragments),
        Case::new("nat::out_of_the_interface_that_it_came_in_by", transmit),
    ]
}

fn connection() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    let state = |expected: State| -> anyhow::Result<()> {
        let connection = world.connection(CLIENT)?;
        assert_eq!((connection.service, connection.backend), (1, 1));
        assert_eq!(connection.state, expected);
        Ok(())
    };
    world.open("SYN", &talk)?;
    state(State::SynSeen)?;
    world.answer("SYN-ACK", &talk, talk.backend_sends().syn().ack())?;
    state(State::SynAckSeen)?;
    world.forward("ACK", &talk, talk.client_sends().ack())?;
    state(State::Established)?;
    world.forward(
        "request",
        &talk,
        talk.client_sends().ack().payload(b"GET / HTTP/1.1\r\n"),
    )?;
    world.answer(
        "response",
        &talk,
        talk.backend_sends().ack().payload(b"HTTP/1.1 200 OK"),
    )?;
    world.forward("FIN", &talk, talk.client_sends().ack().fin())?;
    state(State::ClientFin)?;
    world.answer(
        "the rest of a download",
        &talk,
        talk.backend_sends().ack().payload(&[7; 1400]),
    )?;
    state(State::ClientFin)?;
    world.answer("FIN", &talk, talk.backend_sends().ack().fin())?;
    state(State::Closed)?;
    world.forward("last ACK", &talk, talk.client_sends().ack())?;
    state(State::Closed)
}

/// Once its connection is over, the client may use the port to talk to the same server past the VIP.
fn direct_access() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    let accepted = talk.backend_sends().syn().ack();
    let ends = [
        [talk.client_sends().ack().fin(), talk.client_sends().ack()],
        [talk.client_sends().ack().fin(), talk.client_sends().rst()],
        [talk.client_sends().rst(), talk.client_sends().rst()],
    ];
    for ends in ends {
        world.establish(&talk)?;
        world.answer("a SYN-ACK while it lasts", &talk, accepted.clone())?;
        world.answer("the backend's end", &talk, talk.backend_sends().ack().fin())?;
        for end in ends {
            world.forward("the client's end", &talk, end)?;
        }
        for frame in [accepted.clone(), talk.backend_sends().ack().payload(b"direct")] {
            let frame = frame.bytes();
            world.expect("direct", &frame, &Seen::unchanged(Outcome::NoConnection, &frame))?;
        }
    }
    world.open("balanced again", &talk)
}

fn ip_options() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    for words in 0..=10 {
        let purpose = format!("{words} words of options");
        let payload = vec![0x5a; words];
        world.forward(
            &purpose,
            &talk,
            talk.client_sends().ack().ipv4_options(words).payload(&payload),
        )?;
        world.answer(
            &purpose,
            &talk,
            talk.backend_sends().ack().ipv4_options(words).payload(&payload),
        )?;
    }
    Ok(())
}

fn tcp_options() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    for words in 0..=10 {
        let purpose = format!("{words} words of options");
        world.forward(
            &purpose,
            &talk,
            talk.client_sends()
                .ack()
                .tcp_options(words)
                .ipv4_options(10 - words),
        )?;
        world.answer(
            &purpose,
            &talk,
            talk.backend_sends()
                .ack()
                .tcp_options(words)
                .ipv4_options(10 - words),
        )?;
    }
    Ok(())
}

fn padding() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    for padding in [
        &b"\x00\x00\x00\x00\x00\x00"[..],
        b"\xff",
        b"left over from an earlier frame",
    ] {
        world.forward("padded", &talk, talk.client_sends().ack().padding(padding))?;
        world.answer("padded", &talk, talk.backend_sends().ack().padding(padding))?;
    }
    Ok(())
}

fn payloads() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    for length in [1usize, 2, 3, 63, 64, 535, 1459, 1460] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
        let purpose = format!("{length} bytes");
        world.forward(&purpose, &talk, talk.client_sends().ack().payload(&payload))?;
        world.answer(&purpose, &talk, talk.backend_sends().ack().payload(&payload))?;
    }
    Ok(())
}

/// Every value of one payload word: among them are those for which the checksum, before or after, is 0x0000 or the sum
/// carries all the way around.
fn checksum_edges() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    for word in 0..=u16::MAX {
        let frame = talk.client_sends().ack().payload(&word.to_be_bytes());
        let (_, seen) = world.pass(&frame.bytes())?;
        assert_eq!(seen, talk.at_backend(&frame).bytes(), "{word:04x}");
        if word % 4 == 0 {
            let mut frame = talk.backend_sends().ack();
            frame.ipv4.identification = word;
            let (_, seen) = world.pass(&frame.bytes())?;
            assert_eq!(seen, talk.at_client(&frame).bytes(), "{word:04x}");
        }
    }
    Ok(())
}

/// Checksums are changed, not made anew: an error that happened before the balancer is still seen after it.
fn damaged() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    let frame = talk.client_sends().ack().payload(b"intact");
    let (mut sent, mut expected) = (frame.bytes(), talk.at_backend(&frame).bytes());
    for bytes in [&mut sent, &mut expected] {
        let last = bytes.len() - 1;
        bytes[last] ^= 0x10;
        bytes[15] ^= 0x04; // type of service, under the IPv4 header's checksum
    }
    let mut seen = Seen::to_backend(&talk, &frame);
    seen.frame = expected;
    world.expect("two bits turned over", &sent, &seen)
}

fn time_to_live() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    for time_to_live in [0, 1] {
        let syn = talk.client_sends().syn().time_to_live(time_to_live).bytes();
        world.expect("SYN", &syn, &Seen::unchanged(Outcome::TimeToLiveOver, &syn))?;
    }
    assert_eq!(world.connections()?, []);
    world.establish(&talk)?;
    for time_to_live in [0, 1] {
        for frame in [talk.client_sends().ack(), talk.backend_sends().ack()] {
            let frame = frame.time_to_live(time_to_live).bytes();
            world.expect("data", &frame, &Seen::unchanged(Outcome::TimeToLiveOver, &frame))?;
        }
    }
    for time_to_live in [2, 128, 255] {
        world.forward(
            "enough",
            &talk,
            talk.client_sends().ack().time_to_live(time_to_live),
        )?;
        world.answer(
            "enough",
            &talk,
            talk.backend_sends().ack().time_to_live(time_to_live),
        )?;
    }
    Ok(())
}

fn first_fragments() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    let dropped = |purpose: &str, mut frame: crate::frame::Frame| {
        frame.ipv4.more_fragments = true;
        frame.ipv4.dont_fragment = false;
        let frame = frame.bytes();
        world.expect(
            purpose,
            &frame,
            &Seen::unchanged(Outcome::FragmentOfService, &frame),
        )
    };
    dropped("SYN", talk.client_sends().syn().payload(&[0; 8]))?;
    dropped("ACK of nobody", talk.client_sends().ack().payload(&[0; 8]))?;
    assert_eq!(world.connections()?, []);
    world.establish(&talk)?;
    dropped("a client's data", talk.client_sends().ack().payload(&[0; 8]))?;
    dropped("a backend's data", talk.backend_sends().ack().payload(&[0; 8]))?;
    world.forward("whole packets go on", &talk, talk.client_sends().ack())
}

/// One-armed: the backends are behind the interface that the clients are behind.
fn transmit() -> anyhow::Result<()> {
    let mut service = www(1);
    let hop = service.backends[0].next_hop.as_mut().expect("web1 has one");
    hop.interface_index = INGRESS;
    let world = World::new(&[service])?;
    let talk = Talk::new(CLIENT, 1);
    let syn = talk.client_sends().syn();
    let mut seen = Seen::to_backend(&talk, &syn).opening();
    seen.action = 3;
    world.expect("SYN", &syn.bytes(), &seen)
}
