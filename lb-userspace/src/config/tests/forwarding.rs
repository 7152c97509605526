//! `mode` with what it needs, and `stateless`.

use super::{Case, check, edited, good, read};
use crate::config::*;

const FULL_NAT: &str = "mode = \"full-nat\"\nsource_address = \"198.51.100.5\"";

#[test]
fn what_is_given_is_what_comes_out() {
    let config = good(&[
        (
            "# daemon",
            "full_nat_ports = 2048\nmax_wide_connections = 4096\nselection_seed = 9223372036854775807",
        ),
        (
            "# service",
            "mode = \"full-nat\"\nsource_address = \"198.51.100.5\"\nsource_ports = \"1024-2047\"\nslow_start = \"30s\"\n\
             scheduler = \"least-connections\"\nwhen_all_down = \"drop\"\nanswer_ping = false",
        ),
        ("# backend", "port = 8443\nbackup = true"),
    ]);
    let daemon = &config.daemon;
    assert_eq!((daemon.full_nat_ports, daemon.max_wide_connections), (2048, 4096));
    assert_eq!(daemon.selection_seed, u64::MAX >> 1);
    let service = &config.services[0];
    assert_eq!(
        (service.mode, service.scheduler),
        (Mode::FullNat, Scheduler::LeastConnections)
    );
    assert_eq!(service.source_address, Some([198, 51, 100, 5].into()));
    assert_eq!(service.source_ports, 1024..=2047);
    assert_eq!(
        (service.slow_start.as_secs(), service.when_all_down),
        (30, WhenAllDown::Drop)
    );
    assert!(!service.answer_ping);
    let backend = &service.backends[0];
    assert_eq!((backend.port, backend.backup), (NonZeroU16::new(8443), true));
    assert_eq!(backend.endpoint().to_string(), "198.18.1.2:8443");
}

#[test]
fn room_for_ports_is_made_where_they_are_needed() {
    assert_eq!(good(&[]).daemon.full_nat_ports, 0);
    assert_eq!(good(&[("# service", FULL_NAT)]).daemon.full_nat_ports, 262_144);
    assert_eq!(
        good(&[("# daemon", "full_nat_ports = 1024")])
            .daemon
            .full_nat_ports,
        1024
    );
}

