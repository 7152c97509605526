//! `port` and `ports`, and the health of what has no port of its own to be probed.

use super::{Case, check, edited, good, read};
use crate::config::*;

const NO_PROBES: (&str, &str) = ("# health", "type = \"none\"");

#[test]
fn several_ports() {
    for (typed, ports) in [
        ("8000-8999", 8000..=8999),
        ("1-65535", 1..=65535),
        ("any", 1..=65535),
    ] {
        let line = format!("ports = \"{typed}\"");
        let config = good(&[("port = 443", &line), NO_PROBES]);
        let service = &config.services[0];
        assert_eq!(service.ports, Ports::Range(ports));
        assert_eq!(service.endpoint(), (service.vip, 0, Protocol::Tcp));
        assert_eq!(service.backends[0].port, None);
        assert_eq!(service.backends[0].endpoint().to_string(), "198.18.1.2:0");
    }
}

const MINIMAL: &str =
    "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"s\"\nvip = \"203.0.113.10\"\n";

#[test]
fn what_has_no_port_to_probe_is_not_probed_unless_one_is_named() {
    for (purpose, lines, probed) in [
        ("TCP", "port = 443", true),
        ("UDP", "port = 53\nprotocol = \"udp\"", false),
        ("several ports", "ports = \"any\"", false),
        (
            "UDP with a port",
            "port = 53\nprotocol = \"udp\"\n[service.health]\nport = 53",
            true,
        ),
        (
            "several ports with one",
            "ports = \"any\"\nhealth = { port = 80 }",
            true,
        ),
    ] {
        let config = read(&format!("{MINIMAL}{lines}\n")).unwrap();
        assert_eq!(config.services[0].health.is_some(), probed, "{purpose}");
    }
}

