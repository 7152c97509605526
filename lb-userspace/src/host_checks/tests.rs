//! A host on which all is well, and what is said when one thing is not.

use std::net::Ipv4Addr;

use super::*;
use crate::config::{Backend, test_config};
use crate::neighbours::NextHop;
use crate::testing::{in_namespace, sh};

fn service(name: &str, vip: &str, backends: &[(&str, &str)]) -> Service {
    let mut service = test_config().services.remove(0);
    let web = service.backends.remove(0);
    let backend = |&(name, address): &(&str, &str)| Backend {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        ..web.clone()
    };
    Service {
        name: name.to_owned(),
        vip: vip.parse().unwrap(),
        manage_vip: Some("eth0".to_owned()),
        backends: backends.iter().map(backend).collect(),
        ..service
    }
}

fn config(interfaces: &[&str], services: Vec<Service>) -> Config {
    let mut config = test_config();
    config.daemon.interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
    config.services = services;
    config
}

fn by(interface_index: u32) -> Resolution {
    Resolution::Resolved(NextHop {
        interface_index,
        source_mac: [2; 6],
        destination_mac: [4; 6],
    })
}

/// Everything that `judge` sees.
struct Facts {
    config: Config,
    resolutions: HashMap<IpAddr, Resolution>,
    host: Host,
}

const WEB1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));

/// Two services that share one backend; `eth0` to the clients, `eth1` to the backends.
fn all_is_well() -> Facts {
    let backends = [("web1", "198.18.1.2"), ("web2", "198.18.1.3")];
    Facts {
        config: config(
            &["eth0", "eth1"],
            vec![
                service("www", "203.0.113.10", &backends),
                service("api", "203.0.113.11", &backends[..1]),
                service("six", "2001:db8::10", &[("web6", "2001:db8:1::2")]),
            ],
        ),
        resolutions: ["198.18.1.2", "198.18.1.3", "2001:db8:1::2"]
            .map(|address| (address.parse().unwrap(), by(3)))
            .into(),
        host: Host {
            forwards_ipv4: Some(true),
            forwards_ipv6: Some(true),
            rp_filter: [("eth0".to_owned(), 0), ("eth1".to_owned(), 2)].into(),
            interfaces: [
                (2, "eth0".to_owned()),
                (3, "eth1".to_owned()),
                (4, "eth2".to_owned()),
            ]
            .into(),
            addresses: HashSet::new(),
        },
    }
}

/// Changes what is well; each of the warnings must hold all of its row's words, and there must be as many as rows.
#[track_caller]
fn says(change: impl FnOnce(&mut Facts), expected: &[&[&str]]) {
    let mut facts = all_is_well();
    change(&mut facts);
    let warnings = judge(&facts.config, &facts.resolutions, &facts.host);
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, words) in warnings.iter().zip(expected) {
        for word in *words {
            assert!(warning.contains(word), "{word:?} is not in {warning:?}");
        }
    }
}

#[test]
fn a_sound_host_gets_no_warning() {
    says(|_| (), &[]);
}

#[test]
fn what_could_not_be_read_is_not_judged() {
    says(
        |facts| {
            facts.host.forwards_ipv4 = None;
            facts.host.forwards_ipv6 = None;
            facts.host.rp_filter.clear();
            facts.resolutions.clear();
        },
        &[],
    );
}

#[test]
fn forwarding_that_is_off() {
    let off = |facts: &mut Facts| {
        facts.host.forwards_ipv4 = Some(false);
        facts.host.forwards_ipv6 = Some(false);
    };
    let ipv4 = ["does not forward IPv4", "`sysctl -w net.ipv4.ip_forward=1`"];
    let ipv6 = [
        "does not forward IPv6",
        "`sysctl -w net.ipv6.conf.all.forwarding=1`",
    ];
    says(off, &[&ipv4, &ipv6]);
    let only = |facts: &mut Facts, ipv4: bool| {
        facts
            .config
            .services
            .retain(|service| service.vip.is_ipv4() == ipv4);
        off(facts);
    };
    says(|facts| only(facts, true), &[&ipv4]);
    says(|facts| only(facts, false), &[&ipv6]);
}

#[test]
fn a_strict_reverse_path_filter() {
    says(
        |facts| {
            facts.host.rp_filter = [("eth0".to_owned(), 1), ("eth1.20".to_owned(), 1)].into();
        },
        &[
            &[
                "eth0 filters strictly",
                "`sysctl -w net.ipv4.conf.eth0.rp_filter=2`",
            ],
            &[
                "eth1.20 filters strictly",
                "`sysctl -w net/ipv4/conf/eth1.20/rp_filter=2`",
            ],
        ],
    );
    says(
        |facts| {
            facts.config.services.retain(|service| service.vip.is_ipv6());
            facts.host.rp_filter = [("eth0".to_owned(), 1)].into();
        },
        &[],
    );
}

