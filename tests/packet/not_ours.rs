//! What is none of ours passes, byte by byte as it came.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::PacketBuilder;
use lb_common::outcome::Outcome;
use lb_common::wire::{ethernet, ipv4, tcp};
use lb_tests::harness::Case;

use crate::frame::{Frame, Talk, client};
use crate::world::{
    CLIENT, INSIDE_MAC, ROUTER_MAC, Seen, UPLINK_MAC, VIP, World, action_number, web, web_mac, www,
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("not_ours::passes_unchanged", passes_unchanged),
        Case::new("not_ours::every_truncation", truncated),
        Case::new("not_ours::malformed_headers", malformed),
        Case::new(
            "not_ours::random_frames_are_judged_as_the_host_parses_them",
            random_frames,
        ),
    ]
}

fn on_clients_side() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(ROUTER_MAC, UPLINK_MAC)
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame);
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = encoded(|frame| {
        frame.extend([0xff; 6]);
        frame.extend(ROUTER_MAC);
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(ROUTER_MAC);
        frame.extend(CLIENT.ip().octets());
        frame.extend([0; 6]);
        frame.extend(VIP.ip().octets());
    });
    frame.resize(60, 0);
    frame
}

fn ipv6() -> Vec<u8> {
    let [from, to] = [[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2];
    let packet = on_clients_side().ipv6(from, to, 64).tcp(40000, 443, 1, 1);
    encoded(|frame| packet.write(frame, b"").expect("fits"))
}

fn udp(destination_port: u16) -> Vec<u8> {
    let packet = on_clients_side().ipv4(CLIENT.ip().octets(), VIP.ip().octets(), 64);
    encoded(|frame| {
        packet
            .udp(40000, destination_port)
            .write(frame, b"QUIC")
            .expect("fits");
    })
}

fn ping() -> Vec<u8> {
    let packet = on_clients_side().ipv4(CLIENT.ip().octets(), VIP.ip().octets(), 64);
    encoded(|frame| {
        packet
            .icmpv4_echo_request(1, 1)
            .write(frame, b"ping")
            .expect("fits");
    })
}

fn vlan_tagged() -> Vec<u8> {
    let packet = on_clients_side()
        .single_vlan(etherparse::VlanId::try_new(5).expect("12 bits"))
        .ipv4(CLIENT.ip().octets(), VIP.ip().octets(), 64)
        .tcp(CLIENT.port(), VIP.port(), 1, 1)
        .syn();
    encoded(|frame| packet.write(frame, b"").expect("fits"))
}

fn passes_unchanged() -> anyhow::Result<()> {
    let world = World::new(&[www(2)])?;
    let talk = Talk::new(CLIENT, 1);
    world.establish(&talk)?;
    let syn = || talk.client_sends().syn();
    let to_mac = |mac| syn().between(ROUTER_MAC, mac).bytes();
    let later_fragment = {
        let mut frame = syn();
        frame.ipv4.dont_fragment = false;
        frame.ipv4.fragment_offset = 1.try_into()?;
        frame.bytes()
    };
    let other_protocol = |mut frame: Frame, protocol: u8| {
        frame.ipv4.protocol = protocol.into();
        frame.bytes()
    };
    let probe = SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, 1), 50000);
    let to_probe = Talk {
        client: probe,
        ..talk.clone()
    };
    let other_server = Talk {
        backend: web(2),
        ..talk.clone()
    };
    let cases = [
        ("ARP", arp(), Outcome::NotIpv4),
        ("IPv6", ipv6(), Outcome::NotIpv4),
        ("a VLAN tag", vlan_tagged(), Outcome::NotIpv4),
        (
            "IEEE 802.3 length",
            [&[2; 12][..], &[0, 46], &[0xaa; 46]].concat(),
            Outcome::NotIpv4,
        ),
        ("UDP to the VIP's port", udp(443), Outcome::NotTcp),
        ("UDP to another port", udp(53), Outcome::NotTcp),
        ("a ping of the VIP", ping(), Outcome::NotTcp),
        (
            "SCTP to the VIP's port",
            other_protocol(syn(), 132),
            Outcome::NotTcp,
        ),
        ("IPIP to the VIP", other_protocol(syn(), 4), Outcome::NotTcp),
        ("broadcast", to_mac([0xff; 6]), Outcome::Multicast),
        ("multicast", to_mac([0x01, 0, 0x5e, 0, 0, 1]), Outcome::Multicast),
        ("a later fragment", later_fragment, Outcome::LaterFragment),
        (
            "another port of the VIP",
            syn().with_destination(SocketAddrV4::new(*VIP.ip(), 444)).bytes(),
            Outcome::NotOurs,
        ),
        (
            "the port's bytes turned around",
            syn()
                .with_destination(SocketAddrV4::new(*VIP.ip(), 443u16.swap_bytes()))
                .bytes(),
            Outcome::NotOurs,
        ),
        (
            "another address",
            syn()
                .with_destination(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 11), 443))
                .bytes(),
            Outcome::NotOurs,
        ),
        (
            "directly to a backend",
            syn().with_destination(web(1).endpoint).bytes(),
            Outcome::NotOurs,
        ),
        (
            "from the VIP",
            talk.backend_sends().with_source(VIP).bytes(),
            Outcome::NotOurs,
        ),
        (
            "from another port of a backend",
            talk.backend_sends()
                .with_source(SocketAddrV4::new(*web(1).endpoint.ip(), 22))
                .ack()
                .bytes(),
            Outcome::NotOurs,
        ),
        (
            "the answer to a health probe",
            to_probe.backend_sends().syn().ack().bytes(),
            Outcome::NoConnection,
        ),
        (
            "the end of a health probe",
            to_probe.backend_sends().ack().fin().bytes(),
            Outcome::NoConnection,
        ),
        (
            "from a backend that the entry does not name",
            other_server.backend_sends().syn().ack().bytes(),
            Outcome::NoConnection,
        ),
        (
            "the same with a time to live that is over",
            other_server.backend_sends().ack().time_to_live(1).bytes(),
            Outcome::NoConnection,
        ),
    ];
    for (purpose, frame, outcome) in cases {
        world.expect(purpose, &frame, &Seen::unchanged(outcome, &frame))?;
    }
    assert_eq!(world.connections()?.len(), 1, "nothing of this is remembered");
    Ok(())
}

