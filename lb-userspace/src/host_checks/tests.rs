//! A host on which all is well, and what is said when one thing is not.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::*;
use crate::config::{Backend, Mode, test_config};
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
    Resolution::Resolved {
        hop: NextHop {
            interface_index,
            source_mac: [2; 6],
            destination_mac: [4; 6],
        },
        on_link: true,
    }
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
            rejects_own: BTreeSet::new(),
            interfaces: [
                (2, "eth0".to_owned()),
                (3, "eth1".to_owned()),
                (4, "eth2".to_owned()),
            ]
            .into(),
            addresses: HashSet::from(["198.18.0.1".parse().unwrap()]),
            hidden_vlans: BTreeSet::new(),
            local_ports: Some(32_768..=60_999),
            reserved_ports: Some(String::new()),
            certificate: None,
        },
    }
}

/// Changes what is well; each of the warnings must hold all of its row's words, and there must be as many as rows.
#[track_caller]
fn says(change: impl FnOnce(&mut Facts), expected: &[&[&str]]) {
    let mut facts = all_is_well();
    change(&mut facts);
    let warnings: Vec<_> = judge(&facts.config, &facts.resolutions, &facts.host)
        .iter()
        .map(ToString::to_string)
        .collect();
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
fn replies_that_would_be_taken_for_forged() {
    let rejects = |facts: &mut Facts| {
        facts.host.rejects_own.insert("eth1".to_owned());
    };
    says(rejects, &[]);
    let vip_is_here = |facts: &mut Facts| {
        rejects(facts);
        facts.host.addresses.insert("203.0.113.10".parse().unwrap());
    };
    says(
        vip_is_here,
        &[&[
            "eth1",
            "the VIP 203.0.113.10",
            "`sysctl -w net.ipv4.conf.eth1.accept_local=1`",
        ]],
    );
    let elsewhere = |facts: &mut Facts| {
        vip_is_here(facts);
        for service in &mut facts.config.services {
            service.mode = Mode::Dsr;
        }
    };
    says(elsewhere, &[]);
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
fn a_server_that_answers_clients_itself_may_be_behind_any_interface_but_dsr_needs_its_segment() {
    let in_mode = |facts: &mut Facts, mode| {
        for service in &mut facts.config.services {
            service.mode = mode;
        }
    };
    for mode in [Mode::Dsr, Mode::Ipip] {
        says(
            |facts| {
                in_mode(facts, mode);
                facts.resolutions.insert(WEB1, by(4));
                facts.host.rp_filter = [("eth0".to_owned(), 1)].into();
            },
            &[],
        );
    }
    let Resolution::Resolved { hop, .. } = by(3) else {
        panic!()
    };
    let by_gateway = Resolution::Resolved { hop, on_link: false };
    says(
        |facts| {
            facts.config.services[0].mode = Mode::Dsr;
            facts.resolutions.insert(WEB1, by_gateway);
        },
        &[&["backend www/web1 (198.18.1.2)", "through a gateway", "mode ipip"]],
    );
    says(
        |facts| {
            facts.resolutions.insert(WEB1, by_gateway);
        },
        &[],
    );
    says(
        |facts| {
            in_mode(facts, Mode::Ipip);
            let unknown = Resolution::NoNeighbour { interface_index: 3 };
            facts.resolutions.insert(WEB1, unknown);
        },
        &[&["nobody has answered", "they are dropped"]],
    );
}

#[test]
fn vlans_whose_tags_are_hidden() {
    says(
        |facts| facts.host.hidden_vlans = ["eth0".to_owned()].into(),
        &[&["eth0 has VLANs", "`ethtool -K eth0 rxvlan off`"]],
    );
}

/// `www` and `api` in mode full-nat, from the host's own address.
fn full_nat(facts: &mut Facts) {
    for service in &mut facts.config.services[..2] {
        service.mode = Mode::FullNat;
        service.source_address = Some("198.18.0.1".parse().unwrap());
    }
}

#[test]
fn an_own_address_that_the_host_has_not() {
    says(full_nat, &[]);
    let elsewhere = |facts: &mut Facts, mode| {
        full_nat(facts);
        facts.config.services[0].mode = mode;
        facts.config.services[0].source_address = Some("198.18.0.9".parse().unwrap());
    };
    let who = "service www: source_address 198.18.0.9";
    let fix = "`ip address add 198.18.0.9/32 dev …`";
    says(
        |facts| elsewhere(facts, Mode::FullNat),
        &[&[who, "the servers' answers", fix]],
    );
    says(|facts| elsewhere(facts, Mode::Ipip), &[&[who, "errors", fix]]);
}

#[test]
fn own_ports_that_the_host_may_take_for_itself() {
    let ports = |facts: &mut Facts, reserved: &str| {
        full_nat(facts);
        facts.config.services[0].source_ports = 30_000..=39_999;
        facts.config.services[1].source_ports = 40_000..=40_999;
        facts.host.reserved_ports = Some(reserved.to_owned());
    };
    let both = "net.ipv4.ip_local_reserved_ports=30000-39999,40000-40999`";
    says(
        |facts| ports(facts, ""),
        &[&["service api, www", "32768-60999", both]],
    );
    let kept = "net.ipv4.ip_local_reserved_ports=8080,32768-39999,40000-40999`";
    says(
        |facts| ports(facts, "8080,32768-39999"),
        &[&["service api: this host", kept]],
    );
    says(|facts| ports(facts, "8080,32768-40999"), &[]);
    says(
        |facts| {
            ports(facts, "");
            facts
                .config
                .services
                .iter_mut()
                .for_each(|it| it.mode = Mode::Nat);
        },
        &[],
    );
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
            echo 20000 30000 > /proc/sys/net/ipv4/ip_local_port_range
            echo 8080,20000-20999 > /proc/sys/net/ipv4/ip_local_reserved_ports
            echo 1 > /proc/sys/net/ipv4/conf/h0/accept_local
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
            assert_eq!(host.local_ports, Some(20_000..=30_000));
            assert_eq!(host.reserved_ports.as_deref(), Some("8080,20000-20999"));
            assert_eq!(
                host.rp_filter,
                [("h0".to_owned(), 2), ("h1".to_owned(), 1)].into()
            );
            assert_eq!(host.rejects_own, ["h1".to_owned()].into());
            assert_eq!(host.interfaces.len(), 3, "{:?}", host.interfaces);
            assert_eq!(
                host.interfaces[&nix::net::if_::if_nametoindex("h0").unwrap()],
                "h0"
            );
            for address in ["198.18.1.1", "2001:db8:1::1", "127.0.0.1"] {
                assert!(host.addresses.contains(&address.parse().unwrap()), "{address}");
            }
        }
        sh("echo 0 > /proc/sys/net/ipv4/conf/h1/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/h1/accept_local");
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

#[test]
fn a_certificate_that_clients_refuse_or_soon_will() {
    const YEAR: Validity = Validity {
        from: 1_000_000_000,
        until: 1_031_536_000,
    };
    let at = |now: u64, expected: &[&[&str]]| {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now);
        let change = |facts: &mut Facts| {
            facts.config.site = Some(crate::config::test_site());
            facts.host.certificate = Some((YEAR, now));
        };
        says(change, expected);
    };
    at(1_000_000_000, &[]);
    at(
        1_031_000_000,
        &[&["site.pem expires on 2002-09-09T01:46:40Z", "renew it"]],
    );
    at(
        1_031_536_001,
        &[&["site.pem expired on 2002-09-09T01:46:40Z", "clients refuse it"]],
    );
    at(
        60,
        &[&[
            "site.pem is not valid before 2001-09-09T01:46:40Z",
            "set the clock right",
        ]],
    );
}
