use std::num::NonZeroU16;

use lb_common::abi::{Listener, Membership};
use lb_common::checksum::of_bytes;
use lb_common::lookup_table::{ipv4_endpoint, ipv6_endpoint};
use lb_common::wire::network::{ICMP, ICMPV6, TCP, UDP};

use super::*;

fn backend(id: u16, endpoint: &str) -> BackendEntry {
    BackendEntry {
        id,
        endpoint: endpoint.parse().unwrap(),
        forwarding: Forwarding::Nat,
        next_hop: None,
        up: true,
        leaving: false,
        reset: false,
        weight: 1,
        timeouts: [8, 1818, 31],
    }
}

fn service(number: u16, vip: &str, backends: Vec<BackendEntry>) -> ServiceEntry {
    let vip: SocketAddr = vip.parse().unwrap();
    ServiceEntry {
        number,
        vip: vip.ip(),
        ports: NonZeroU16::new(vip.port()).map_or(Ports::Range(1000..=1999), Ports::One),
        protocol: Protocol::Tcp,
        leaving: false,
        stateless: false,
        silent: false,
        answer_ping: true,
        choice: Choice::Cursor,
        slots: backends.iter().map(|b| b.id).collect(),
        previous_slots: Vec::new(),
        backends,
    }
}

fn key(endpoint: &str, protocol: u8) -> u64 {
    let endpoint: SocketAddr = endpoint.parse().unwrap();
    let port = endpoint.port().to_be();
    match endpoint.ip() {
        IpAddr::V4(v4) => ipv4_endpoint(u32::from_ne_bytes(v4.octets()), port, protocol),
        IpAddr::V6(v6) => ipv6_endpoint(abi::address(&v6.octets()), port, protocol),
    }
}

fn listener(snapshot: &Snapshot, endpoint: &str, protocol: u8) -> Option<Listener> {
    let value = snapshot.services_by_endpoint.find(key(endpoint, protocol))?;
    Listener::new(value as u16, value & !0xffff)
}

fn members(snapshot: &Snapshot, endpoint: &str, protocol: u8) -> Vec<Membership> {
    let mut found = Vec::new();
    let mut at = snapshot.backends_by_endpoint.find(key(endpoint, protocol));
    while let Some(membership) = at.map(Membership::unpack) {
        found.push(membership);
        at = (membership.next != 0).then(|| snapshot.siblings[membership.next as usize]);
    }
    found
}

#[test]
fn slots_of_services_lie_one_after_the_other_previous_ones_as_well() {
    let many = (1..=40)
        .map(|id| backend(id, &format!("198.18.1.{id}:443")))
        .collect();
    let mut second = service(2, "203.0.113.10:80", vec![backend(50, "198.18.2.1:80")]);
    second.previous_slots = vec![50, 51];
    second.choice = Choice::Hash;
    let third = service(3, "203.0.113.10:81", vec![backend(60, "198.18.2.1:81")]);
    let snapshot = Snapshot::build(&[service(1, "203.0.113.10:443", many), second, third]).unwrap();
    let second = snapshot.services[&2];
    assert_eq!((second.first_slot, second.slots), (40, 1));
    assert_eq!((second.previous_slot, second.previous_slots), (41, 2));
    assert_eq!((second.choice, second.ports), (Choice::Hash as u32, [80, 80]));
    assert_eq!(snapshot.services[&3].first_slot, 43);
    assert_eq!(snapshot.slots.len(), 2);
    assert_eq!(snapshot.slots[1].slots[8..12], [50, 50, 51, 60]);
}