/// Cut after every byte from the shortest frame that the runner takes: never forwarded, and always named.
fn truncated() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let talk = Talk::new(CLIENT, 1);
    for frame in [
        talk.client_sends().syn(),
        talk.client_sends()
            .syn()
            .ipv4_options(3)
            .tcp_options(4)
            .payload(b"more than the frame has"),
        talk.backend_sends().syn().ack().ipv4_options(10).tcp_options(10),
    ] {
        let whole = frame.bytes();
        for length in 14..whole.len() {
            let cut = &whole[..length];
            world.expect(
                &format!("{length} bytes"),
                cut,
                &Seen::unchanged(Outcome::MalformedIpv4, cut),
            )?;
        }
    }
    Ok(())
}

fn malformed() -> anyhow::Result<()> {
    use Outcome::{MalformedIpv4, MalformedTcp};
    let world = World::new(&[www(1)])?;
    let syn = Talk::new(CLIENT, 1).client_sends().syn().padding(&[0; 6]).bytes();
    let cases = [
        ("version 0", 14, 0x05, MalformedIpv4),
        ("version 6", 14, 0x65, MalformedIpv4),
        ("header length 0", 14, 0x40, MalformedIpv4),
        ("header length 16", 14, 0x44, MalformedIpv4),
        ("header length beyond the packet", 14, 0x4b, MalformedIpv4),
        ("total length 0", 17, 0, MalformedIpv4),
        ("total length below the header's", 17, 19, MalformedIpv4),
        ("total length beyond the frame", 17, 47, MalformedIpv4),
        ("total length far beyond the frame", 16, 0xff, MalformedIpv4),
        ("no room for a TCP header", 17, 39, MalformedTcp),
        ("only the ports of a TCP header", 17, 24, MalformedTcp),
        ("nothing of a TCP header", 17, 20, MalformedTcp),
        ("data offset 0", 46, 0x00, MalformedTcp),
        ("data offset 16", 46, 0x40, MalformedTcp),
        ("data offset in the padding", 46, 0x60, MalformedTcp),
        ("data offset beyond everything", 46, 0xf0, MalformedTcp),
        ("options that leave TCP no room", 14, 0x46, MalformedTcp),
    ];
    for (purpose, at, byte, outcome) in cases {
        let mut frame = syn.clone();
        frame[at] = byte;
        world.expect(purpose, &frame, &Seen::unchanged(outcome, &frame))?;
    }
    assert_eq!(world.connections()?, []);
    Ok(())
}

