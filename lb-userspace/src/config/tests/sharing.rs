//! Servers behind several services whose answers could not be told apart.

use super::{Case, check, edited, read};
use crate::config::*;

const FULL_NAT: (&str, &str) = (
    "# service",
    "mode = \"full-nat\"\nsource_address = \"198.51.100.5\"",
);

#[test]
fn accepted() {
    for (purpose, edits) in [
        (
            "the same server by full-nat from other ports",
            &[
                FULL_NAT,
                (
                    "# end",
                    "[[service]]\nname = \"b\"\nvip = \"203.0.113.11\"\nport = 443\nmode = \"full-nat\"\n\
                     source_address = \"198.51.100.5\"\nsource_ports = \"1024-10239\"\n\
                     backend = [{ name = \"b\", address = \"198.18.1.2\" }]",
                ),
            ][..],
        ),
        (
            "the same server by full-nat under another port",
            &[
                FULL_NAT,
                (
                    "# end",
                    "[[service]]\nname = \"b\"\nvip = \"203.0.113.11\"\nport = 80\nmode = \"full-nat\"\n\
                     source_address = \"198.51.100.5\"\nbackend = [{ name = \"b\", address = \"198.18.1.2\" }]",
                ),
            ],
        ),
        (
            "the same server by full-nat and nat",
            &[
                FULL_NAT,
                (
                    "# end",
                    "[[service]]\nname = \"b\"\nvip = \"203.0.113.11\"\nport = 443\n\
                     backend = [{ name = \"b\", address = \"198.18.1.2\" }]",
                ),
            ],
        ),
        (
            "many services whose answers go past the balancer",
            &[
                ("# service", "mode = \"dsr\""),
                (
                    "# end",
                    "[[service]]\nname = \"b\"\nvip = \"203.0.113.11\"\nports = \"any\"\nmode = \"dsr\"\n\
                     backend = [{ name = \"b\", address = \"198.18.1.2\" }]",
                ),
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
            purpose: "connections from the same ports to the same server",
            edits: &[
                FULL_NAT,
                (
                    "# end",
                    r#"[[service]]
name = "b"
vip = "203.0.113.11"
port = 443
mode = "full-nat"
source_address = "198.51.100.5"
source_ports = "26623-30000"
backend = [{ name = "b", address = "198.18.1.2" }]"#,
                ),
            ],
            told: &[
                r#"lb.toml:41: service "b" backend "b" address = "198.18.1.2": service "www" has 198.18.1.2 port 443 as a backend as well, with the same source_address and some of the same source_ports, so that connections would collide; give one of the two other ports or another address to come from"#,
            ],
        },
        Case {
            purpose: "one port of a server behind several ports of another VIP",
            edits: &[(
                "# end",
                r#"[[service]]
name = "b"
vip = "203.0.113.11"
ports = "400-500"
backend = [{ name = "b", address = "198.18.1.2" }]"#,
            )],
            told: &[
                r#"lb.toml:37: service "b" backend "b" address = "198.18.1.2": service "www" has 198.18.1.2 port 443 as a backend as well, and answers from its port to several ports of one could not be told from the other's; give the server another address in one of the two"#,
            ],
        },
        Case {
            purpose: "the same in the other order, on one VIP, by another port",
            edits: &[
                ("port = 443", r#"ports = "any""#),
                ("# health", r#"type = "none""#),
                (
                    "# end",
                    r#"[[service]]
name = "b"
vip = "203.0.113.10"
port = 443
backend = [{ name = "b", address = "198.18.1.2", port = 8443 }]"#,
                ),
            ],
            told: &[
                r#"lb.toml:37: service "b" backend "b" address = "198.18.1.2": service "www" has 198.18.1.2 as a backend as well, and answers from its port to several ports of one could not be told from the other's; give the server another address in one of the two"#,
            ],
        },
        Case {
            purpose: "a stateless service's server behind another one",
            edits: &[
                (
                    "# service",
                    "protocol = \"udp\"\nscheduler = \"maglev\"\nstateless = true",
                ),
                ("# health", r#"type = "none""#),
                (
                    "# end",
                    r#"[[service]]
name = "b"
vip = "203.0.113.11"
port = 443
protocol = "udp"
backend = [{ name = "b", address = "198.18.1.2" }]"#,
                ),
            ],
            told: &[
                r#"lb.toml:40: service "b" backend "b" address = "198.18.1.2": service "www" has 198.18.1.2 port 443 as a backend as well, and answers of a stateless service carry nothing else to be told apart by; give the server another address or port in one of the two"#,
            ],
        },
    ]);
}

/// What is refused in the file is refused at run time, in the same words.
#[test]
fn refused_at_run_time() {
    let services = "[daemon]\ninterfaces = [\"eth0\"]\nfull_nat_ports = 4096\n\
        [[service]]\nname = \"a\"\nvip = \"203.0.113.10\"\nport = 443\nmode = \"full-nat\"\n\
        source_address = \"198.51.100.5\"\nsource_ports = \"1024-2047\"\n\
        backend = [{ name = \"1\", address = \"198.18.1.1\" }, { name = \"2\", address = \"198.18.1.2\" }]\n\
        [[service]]\nname = \"b\"\nvip = \"203.0.113.11\"\nport = 443\nmode = \"full-nat\"\n\
        source_address = \"198.51.100.5\"\nsource_ports = \"1024-2047\"\n\
        [[service]]\nname = \"range\"\nvip = \"203.0.113.12\"\nports = \"any\"\n\
        [[service]]\nname = \"dsr\"\nvip = \"2001:db8::13\"\nport = 443\nmode = \"dsr\"\n\
        [[service]]\nname = \"tunnel\"\nvip = \"203.0.113.14\"\nport = 443\nmode = \"ipip\"\n\
        source_address = \"2001:db8:5::5\"\n";
    let config = read(services).unwrap();
    let new = |address: &str, port: u16| Backend {
        name: "new".to_owned(),
        address: address.parse().unwrap(),
        port: NonZeroU16::new(port),
        weight: 1,
        backup: false,
    };
    for (service, backend, port) in [
        ("a", new("198.18.1.3", 0), NonZeroU16::new(443)),
        ("b", new("198.18.1.1", 8443), NonZeroU16::new(8443)),
        ("range", new("198.18.1.9", 0), None),
        ("dsr", new("2001:db8:1::1", 443), NonZeroU16::new(443)),
        ("tunnel", new("2001:db8:1::1", 0), NonZeroU16::new(443)),
    ] {
        let admitted = config.admits(service, &backend).unwrap();
        assert_eq!(admitted, Backend { port, ..backend }, "{service}");
    }
    let backup = Backend {
        backup: true,
        ..new("198.18.1.9", 0)
    };
    for (service, backend, told) in [
        ("b", new("198.18.1.1", 0), "so that connections would collide"),
        (
            "range",
            new("198.18.1.1", 0),
            "could not be told from the other's",
        ),
        (
            "range",
            new("198.18.1.9", 443),
            "port = 443: the service has several ports",
        ),
        (
            "dsr",
            new("2001:db8:1::1", 444),
            "port = 444: mode dsr leaves ports as they are",
        ),
        ("dsr", new("198.18.1.9", 0), "must be IPv6 like the VIP"),
        (
            "tunnel",
            new("198.18.1.9", 0),
            "must be IPv6 like the source_address",
        ),
        (
            "tunnel",
            new("2001:db8:5::5", 0),
            "this is the service's source_address",
        ),
        ("dsr", new("fe80::1", 0), "a link-local address"),
        (
            "b",
            backup,
            "backup = true: all backends of the service are backups",
        ),
    ] {
        let refusal = config.admits(service, &backend).unwrap_err();
        assert!(refusal.contains(told), "{service}: {refusal}");
    }
    let mut full = config;
    full.daemon.full_nat_ports = 2048;
    let refusal = full.admits("a", &new("198.18.1.3", 0)).unwrap_err();
    assert!(refusal.contains("need 3072 source ports together"), "{refusal}");
}
