//! From configurations to entries, one after the other.

use std::collections::HashMap;
use std::num::NonZeroU16;

use lb_common::abi::BackendCounters;

use super::*;
use crate::api::types::BackendState;
use crate::config::{self, Config, Mode, Ports, Scheduler, test_config};
use crate::dataplane::{Forwarding, ServiceEntry, Snapshot};
use crate::desired_state::DesiredBackend;
use crate::moment::Moment;
use crate::observed_state::Observed;

/// What lives on from one configuration to the next.
#[derive(Default)]
struct Running {
    identities: Identities,
    tables: SlotTables,
}

fn none(_: u16) -> BackendCounters {
    BackendCounters::default()
}

impl Running {
    /// The entries of a configuration whose backends are all up but for those named; they must fit into the maps.
    fn publish(&mut self, config: &Config, down: &[&str]) -> Vec<ServiceEntry> {
        let state = |backend: &config::Backend| {
            let up = !down.contains(&backend.name.as_str());
            DesiredBackend {
                state: if up { BackendState::Up } else { BackendState::Down },
                share: if up { backend.weight } else { 0 },
                slow_start: None,
                up,
                reset: false,
                drain_until: None,
                overdue: false,
            }
        };
        let desired: Vec<_> = config
            .services
            .iter()
            .map(|service| DesiredService {
                backends: service.backends.iter().map(state).collect(),
                service: service.clone(),
            })
            .collect();
        let wanted = wanted(&desired, |timeout| timeout.as_secs() as u16);
        self.identities
            .adopt(&wanted, config.daemon.full_nat_ports, none)
            .unwrap();
        let (entries, tables) = entries(&desired, &self.identities, &HashMap::new(), &self.tables);
        self.tables = tables;
        Snapshot::build(&entries).unwrap();
        entries
    }
}

/// Ids of a service's backends, whether they are up, and how packets get there.
fn backends(service: &ServiceEntry) -> Vec<(u16, bool, Forwarding)> {
    service
        .backends
        .iter()
        .map(|it| (it.id, it.up, it.forwarding))
        .collect()
}

fn several(ports: std::ops::RangeInclusive<u16>) -> Config {
    let mut config = test_config();
    config.services[0].ports = Ports::Range(ports);
    for backend in &mut config.services[0].backends {
        backend.port = None;
    }
    config
}

#[test]
fn a_removed_backend_keeps_its_connections_and_gets_no_slot() {
    let (mut running, mut config) = (Running::default(), test_config());
    assert_eq!(running.publish(&config, &[])[0].slots, [1, 2]);

    config.services[0].backends.remove(0);
    let service = &running.publish(&config, &[])[0];
    assert_eq!(service.slots, [2]);
    assert_eq!(
        backends(service),
        [(1, false, Forwarding::Nat), (2, true, Forwarding::Nat)]
    );

    config.services.clear();
    let service = &running.publish(&config, &[])[0];
    assert!(service.leaving && service.slots.is_empty());
}

#[test]
fn another_mode_gives_backends_new_ids_and_the_old_ones_keep_their_way() {
    let (mut running, mut config) = (Running::default(), test_config());
    running.publish(&config, &[]);
    config.services[0].mode = Mode::FullNat;
    config.services[0].source_address = Some("198.18.0.1".parse().unwrap());
    config.services[0].source_ports = 10_000..=10_099;
    let service = &running.publish(&config, &[])[0];
    assert_eq!((service.number, service.slots.as_slice()), (1, &[3, 4][..]));
    let all = backends(service);
    assert_eq!(all.len(), 4);
    for (id, up, forwarding) in all {
        assert_eq!(up, id > 2);
        assert_eq!(matches!(forwarding, Forwarding::FullNat { .. }), id > 2);
    }

    config.services[0].mode = Mode::Nat;
    let service = &running.publish(&config, &[])[0];
    assert_eq!(service.slots, [1, 2], "they come back as what they were");
}