#[test]
fn backends_that_cannot_be_reached() {
    let resolved = |resolution| {
        move |facts: &mut Facts| {
            facts.resolutions.insert(WEB1, resolution);
        }
    };
    let who = "backend www/web1, api/web1 (198.18.1.2)";
    says(
        resolved(Resolution::NoRoute),
        &[&[who, "no route", "ip route add"]],
    );
    says(resolved(Resolution::Local), &[&[who, "this host's own"]]);
    says(
        resolved(Resolution::NoNeighbour { interface_index: 3 }),
        &[&[who, "nobody has answered", "`ip neigh show dev eth1`"]],
    );
    let detour = "leaves by interface eth2, to which the program is not attached";
    says(resolved(by(4)), &[&[who, detour, "add \"eth2\" to `interfaces`"]]);
    says(
        resolved(Resolution::NoNeighbour { interface_index: 4 }),
        &[&[who, detour], &[who, "nobody has answered"]],
    );
    says(resolved(by(99)), &[&[who, "interface number 99"]]);
}

#[test]
fn a_vip_that_nobody_answers_for() {
    let unmanaged = |facts: &mut Facts, count: usize| {
        for service in facts.config.services.iter_mut().take(count) {
            service.manage_vip = None;
        }
    };
    let note = ["note: VIP 203.0.113.10 (www)", "answers ARP", "`manage_vip`"];
    says(|facts| unmanaged(facts, 1), &[&note]);
    says(
        |facts| {
            unmanaged(facts, 1);
            facts.host.addresses.insert("203.0.113.10".parse().unwrap());
        },
        &[],
    );
    let shared = |facts: &mut Facts| facts.config.services[1].vip = "203.0.113.10".parse().unwrap();
    says(
        |facts| {
            shared(facts);
            unmanaged(facts, 1);
        },
        &[],
    );
    says(
        |facts| {
            shared(facts);
            unmanaged(facts, 3);
        },
        &[
            &["note: VIP 203.0.113.10 (api, www)"],
            &["note: VIP 2001:db8::10 (six)", "neighbour discovery"],
        ],
    );
}

#[test]
fn the_facts_are_those_of_the_threads_namespace() {
    in_namespace(async |_| {
        sh("ip link add h0 type veth peer name h1; ip link set h0 up
            ip addr add 198.18.1.1/24 dev h0; ip -6 addr add 2001:db8:1::1/64 dev h0 nodad
            echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
            echo 2 > /proc/sys/net/ipv4/conf/h0/rp_filter
            echo 1 > /proc/sys/net/ipv4/conf/h1/rp_filter");
        let config = config(
            &["h0", "h1"],
            vec![service("www", "198.18.1.1", &[("web1", "198.18.1.2")])],
        );
        for forwards in [false, true] {
            let value = u8::from(forwards);
            sh(&format!(
                "echo {value} > /proc/sys/net/ipv4/ip_forward
                echo {value} > /proc/sys/net/ipv6/conf/all/forwarding
                echo {value} > /proc/sys/net/ipv4/conf/all/rp_filter"
            ));
            let host = Host::read(&config);
            assert_eq!(
                (host.forwards_ipv4, host.forwards_ipv6),
                (Some(forwards), Some(forwards))
            );
            assert_eq!(
                host.rp_filter,
                [("h0".to_owned(), 2), ("h1".to_owned(), 1)].into()
            );
            assert_eq!(host.interfaces.len(), 3, "{:?}", host.interfaces);
            assert_eq!(
                host.interfaces[&nix::net::if_::if_nametoindex("h0").unwrap()],
                "h0"
            );
            for address in ["198.18.1.1", "2001:db8:1::1", "127.0.0.1"] {
                assert!(host.addresses.contains(&address.parse().unwrap()), "{address}");
            }
        }
        sh("echo 0 > /proc/sys/net/ipv4/conf/h1/rp_filter");
        assert_eq!(
            Host::read(&config).rp_filter["h1"],
            1,
            "the larger of `all` and its own"
        );
        // Nothing but the strict filter of `all` on h1 is wrong here.
        let found = warnings(&config, &HashMap::new());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("h1 filters strictly"), "{found:?}");
    });
}