#[test]
fn services_are_found_by_address_port_and_protocol_and_vips_by_themselves() {
    let mut dns = service(2, "203.0.113.10:443", vec![backend(2, "198.18.1.2:443")]);
    dns.protocol = Protocol::Udp;
    dns.stateless = true;
    let mut six = service(3, "[2001:db8::10]:0", vec![backend(3, "[2001:db8:1::2]:0")]);
    six.answer_ping = false;
    let www = service(1, "203.0.113.10:443", vec![backend(1, "198.18.1.2:443")]);
    let snapshot = Snapshot::build(&[www, dns, six]).unwrap();
    let found = |endpoint, protocol| listener(&snapshot, endpoint, protocol).unwrap();
    assert_eq!(found("203.0.113.10:443", TCP), Listener::new(1, 0).unwrap());
    assert_eq!(
        found("203.0.113.10:443", UDP),
        Listener::new(2, Listener::STATELESS).unwrap()
    );
    assert_eq!(
        found("[2001:db8::10]:0", TCP),
        Listener::new(3, Listener::WIDE).unwrap()
    );
    assert_eq!(
        found("203.0.113.10:0", ICMP),
        Listener::new(0, Listener::VIP | Listener::ANSWERS_ECHO).unwrap()
    );
    assert_eq!(
        found("[2001:db8::10]:0", ICMPV6),
        Listener::new(0, Listener::VIP).unwrap()
    );
    assert_eq!(listener(&snapshot, "203.0.113.10:80", TCP), None);
    assert!(snapshot.several_ports);
    assert_eq!(snapshot.services[&3].ports, [1000, 1999]);

    assert_eq!(members(&snapshot, "198.18.1.2:443", TCP)[0].flags, 0);
    assert_eq!(
        members(&snapshot, "198.18.1.2:443", UDP)[0].flags,
        Membership::STATELESS
    );
    assert_eq!(
        members(&snapshot, "[2001:db8:1::2]:0", TCP)[0].flags,
        Membership::WIDE
    );
}

#[test]
fn a_shared_endpoint_chains_its_services() {
    let services: Vec<_> = (1..=8)
        .map(|n| {
            service(
                n,
                &format!("203.0.113.{n}:443"),
                vec![backend(n + 100, "198.18.1.2:443")],
            )
        })
        .collect();
    let snapshot = Snapshot::build(&services).unwrap();
    let found: Vec<_> = members(&snapshot, "198.18.1.2:443", TCP)
        .iter()
        .map(|membership| (membership.service, membership.backend))
        .collect();
    assert_eq!(found, (1..=8).map(|n| (n, n + 100)).collect::<Vec<_>>());
    let shared = |snapshot: &Snapshot, id| snapshot.backends[&id].flags & abi::Backend::SHARED != 0;
    assert!((101..=108).all(|id| shared(&snapshot, id)));
    assert!(!shared(&Snapshot::build(&services[..1]).unwrap(), 101));
    let ninth = service(9, "203.0.113.9:443", vec![backend(109, "198.18.1.2:443")]);
    assert!(matches!(
        Snapshot::build(&[services, vec![ninth]].concat()),
        Err(SnapshotError::TooManySiblings { services: 9, .. })
    ));
}

#[test]
fn only_whose_answers_come_by_are_looked_for() {
    let mut www = service(
        1,
        "203.0.113.10:443",
        vec![
            backend(1, "198.18.1.2:443"),
            backend(2, "198.18.1.3:443"),
            backend(3, "198.18.1.4:443"),
            backend(4, "198.18.1.4:443"),
        ],
    );
    let source = "198.18.0.1".parse().unwrap();
    let lease = PortLease {
        first_port: 10240,
        ports: 100,
        first_element: 7,
    };
    www.backends[0].forwarding = Forwarding::Dsr;
    www.backends[1].forwarding = Forwarding::Ipip { source };
    // A change of the mode: the old one is still there.
    www.backends[3].forwarding = Forwarding::FullNat { source, lease };
    let snapshot = Snapshot::build(&[www]).unwrap();
    assert_eq!(members(&snapshot, "198.18.1.2:443", TCP), []);
    assert_eq!(members(&snapshot, "198.18.1.3:443", TCP), []);
    let found: Vec<_> = members(&snapshot, "198.18.1.4:443", TCP)
        .iter()
        .map(|it| (it.backend, it.flags))
        .collect();
    assert_eq!(found, [(3, 0), (4, Membership::FULL_NAT)]);
    let outer = snapshot.outers[&4];
    assert_eq!(
        (outer.first_port, outer.ports, outer.first_element),
        (10240, 100, 7)
    );
    assert_eq!(snapshot.outers.keys().copied().collect::<Vec<_>>(), [2, 4]);
    for (id, mode) in [
        (1, abi::Mode::Dsr),
        (2, abi::Mode::Ipip),
        (3, abi::Mode::Nat),
        (4, abi::Mode::FullNat),
    ] {
        assert_eq!(snapshot.backends[&id].mode, mode as u8);
    }
}

