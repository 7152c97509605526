//! What is none of ours passes, byte by byte as it came.

use std::net::SocketAddr;

use etherparse::{IpNumber, ip_number};
use lb::config::Protocol;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::frame::{Content, Frame};
use crate::kind::{Family, Kind, NAT};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::{ROUTER_MAC, World};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("not_ours::neither_ipv4_nor_ipv6", not_ip)];
    for family in [Family::Ipv4, Family::Ipv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let kind = Kind {
                family,
                protocol,
                ..NAT
            };
            cases.push(Case::of(
                kind.cell(),
                format!("not_ours::passes_unchanged_{}", kind.slug()),
                move || passes_unchanged(kind),
            ));
        }
    }
    cases
}

fn not_ip() -> anyhow::Result<()> {
    let world = World::new(&[NAT.service(1)])?;
    let arp = {
        let mut frame = vec![0xff; 6];
        frame.extend(ROUTER_MAC);
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(ROUTER_MAC);
        frame.extend([198, 18, 0, 2, 0, 0, 0, 0, 0, 0, 203, 0, 113, 10]);
        frame.resize(60, 0);
        frame
    };
    let frames = [
        ("ARP", arp),
        (
            "IEEE 802.3 length",
            [&[2; 12][..], &[0, 46], &[0xaa; 46]].concat(),
        ),
        ("LLDP", [&[2; 12][..], &[0x88, 0xcc], &[0; 46]].concat()),
        ("nothing but a header", [&[2; 12][..], &[0x88, 0xb5]].concat()),
    ];
    for (purpose, frame) in frames {
        world.expect(purpose, &frame, &Seen::unchanged(Outcome::NotIp, &frame))?;
    }
    Ok(())
}

fn passes_unchanged(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(2)])?;
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    let port = |of: SocketAddr, port| SocketAddr::new(of.ip(), port);
    let first = || talk.client_opens();
    let carrying = |protocol: IpNumber| {
        let mut frame = first();
        let bytes = frame.packet.content.bytes(&frame.packet.header);
        frame.packet.content = Content::Bytes(protocol, bytes);
        frame
    };
    let other_protocol = |talk: &Talk| {
        let protocol = if kind.is_tcp() {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        Talk {
            protocol,
            ..talk.clone()
        }
    };
    let probe = Talk {
        client: kind.client(60_000),
        ..talk.clone()
    };
    let other_server = Talk {
        backend: kind.backend(2),
        ..talk.clone()
    };
    let elsewhere = SocketAddr::new(kind.router_address(), talk.vip.port());
    let multicast = if kind.is_ipv4() {
        [0x01, 0, 0x5e, 0, 0, 1]
    } else {
        [0x33, 0x33, 0, 0, 0, 1]
    };
    let other_icmp = if kind.is_ipv4() {
        ip_number::IPV6_ICMP
    } else {
        ip_number::ICMP
    };
    let rows: Vec<(&str, Frame, Outcome)> = vec![
        (
            "SCTP to the VIP",
            carrying(ip_number::SCTP),
            Outcome::OtherProtocol,
        ),
        ("GRE to the VIP", carrying(ip_number::GRE), Outcome::OtherProtocol),
        (
            "IPv4 in IP to the VIP",
            carrying(ip_number::IPV4),
            Outcome::OtherProtocol,
        ),
        (
            "IPv6 in IP to the VIP",
            carrying(ip_number::IPV6),
            Outcome::OtherProtocol,
        ),
        (
            "the other family's ICMP",
            carrying(other_icmp),
            Outcome::OtherProtocol,
        ),
        (
            "broadcast",
            first().between(ROUTER_MAC, [0xff; 6]),
            Outcome::Multicast,
        ),
        (
            "multicast",
            first().between(ROUTER_MAC, multicast),
            Outcome::Multicast,
        ),
        (
            "the same port of the VIP, but the other protocol",
            other_protocol(&talk).client_opens(),
            Outcome::NotOurs,
        ),
        (
            "another port of the VIP",
            first().with_destination(port(talk.vip, talk.vip.port() + 1)),
            Outcome::NotOurs,
        ),
        (
            "the port's bytes turned around",
            first().with_destination(port(talk.vip, talk.vip.port().swap_bytes())),
            Outcome::NotOurs,
        ),
        (
            "port 0",
            first().with_destination(port(talk.vip, 0)),
            Outcome::NotOurs,
        ),
        (
            "another address",
            first().with_destination(elsewhere),
            Outcome::NotOurs,
        ),
        (
            "directly to a backend",
            first().with_destination(talk.server()),
            Outcome::NotOurs,
        ),
        (
            "from the VIP",
            talk.backend_says(b"").with_source(talk.vip),
            Outcome::NotOurs,
        ),
        (
            "from the backend's port, but the other protocol",
            other_protocol(&talk).backend_says(b""),
            Outcome::NotOurs,
        ),
        (
            "from another port of a backend",
            talk.backend_says(b"").with_source(port(talk.server(), 22)),
            Outcome::NotOurs,
        ),
        (
            "the answer to a health probe",
            probe.backend_accepts(),
            Outcome::NoConnection,
        ),
        (
            "what follows it",
            probe.backend_says(b"ok"),
            Outcome::NoConnection,
        ),
        (
            "from a backend that the entry does not name",
            other_server.backend_accepts(),
            Outcome::NoConnection,
        ),
        (
            "the same with a time to live that is over",
            other_server.backend_says(b"").time_to_live(1),
            Outcome::NoConnection,
        ),
    ];
    for (purpose, frame, outcome) in rows {
        world.unchanged(purpose, outcome, &frame)?;
    }
    assert_eq!(world.connections()?.len(), 1, "nothing of this is remembered");
    Ok(world.checked())
}