/// What the parser of `lb-common` says on the host is what the loaded program counts; and a packet that parses is judged
/// by its endpoints alone.
fn random_frames() -> anyhow::Result<()> {
    let world = World::new(&[www(2)])?;
    let mut random = fastrand::Rng::with_seed(2026);
    let mut parsed = 0;
    for number in 0..10_000 {
        let frame = random_frame(&mut random);
        let seen = world.run(&frame)?;
        let outcome = *seen.outcomes.keys().next().expect("every frame is counted");
        assert_eq!(seen.outcomes.values().sum::<u64>(), 1, "{number}: {frame:02x?}");
        match parse(&frame) {
            Err(expected) => assert_eq!(seen, Seen::unchanged(expected, &frame), "{number}: {frame:02x?}"),
            Ok((from, to)) => {
                parsed += 1;
                assert!(
                    possible(from, to).contains(&outcome),
                    "{number}: {outcome}: {frame:02x?}"
                );
                let named = lb_common::outcome::OUTCOMES.iter().find(|o| o.name() == outcome);
                let expected = named.map(|outcome| action_number(outcome.action()));
                assert!(
                    Some(seen.action) == expected || outcome == "to_client",
                    "{number}: {seen:?}"
                );
            }
        }
    }
    assert!(
        (2_000..9_000).contains(&parsed),
        "{parsed} of the frames mean anything"
    );
    Ok(())
}

fn parse(frame: &[u8]) -> Result<(SocketAddrV4, SocketAddrV4), Outcome> {
    ethernet::parse_ipv4_frame(frame)?;
    let ipv4 = ipv4::parse_tcp_packet(frame)?;
    let tcp = tcp::parse(frame, &ipv4)?;
    let endpoint = |address: u32, port| SocketAddrV4::new(address.to_ne_bytes().into(), u16::from_be(port));
    Ok((
        endpoint(ipv4.source, tcp.source_port),
        endpoint(ipv4.destination, tcp.destination_port),
    ))
}

fn possible(from: SocketAddrV4, to: SocketAddrV4) -> &'static [&'static str] {
    if to == VIP {
        &[
            "to_backend",
            "to_backend_at_risk",
            "time_to_live_over",
            "fragment_of_service",
        ]
    } else if from == web(1).endpoint || from == web(2).endpoint {
        &[
            "to_client",
            "no_connection",
            "time_to_live_over",
            "fragment_of_service",
        ]
    } else {
        &["not_ours"]
    }
}

/// A frame of one of a few clients or backends, then up to four of its first bytes or its length changed.
fn random_frame(random: &mut fastrand::Rng) -> Vec<u8> {
    let talk = Talk::new(client(random.u32(0..8)), random.u8(1..=2));
    let mut frame = if random.bool() {
        talk.client_sends()
    } else {
        talk.backend_sends()
    };
    if random.u8(0..10) == 0 {
        frame = frame.between(web_mac(9), INSIDE_MAC);
    }
    let flags = random.u8(..);
    frame.tcp.syn = flags & 3 == 0;
    frame.tcp.ack = flags & 4 != 0;
    frame.tcp.fin = flags & 0x18 == 0;
    frame.tcp.rst = flags & 0xe0 == 0;
    let mut bytes = frame
        .ipv4_options(random.usize(0..=10) / 3 * 3)
        .tcp_options(random.usize(0..=10))
        .payload(&vec![0xa5; random.usize(0..40)])
        .padding(&vec![0; random.usize(0..8)])
        .bytes();
    for _ in 0..random.u8(0..5) {
        let at = random.usize(0..bytes.len().min(74));
        bytes[at] = match random.u8(0..4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ (1 << random.u8(0..8)),
            _ => random.u8(..),
        };
    }
    if random.u8(0..10) == 0 {
        bytes.truncate(random.usize(14..bytes.len()));
    }
    bytes
}