/// The sum that the program adds length and type of service to gives the checksum of the whole header.
#[test]
fn the_outer_headers_sum_is_that_of_its_constant_words() {
    let (source, destination) = ([198, 18, 0, 1], [198, 18, 1, 2]);
    for (vip, tunnelled, inside) in [
        ("203.0.113.10:443", "198.18.1.2:443", 4),
        ("[2001:db8::10]:443", "198.18.1.2:443", 41),
    ] {
        let mut www = service(1, vip, vec![backend(1, tunnelled)]);
        www.backends[0].forwarding = Forwarding::Ipip {
            source: source.into(),
        };
        let snapshot = Snapshot::build(&[www]).unwrap();
        let header = [
            &[0x45, 0x2e, 0x05, 0x14, 0, 0, 0x40, 0, 64, inside, 0, 0],
            &source[..],
            &destination,
        ]
        .concat();
        let variable = u32::from(u16::from_ne_bytes([0, 0x2e])) + u32::from(u16::from_ne_bytes([0x05, 0x14]));
        let sum = u32::from(snapshot.outers[&1].header_sum) + variable;
        assert_eq!(!lb_common::checksum::fold(sum), of_bytes(0, &header));
    }
}

/// A packet's checksum, changed by a record's deltas, is that of the rewritten packet.
#[test]
fn deltas_turn_one_checksum_into_the_other() {
    let cases = [
        ("203.0.113.10:443", "198.18.1.2:8443"),
        ("203.0.113.10:443", "198.18.1.2:443"),
        ("203.0.113.10:0", "198.18.1.2:0"),
        ("[2001:db8::10]:443", "[2001:db8:1::2]:8443"),
        ("[2001:db8::10]:0", "[2001:db8:1::2]:0"),
    ];
    for (vip, endpoint) in cases {
        let snapshot = Snapshot::build(&[service(1, vip, vec![backend(1, endpoint)])]).unwrap();
        let record = snapshot.backends[&1];
        let header = |end: &str| -> Vec<u8> {
            let end: SocketAddr = end.parse().unwrap();
            let address = match end.ip() {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            [&[198, 18, 0, 2, 0x9c, 0x40], &address[..]].concat()
        };
        let with_port = |end: &str| {
            let port = end.parse::<SocketAddr>().unwrap().port();
            [header(end), port.to_be_bytes().to_vec()].concat()
        };
        let transport = record.transport_delta.apply(of_bytes(0, &with_port(vip)));
        assert_eq!(transport, of_bytes(0, &with_port(endpoint)), "{vip} {endpoint}");
        let network = record.network_delta.apply(of_bytes(0, &header(vip)));
        assert_eq!(network, of_bytes(0, &header(endpoint)), "{vip} {endpoint}");
    }
}

#[test]
fn contradictions_are_refused() {
    let twice = [
        service(1, "203.0.113.10:443", vec![backend(1, "198.18.1.2:443")]),
        service(2, "203.0.113.10:443", vec![backend(2, "198.18.2.2:443")]),
    ];
    assert_eq!(
        Snapshot::build(&twice),
        Err(SnapshotError::DuplicateVip("203.0.113.10:443 (TCP)".into()))
    );
    let bad = [service(0, "203.0.113.10:443", vec![])];
    assert!(matches!(
        Snapshot::build(&bad),
        Err(SnapshotError::BadNumber { number: 0, .. })
    ));
    let same_id = [service(
        1,
        "203.0.113.10:443",
        vec![backend(1, "198.18.1.2:1"), backend(1, "198.18.1.2:2")],
    )];
    assert!(matches!(
        Snapshot::build(&same_id),
        Err(SnapshotError::BadNumber { number: 1, .. })
    ));
    let mixed = [service(
        1,
        "203.0.113.10:443",
        vec![backend(1, "[2001:db8:1::2]:443")],
    )];
    assert!(matches!(
        Snapshot::build(&mixed),
        Err(SnapshotError::Families { .. })
    ));
}

#[test]
fn a_port_of_several_that_is_anothers_backend_is_refused_unless_it_never_gets_packets() {
    let several = service(1, "203.0.113.10:0", vec![backend(1, "198.18.1.2:0")]);
    let build = |vip, endpoint| {
        Snapshot::build(&[several.clone(), service(2, vip, vec![backend(2, endpoint)])]).map(|_| ())
    };
    assert_eq!(build("203.0.113.10:1443", "198.18.1.2:1443"), Ok(()), "same VIP");
    assert_eq!(build("203.0.113.11:80", "198.18.1.2:80"), Ok(()), "outside");
    assert_eq!(
        build("203.0.113.11:1443", "198.18.1.3:1443"),
        Ok(()),
        "other server"
    );
    for vip in ["203.0.113.11:1443", "203.0.113.10:80"] {
        let error = build(vip, "198.18.1.2:1443").unwrap_err();
        assert!(
            matches!(error, SnapshotError::Ambiguous { .. }),
            "{vip}: {error:?}"
        );
    }
}

#[test]
fn own_ports_on_which_a_service_listens_are_refused() {
    let mut www = service(1, "203.0.113.10:443", vec![backend(1, "198.18.1.2:443")]);
    let lease = PortLease {
        first_port: 1500,
        ports: 1000,
        first_element: 0,
    };
    www.backends[0].forwarding = Forwarding::FullNat {
        source: "198.18.0.1".parse().unwrap(),
        lease,
    };
    let build = |vip| {
        let other = service(2, vip, vec![backend(2, "198.18.1.3:443")]);
        Snapshot::build(&[www.clone(), other]).map(|_| ())
    };
    assert_eq!(build("198.18.0.1:443"), Ok(()));
    for vip in ["198.18.0.1:1500", "198.18.0.1:2499", "198.18.0.1:0"] {
        let error = build(vip).unwrap_err();
        assert!(
            matches!(
                error,
                SnapshotError::OwnPortsListenedOn {
                    first: 1500,
                    last: 2499,
                    ..
                }
            ),
            "{error:?}"
        );
    }
    assert_eq!(build("198.18.0.1:2500"), Ok(()));
}

/// As many numbers as there are, all in use: twice as many services and backends as a configuration may have.
#[test]
fn every_number_may_be_in_use_at_once() {
    let services: Vec<_> = (1..SERVICE_NUMBERS as u16)
        .map(|n| {
            let ids = (n - 1) * 4 + 1..=(n * 4).min(BACKEND_IDS as u16 - 1);
            let backends = ids.map(|id| backend(id, &format!("[2001:db8:{n:x}::{id:x}]:8000")));
            service(n, &format!("[2001:db8:ffff::{n:x}]:443"), backends.collect())
        })
        .collect();
    let snapshot = Snapshot::build(&services).unwrap();
    assert_eq!(snapshot.services.len(), SERVICE_NUMBERS as usize - 1);
    assert_eq!(snapshot.backends.len(), 4 * (SERVICE_NUMBERS as usize - 1));
    for service in &services {
        let vip = format!("[{}]:443", service.vip);
        assert_eq!(
            listener(&snapshot, &vip, TCP).map(Listener::number),
            Some(service.number)
        );
    }
}

#[test]
fn the_pool_holds_so_many_slots() {
    let full = service(1, "203.0.113.10:443", vec![backend(1, "198.18.1.2:443")]);
    let slots = (SLOT_LINES * SLOTS_PER_LINE) as usize;
    let with = |more| ServiceEntry {
        slots: vec![1; slots + more],
        ..full.clone()
    };
    assert!(Snapshot::build(&[with(0)]).is_ok());
    assert!(matches!(
        Snapshot::build(&[with(1)]),
        Err(SnapshotError::TooMany { .. })
    ));
}