#[test]
fn accepted() {
    for (purpose, edits) in [
        (
            "one of several ports goes elsewhere, to the same servers",
            &[
                ("port = 443", "ports = \"any\""),
                NO_PROBES,
                (
                    "# end",
                    "[[service]]\nname = \"tls\"\nvip = \"203.0.113.10\"\nport = 443\n\
                     backend = [{ name = \"b\", address = \"198.18.1.2\" }]",
                ),
            ][..],
        ),
        (
            "several of TCP and several of UDP",
            &[
                ("port = 443", "ports = \"any\""),
                NO_PROBES,
                (
                    "# end",
                    "[[service]]\nname = \"udp\"\nvip = \"203.0.113.10\"\nports = \"any\"\nprotocol = \"udp\"",
                ),
            ],
        ),
        (
            "a few ports of the host's own address",
            &[
                ("port = 443", "ports = \"8000-8999\""),
                (r#"vip = "203.0.113.10""#, r#"vip = "198.51.100.5""#),
                NO_PROBES,
            ],
        ),
        (
            "all ports of an address that lbd manages",
            &[
                ("port = 443", "ports = \"any\""),
                ("# service", "manage_vip = \"eth0\""),
                (r#"vip = "203.0.113.10""#, r#"vip = "203.0.113.77""#),
                NO_PROBES,
            ],
        ),
    ] {
        let told = read(&edited(edits)).map_or_else(|told| told, |_| Vec::new());
        assert!(told.is_empty(), "{purpose}: {told:?}");
    }
}

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "port and ports",
            edits: &[(
                "port = 443",
                r#"port = 443
ports = "any""#,
            )],
            told: &[
                r#"lb.toml:9: service "www" ports = "any": there is port as well; take one of the two out"#,
            ],
        },
        Case {
            purpose: "ports that are none",
            edits: &[
                ("port = 443", r#"ports = "http""#),
                (
                    "# end",
                    r#"[[service]]
name = "a"
vip = "203.0.113.11"
ports = "0-80"
[[service]]
name = "b"
vip = "203.0.113.12"
ports = "80-443-8080"
[[service]]
name = "c"
vip = "203.0.113.13"
ports = "+80-443"
[[service]]
name = "d"
vip = "203.0.113.14"
ports = "80-65536"
[[service]]
name = "e"
vip = "203.0.113.15"
ports = "443-80"
[[service]]
name = "f"
vip = "203.0.113.16"
ports = "443-443""#,
                ),
            ],
            told: &[
                r#"lb.toml:8: service "www" ports = "http": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535; or "any""#,
                r#"lb.toml:36: service "a" ports = "0-80": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535; or "any""#,
                r#"lb.toml:40: service "b" ports = "80-443-8080": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535; or "any""#,
                r#"lb.toml:44: service "c" ports = "+80-443": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535; or "any""#,
                r#"lb.toml:48: service "d" ports = "80-65536": ports are written FIRST-LAST, such as "8000-8999", each 1 to 65535; or "any""#,
                r#"lb.toml:52: service "e" ports = "443-80": the first port is greater than the last; write "80-443"; or "any""#,
                r#"lb.toml:56: service "f" ports = "443-443": that is a single port; write port = 443"#,
            ],
        },
        Case {
            purpose: "several ports twice",
            edits: &[
                ("port = 443", r#"ports = "8000-8999""#),
                NO_PROBES,
                (
                    "# end",
                    r#"[[service]]
name = "other"
vip = "203.0.113.10"
ports = "9000-9999""#,
                ),
            ],
            told: &[
                r#"lb.toml:36: service "other" ports = "9000-9999": service "www" has several ports of 203.0.113.10 by tcp already, and only one service may; one of the two must change"#,
            ],
        },
        Case {
            purpose: "backend with a port behind several",
            edits: &[
                ("port = 443", r#"ports = "any""#),
                NO_PROBES,
                ("# backend", "port = 443"),
            ],
            told: &[
                r#"lb.toml:17: service "www" backend "web1" port = 443: the service has several ports, and its backends have the same ones; take it out"#,
            ],
        },
        Case {
            purpose: "an address twice behind several ports",
            edits: &[
                ("port = 443", r#"ports = "any""#),
                NO_PROBES,
                (r#"address = "198.18.1.3""#, r#"address = "198.18.1.2""#),
            ],
            told: &[
                r#"lb.toml:21: service "www" backend "web2" address = "198.18.1.2": another backend of this service has 198.18.1.2 already"#,
            ],
        },
        Case {
            purpose: "all ports of the host's own address",
            edits: &[
                ("port = 443", r#"ports = "any""#),
                ("# service", r#"manage_vip = "eth0""#),
                (r#"vip = "203.0.113.10""#, r#"vip = "198.51.100.5""#),
                NO_PROBES,
            ],
            told: &[
                r#"lb.toml:8: service "www" ports = "any": 198.51.100.5 is an address of this host, and the service would take SSH to this host; use an address of its own, which lbd can put there by manage_vip, or other ports"#,
            ],
        },
        Case {
            purpose: "all ports of an address that nobody says is managed",
            edits: &[
                ("port = 443", r#"ports = "any""#),
                (r#"vip = "203.0.113.10""#, r#"vip = "203.0.113.77""#),
                NO_PROBES,
            ],
            told: &[
                r#"lb.toml:8: service "www" ports = "any": 203.0.113.77 is an address of this host, and the service would take SSH to this host; use an address of its own, which lbd can put there by manage_vip, or other ports"#,
            ],
        },
        Case {
            purpose: "ports that the host's own questions come from",
            edits: &[
                ("port = 443", "protocol = \"udp\"\nports = \"1-40000\""),
                (r#"vip = "203.0.113.10""#, r#"vip = "2001:db8:5::5""#),
                (r#"address = "198.18.1.2""#, r#"address = "2001:db8:1::2""#),
                (r#"address = "198.18.1.3""#, r#"address = "2001:db8:1::3""#),
                NO_PROBES,
            ],
            told: &[
                r#"lb.toml:9: service "www" ports = "1-40000": 2001:db8:5::5 is an address of this host, and the service would take the answers to what this host itself asks of others; use an address of its own, which lbd can put there by manage_vip, or other ports"#,
            ],
        },
        Case {
            purpose: "health of UDP without a port",
            edits: &[("# service", r#"protocol = "udp""#)],
            told: &[
                r#"lb.toml:11: service "www" health port is missing: UDP cannot be probed; write a TCP port that tells whether a backend is well, or type = "none" for no probes"#,
            ],
        },
        Case {
            purpose: "health of several ports without one",
            edits: &[
                ("port = 443", r#"ports = "any""#),
                ("# health", r#"type = "http""#),
            ],
            told: &[
                r#"lb.toml:11: service "www" health port is missing: the service has several ports; write a TCP port that tells whether a backend is well, or type = "none" for no probes"#,
            ],
        },
        Case {
            purpose: "stateless answers of several ports",
            edits: &[
                (
                    "port = 443",
                    "ports = \"any\"\nprotocol = \"udp\"\nscheduler = \"maglev\"\nstateless = true",
                ),
                NO_PROBES,
            ],
            told: &[
                r#"lb.toml:11: service "www" stateless = true: in mode nat, whatever a backend sends by UDP would count as an answer of a service of several ports; use mode dsr or ipip, or take this out"#,
            ],
        },
    ]);
}