#[test]
fn a_backend_has_the_same_own_ports_for_as_long_as_it_lives() {
    let mut config = test_config();
    config.services[0].mode = Mode::FullNat;
    config.services[0].source_address = Some("198.18.0.1".parse().unwrap());
    config.services[0].source_ports = 10_000..=10_099;
    config.daemon.full_nat_ports = 300;
    let lease = |service: &ServiceEntry, id: u16| match service.backends.iter().find(|it| it.id == id) {
        Some(it) => match it.forwarding {
            Forwarding::FullNat { lease, .. } => lease.first_element,
            other => panic!("{other:?}"),
        },
        None => panic!("no {id}"),
    };
    let mut running = Running::default();
    let www = &running.publish(&config, &[])[0];
    assert_eq!((lease(www, 1), lease(www, 2)), (0, 100));

    // Another VIP: another service, whose connections must not meet those of the one that leaves.
    config.services[0].vip = "203.0.113.11".parse().unwrap();
    let services = running.publish(&config, &[]);
    assert_eq!((lease(&services[0], 1), lease(&services[0], 2)), (0, 100));
    assert_eq!((lease(&services[1], 3), lease(&services[1], 4)), (0, 100));

    // The old ones have gone: their elements are not free, since others have them as well.
    running.identities.let_go(&Observed::default(), none);
    let web3 = config::Backend {
        name: "web3".into(),
        address: "198.18.3.2".parse().unwrap(),
        ..config.services[0].backends[0].clone()
    };
    config.services[0].backends.push(web3);
    let www = &running.publish(&config, &[])[0];
    assert_eq!((lease(www, 3), lease(www, 4), lease(www, 5)), (0, 100, 200));
}