#[test]
fn accepted() {
    let udp = "protocol = \"udp\"\nstateless = true\nscheduler = ";
    let none = ("# health", "type = \"none\"");
    for (purpose, edits) in [
        ("dsr", vec![("# service", "mode = \"dsr\"".to_owned())]),
        (
            "dsr, the port told",
            vec![
                ("# service", "mode = \"dsr\"".to_owned()),
                ("# backend", "port = 443".to_owned()),
            ],
        ),
        (
            "stateless by client and port",
            vec![
                ("# service", format!("{udp}\"maglev\"")),
                (none.0, none.1.to_owned()),
            ],
        ),
        (
            "stateless by client",
            vec![
                ("# service", format!("{udp}\"source-hash\"\nmode = \"dsr\"")),
                (none.0, none.1.to_owned()),
            ],
        ),
        (
            "stateless not",
            vec![("# service", "stateless = false".to_owned())],
        ),
        (
            "slow start of none",
            vec![(
                "# service",
                "scheduler = \"maglev\"\nslow_start = \"0s\"".to_owned(),
            )],
        ),
    ] {
        let edits: Vec<_> = edits.iter().map(|(from, to)| (*from, to.as_str())).collect();
        let told = read(&edited(&edits)).map_or_else(|told| told, |_| Vec::new());
        assert!(told.is_empty(), "{purpose}: {told:?}");
    }
}

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "full-nat from nowhere",
            edits: &[("# service", r#"mode = "full-nat""#)],
            told: &[
                r#"lb.toml:5: service "www" source_address is missing: mode full-nat needs the address of this host that packets to the backends come from; a VIP cannot be it"#,
            ],
        },
        Case {
            purpose: "ipip from nowhere",
            edits: &[("# service", r#"mode = "ipip""#)],
            told: &[
                r#"lb.toml:5: service "www" source_address is missing: mode ipip needs the address of this host that packets to the backends come from; a VIP cannot be it"#,
            ],
        },
        Case {
            purpose: "sources without effect",
            edits: &[(
                "# service",
                r#"source_address = "198.51.100.5"
source_ports = "1024-2047""#,
            )],
            told: &[
                r#"lb.toml:9: service "www" source_address = "198.51.100.5": only for modes full-nat and ipip, but the mode is nat; take it out"#,
                r#"lb.toml:10: service "www" source_ports = "1024-2047": only for mode full-nat, but the mode is nat; take it out"#,
            ],
        },
        Case {
            purpose: "source ports of a tunnel",
            edits: &[(
                "# service",
                r#"mode = "ipip"
source_address = "198.51.100.5"
source_ports = "1024-2047""#,
            )],
            told: &[
                r#"lb.toml:11: service "www" source_ports = "1024-2047": only for mode full-nat, but the mode is ipip; take it out"#,
            ],
        },
        Case {
            purpose: "the VIP as source",
            edits: &[(
                "# service",
                r#"mode = "full-nat"
source_address = "203.0.113.10""#,
            )],
            told: &[
                r#"lb.toml:10: service "www" source_address = "203.0.113.10": this is a VIP of this file; name an address that the host has for itself"#,
            ],
        },
        Case {
            purpose: "source of the other family",
            edits: &[(
                "# service",
                r#"mode = "full-nat"
source_address = "2001:db8:5::5""#,
            )],
            told: &[
                r#"lb.toml:10: service "www" source_address = "2001:db8:5::5": must be IPv4 like the VIP 203.0.113.10"#,
            ],
        },
        Case {
            purpose: "source that is no host's",
            edits: &[(
                "# service",
                r#"mode = "full-nat"
source_address = "224.0.0.1""#,
            )],
            told: &[
                r#"lb.toml:10: service "www" source_address = "224.0.0.1": a multicast address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "a backend as source",
            edits: &[(
                "# service",
                r#"mode = "full-nat"
source_address = "198.18.1.2""#,
            )],
            told: &[
                r#"lb.toml:17: service "www" backend "web1" address = "198.18.1.2": this is the service's source_address; name the server's own address"#,
            ],
        },
        Case {
            purpose: "source ports that are none",
            edits: &[
                (
                    "# service",
                    r#"mode = "full-nat"
source_address = "198.51.100.5"
source_ports = "0-1023""#,
                ),
                (
                    "# end",
                    r#"[[service]]
name = "a"
vip = "203.0.113.11"
port = 80
mode = "full-nat"
source_address = "198.51.100.5"
source_ports = "2047-1024"
[[service]]
name = "b"
vip = "203.0.113.12"
port = 80
mode = "full-nat"
source_address = "198.51.100.5"
source_ports = "1024""#,
                ),
            ],
            told: &[
                r#"lb.toml:11: service "www" source_ports = "0-1023": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535"#,
                r#"lb.toml:41: service "a" source_ports = "2047-1024": the first port is greater than the last; write "1024-2047""#,
                r#"lb.toml:48: service "b" source_ports = "1024": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535"#,
            ],
        },
        Case {
            purpose: "more source ports than there is room for",
            edits: &[
                ("# daemon", "full_nat_ports = 32767"),
                (
                    "# service",
                    r#"mode = "full-nat"
source_address = "198.51.100.5""#,
                ),
            ],
            told: &[
                "lb.toml:1: all services: the full-nat backends need 32768 source ports together, and daemon.full_nat_ports makes room for 32767: set full_nat_ports = 32768 or more, or give the services fewer source_ports",
            ],
        },
        Case {
            purpose: "other ports where they cannot be mapped",
            edits: &[("# service", r#"mode = "dsr""#), ("# backend", "port = 8443")],
            told: &[
                r#"lb.toml:17: service "www" backend "web1" port = 8443: mode dsr leaves ports as they are, so it must be the service's, 443; take it out, or use mode nat or full-nat"#,
            ],
        },
        Case {
            purpose: "stateless TCP by turns",
            edits: &[("# service", "stateless = true")],
            told: &[
                r#"lb.toml:9: service "www" stateless = true: only for protocol udp: a TCP connection must be remembered to stay with its backend; take it out"#,
                r#"lb.toml:9: service "www" stateless = true: only with schedulers maglev and source-hash, which choose the same backend each time, but the scheduler is round-robin; change it or take this out"#,
            ],
        },
        Case {
            purpose: "stateless full-nat, with a timeout",
            edits: &[
                (
                    "# service",
                    r#"protocol = "udp"
scheduler = "maglev"
mode = "full-nat"
source_address = "198.51.100.5"
stateless = true
timeouts = { udp = "10s" }"#,
                ),
                ("# health", r#"type = "none""#),
            ],
            told: &[
                r#"lb.toml:13: service "www" stateless = true: mode full-nat must remember whose each of its ports is; use another mode or take this out"#,
                r#"lb.toml:14: service "www" timeouts udp = "10s": a stateless service remembers nothing that could time out; take it out"#,
            ],
        },
        Case {
            purpose: "a wrong word is told once, and nothing that would follow from it",
            edits: &[(
                "# service",
                r#"mode = "ipop"
source_address = "198.51.100.5"
stateless = true
scheduler = "hash"
protocol = "both"
slow_start = "30s""#,
            )],
            told: &[
                r#"lb.toml:9: service "www" mode = "ipop": allowed: "nat", "full-nat", "dsr", "ipip""#,
                r#"lb.toml:12: service "www" scheduler = "hash": allowed: "round-robin", "least-connections", "maglev", "source-hash", "random""#,
                r#"lb.toml:13: service "www" protocol = "both": allowed: "tcp", "udp""#,
            ],
        },
    ]);
}
