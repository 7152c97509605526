//! IPv4 and IPv6, of VIPs and of backends.

use super::{Case, check, edited, read};

const VIP: &str = r#"vip = "203.0.113.10""#;
const WEB1: &str = r#"address = "198.18.1.2""#;
const WEB2: &str = r#"address = "198.18.1.3""#;

#[test]
fn accepted() {
    for (purpose, edits) in [
        (
            "IPv6",
            &[
                (VIP, r#"vip = "2001:db8::10""#),
                (WEB1, r#"address = "2001:db8:1::2""#),
                (WEB2, r#"address = "fd00::3""#),
            ][..],
        ),
        (
            "4-in-6",
            &[
                ("# service", "mode = \"ipip\"\nsource_address = \"2001:db8:5::5\""),
                (WEB1, r#"address = "2001:db8:1::2""#),
                (WEB2, r#"address = "2001:db8:1::3""#),
            ],
        ),
        (
            "6-in-6",
            &[
                (VIP, r#"vip = "2001:db8::10""#),
                ("# service", "mode = \"ipip\"\nsource_address = \"2001:db8:5::5\""),
                (WEB1, r#"address = "2001:db8:1::2""#),
                (WEB2, r#"address = "2001:db8:1::3""#),
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
            purpose: "link-local VIP",
            edits: &[(VIP, r#"vip = "fe80::10""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "fe80::10": a link-local address, which is another host's on every link; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "VIPs that no packet carries, or no host has",
            edits: &[
                (VIP, r#"vip = "::ffff:203.0.113.10""#),
                (
                    "# end",
                    r#"[[service]]
name = "a"
vip = "ff02::1"
port = 80
[[service]]
name = "b"
vip = "::"
port = 80
[[service]]
name = "c"
vip = "::1"
port = 80"#,
                ),
            ],
            told: &[
                r#"lb.toml:7: service "www" vip = "::ffff:203.0.113.10": an IPv4 address in IPv6 notation, which no packet carries; write 203.0.113.10"#,
                r#"lb.toml:35: service "a" vip = "ff02::1": a multicast address; use a unicast address that other hosts can reach"#,
                r#"lb.toml:39: service "b" vip = "::": the unspecified address; use a unicast address that other hosts can reach"#,
                r#"lb.toml:43: service "c" vip = "::1": a loopback address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "VIP in brackets",
            edits: &[(VIP, r#"vip = "[2001:db8::10]""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "[2001:db8::10]": not an IP address; write one such as "198.18.1.2" or "2001:db8::2", without port, brackets, prefix length or host name"#,
            ],
        },
        Case {
            purpose: "IPv4 backend of an IPv6 VIP",
            edits: &[
                (VIP, r#"vip = "2001:db8::10""#),
                (WEB2, r#"address = "2001:db8:1::3""#),
                ("# server", r#"address = "198.18.1.2:443""#),
            ],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "198.18.1.2": a backend's address must be IPv6 like the VIP 2001:db8::10"#,
            ],
        },
        Case {
            purpose: "link-local and mapped backends",
            edits: &[
                (VIP, r#"vip = "2001:db8::10""#),
                (WEB1, r#"address = "fe80::2""#),
                (WEB2, r#"address = "::ffff:198.18.1.3""#),
                ("# server", r#"address = "198.18.1.2:443""#),
            ],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "fe80::2": a link-local address, which is another host's on every link; use a unicast address that other hosts can reach"#,
                r#"lb.toml:21: service "www" backend "web2" address = "::ffff:198.18.1.3": an IPv4 address in IPv6 notation, which no packet carries; write 198.18.1.3"#,
            ],
        },
        Case {
            purpose: "IPv4 tunnel to an IPv6 VIP's backends",
            edits: &[
                (VIP, r#"vip = "2001:db8::10""#),
                ("# service", "mode = \"ipip\"\nsource_address = \"198.51.100.5\""),
                (WEB2, r#"address = "2001:db8:1::3""#),
                ("# server", r#"address = "198.18.1.2:443""#),
            ],
            told: &[
                r#"lb.toml:10: service "www" source_address = "198.51.100.5": must be IPv6 like the VIP 2001:db8::10"#,
                r#"lb.toml:17: service "www" backend "web1" address = "198.18.1.2": a backend's address must be IPv6 like the VIP 2001:db8::10"#,
            ],
        },
        Case {
            purpose: "a tunnel's ends of two families",
            edits: &[
                ("# service", "mode = \"ipip\"\nsource_address = \"2001:db8:5::5\""),
                (WEB2, r#"address = "2001:db8:1::3""#),
            ],
            told: &[
                r#"lb.toml:17: service "www" backend "web1" address = "198.18.1.2": a backend's address must be IPv6 like the source_address 2001:db8:5::5"#,
            ],
        },
    ]);
}