#[test]
fn exhausted_own_ports_are_named() {
    let mut config = test_config();
    config.services[0].mode = Mode::FullNat;
    config.services[0].source_address = Some("198.18.0.1".parse().unwrap());
    let desired = [DesiredService {
        backends: Vec::new(),
        service: config.services.remove(0),
    }];
    let wanted = wanted(&desired, |_| 9);
    let error = Identities::default()
        .adopt(&wanted, 20_000, none)
        .unwrap_err()
        .to_string();
    for word in ["www", "web2", "198.18.2.2:443", "daemon.full_nat_ports = 20000"] {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn timeouts_are_those_of_the_protocol() {
    let (mut running, mut config) = (Running::default(), test_config());
    assert_eq!(
        running.publish(&config, &[])[0].backends[0].timeouts,
        [30, 7440, 120]
    );
    config.services[0].protocol = Protocol::Udp;
    let services = running.publish(&config, &[]);
    let udp = services.iter().find(|service| !service.leaving).unwrap();
    assert_eq!((udp.number, udp.backends[0].timeouts), (2, [30, 300, 120]));
}

#[test]
fn slots_before_the_last_change_name_only_backends_of_the_service() {
    let (mut running, mut config) = (Running::default(), test_config());
    config.services[0].scheduler = Scheduler::Maglev;
    let both = running.publish(&config, &[])[0].slots.clone();
    let www = &running.publish(&config, &["web1"])[0];
    assert_eq!(www.previous_slots, both);
    config.services[0].backends.remove(0);
    running.publish(&config, &[]);
    running.identities.let_go(&Observed::default(), none);
    let www = &running.publish(&config, &[])[0];
    assert_eq!(www.slots, vec![2; www.slots.len()]);
    assert!(
        www.previous_slots.iter().all(|id| [0, 2].contains(id)),
        "1 is free to be another's"
    );
}

#[test]
fn a_wanted_range_takes_the_place_of_a_leaving_port() {
    let (mut running, config) = (Running::default(), test_config());
    running.publish(&config, &[]);
    let services = running.publish(&several(1..=1000), &[]);
    assert_eq!(services.len(), 1, "443 would not be reached otherwise");
    assert!(!services[0].leaving);
    assert!(
        running.identities.services().any(|(_, service)| service.leaving),
        "it still has its number"
    );

    // Outside of the range both are there.
    let mut running = Running::default();
    running.publish(&config, &[]);
    assert_eq!(running.publish(&several(1000..=2000), &[]).len(), 2);

    // Answers of the same server to the same port, but the VIP is another one.
    let (mut running, mut other) = (Running::default(), several(1..=1000));
    running.publish(&config, &[]);
    other.services[0].vip = "203.0.113.11".parse().unwrap();
    assert_eq!(running.publish(&other, &[]).len(), 1);
}

#[test]
fn leaving_backends_make_room_at_a_shared_endpoint() {
    let mut config = test_config();
    let www = config.services.remove(0);
    config.services = (1..=8)
        .map(|n| config::Service {
            name: format!("www{n}"),
            vip: [203, 0, 113, n].into(),
            ports: Ports::One(NonZeroU16::MIN),
            ..www.clone()
        })
        .collect();
    let mut running = Running::default();
    running.publish(&config, &[]);
    for service in &mut config.services {
        service.mode = Mode::FullNat;
        service.source_address = Some("198.18.0.1".parse().unwrap());
        service.source_ports = 10_000..=10_009;
    }
    config.daemon.full_nat_ports = 1000;
    let services = running.publish(&config, &[]);
    let of_server: Vec<_> = services
        .iter()
        .flat_map(backends)
        .filter(|(_, up, _)| *up)
        .collect();
    assert_eq!(of_server.len(), 16, "all that are wanted");
}

/// 1,024 services with 4,096 backends, of both families and with every scheduler; then half of the backends fail.
#[test]
fn as_many_as_there_may_be() {
    const SCHEDULERS: [Scheduler; 5] = [
        Scheduler::Maglev,
        Scheduler::RoundRobin,
        Scheduler::LeastConnections,
        Scheduler::SourceHash,
        Scheduler::Random,
    ];
    let mut config = test_config();
    let www = config.services.remove(0);
    config.services = (0..1024u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let six = n % 2 == 1;
            let address = |host: u8| -> std::net::IpAddr {
                if six {
                    [0x2001, 0xdb8, n, 0, 0, 0, 0, u16::from(host)].into()
                } else {
                    [198, 18 + high % 2, low, high * 4 + host].into()
                }
            };
            let backends = (0..4).map(|host| config::Backend {
                name: format!("web{host}"),
                address: address(host),
                ..www.backends[0].clone()
            });
            config::Service {
                name: format!("www{n}"),
                vip: if six {
                    [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, n].into()
                } else {
                    [203, 0, high, low].into()
                },
                scheduler: SCHEDULERS[usize::from(n) % SCHEDULERS.len()],
                backends: backends.collect(),
                ..www.clone()
            }
        })
        .collect();
    let mut running = Running::default();
    let services = running.publish(&config, &[]);
    assert_eq!(services.len(), 1024);
    let services = running.publish(&config, &["web0", "web3"]);
    for service in &services {
        let up: Vec<_> = service
            .backends
            .iter()
            .filter(|it| it.up)
            .map(|it| it.id)
            .collect();
        assert_eq!(up.len(), 2);
        assert!(service.slots.iter().all(|id| up.contains(id)));
    }
}

/// One that is removed leaves as it was said when it was, and is back as if it had never left.
#[test]
fn a_parting_is_decided_once_and_forgotten_when_it_comes_back() {
    let at = |seconds| Moment::test(7, seconds, seconds);
    let (mut running, mut config) = (Running::default(), test_config());
    let part = |running: &mut Running, now: u64, timeout: u64| {
        running
            .identities
            .part(at(now), |_, _, backend| match backend.parting {
                Some(parting) => parting.reset_at,
                None => Some(at(now + timeout)),
            });
    };
    let resets = |running: &mut Running, config: &Config, now| {
        running.publish(config, &[]);
        part(running, now, 60);
        let entries = entries(&[], &running.identities, &HashMap::new(), &SlotTables::default()).0;
        let resets: Vec<_> = entries[0]
            .backends
            .iter()
            .map(|it| (it.id, it.leaving, it.reset))
            .collect();
        resets
    };
    assert_eq!(
        resets(&mut running, &config, 0),
        [(1, false, false), (2, false, false)]
    );
    let web1 = config.services[0].backends.remove(0);
    assert_eq!(
        resets(&mut running, &config, 10),
        [(1, true, false), (2, false, false)]
    );
    assert_eq!(
        resets(&mut running, &config, 69),
        [(1, true, false), (2, false, false)]
    );
    assert_eq!(
        resets(&mut running, &config, 70),
        [(1, true, true), (2, false, false)]
    );
    config.services[0].backends.insert(0, web1);
    assert_eq!(
        resets(&mut running, &config, 71),
        [(1, false, false), (2, false, false)]
    );
    config.services[0].backends.remove(0);
    assert_eq!(
        resets(&mut running, &config, 100),
        [(1, true, false), (2, false, false)],
        "it has its time once more"
    );
}
