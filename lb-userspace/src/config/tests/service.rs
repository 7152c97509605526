//! `[[service]]` and `[[service.backend]]`.

use super::{Case, check};

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "port 0",
            edits: &[("port = 443", "port = 0")],
            told: &[r#"lb.toml:8: service "www" port = 0: a port is 1 to 65535"#],
        },
        Case {
            purpose: "port above 65535",
            edits: &[("port = 443", "port = 65536")],
            told: &[r#"lb.toml:8: service "www" port = 65536: a port is 1 to 65535"#],
        },
        Case {
            purpose: "port not given",
            edits: &[("port = 443", "")],
            told: &[
                r#"lb.toml:5: service "www" port is missing: write the port that clients connect to, 1 to 65535, or ports = "8000-8999" or "any""#,
            ],
        },
        Case {
            purpose: "VIP not given",
            edits: &[(r#"vip = "203.0.113.10""#, "")],
            told: &[
                r#"lb.toml:5: service "www" vip is missing: write the address that clients connect to, such as "203.0.113.10" or "2001:db8::10""#,
            ],
        },
        Case {
            purpose: "name not given",
            edits: &[(r#"name = "www""#, "")],
            told: &["lb.toml:5: service #1 name is missing: each service has a name of its own"],
        },
        Case {
            purpose: "name with a space",
            edits: &[(r#"name = "www""#, r#"name = "w w""#)],
            told: &[
                r#"lb.toml:6: service "w w" name = "w w": a name is 1 to 63 letters, digits, dots, underscores and hyphens"#,
            ],
        },
        Case {
            purpose: "empty name",
            edits: &[(r#"name = "www""#, r#"name = """#)],
            told: &[
                r#"lb.toml:6: service "" name = "": a name is 1 to 63 letters, digits, dots, underscores and hyphens"#,
            ],
        },
        Case {
            purpose: "name of 64 letters",
            edits: &[(
                r#"name = "www""#,
                r#"name = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
            )],
            told: &[
                r#"lb.toml:6: service "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" name = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": a name is 1 to 63 letters, digits, dots, underscores and hyphens"#,
            ],
        },
        Case {
            purpose: "name with a line break",
            edits: &[(r#"name = "www""#, "name = \"w\\nw\"")],
            told: &[
                "lb.toml:6: service \"w\\nw\" name = \"w\\nw\": a name is 1 to 63 letters, digits, dots, underscores and hyphens",
            ],
        },
        Case {
            purpose: "two services of one name",
            edits: &[(
                "# end",
                r#"[[service]]
name = "www"
vip = "203.0.113.11"
port = 80"#,
            )],
            told: &[
                r#"lb.toml:34: service "www" name = "www": another service, in line 6, has this name; rename one"#,
            ],
        },
        Case {
            purpose: "two services of one VIP and port",
            edits: &[(
                "# end",
                r#"[[service]]
name = "other"
vip = "203.0.113.10"
port = 443"#,
            )],
            told: &[
                r#"lb.toml:36: service "other" port = 443: service "www" has 203.0.113.10 port 443/tcp already; one of the two must change"#,
            ],
        },
        Case {
            purpose: "unspecified VIP",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "0.0.0.0""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "0.0.0.0": the unspecified address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "VIP in 0.0.0.0/8",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "0.1.2.3""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "0.1.2.3": not an address of a host (0.0.0.0/8); use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "loopback VIP",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "127.0.0.2""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "127.0.0.2": a loopback address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "multicast VIP",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "224.0.0.18""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "224.0.0.18": a multicast address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "broadcast VIP",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "255.255.255.255""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "255.255.255.255": the broadcast address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "VIP with a prefix length",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "203.0.113.10/32""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "203.0.113.10/32": not an IP address; write one such as "198.18.1.2" or "2001:db8::2", without port, brackets, prefix length or host name"#,
            ],
        },
        Case {
            purpose: "VIP by host name",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vip = "www.foobar.com""#)],
            told: &[
                r#"lb.toml:7: service "www" vip = "www.foobar.com": not an IP address; write one such as "198.18.1.2" or "2001:db8::2", without port, brackets, prefix length or host name"#,
            ],
        },
        Case {
            purpose: "protocol that there is not",
            edits: &[("# service", r#"protocol = "sctp""#)],
            told: &[r#"lb.toml:9: service "www" protocol = "sctp": allowed: "tcp", "udp""#],
        },
        Case {
            purpose: "mode mistyped",
            edits: &[("# service", r#"mode = "fullnat""#)],
            told: &[
                r#"lb.toml:9: service "www" mode = "fullnat": allowed: "nat", "full-nat", "dsr", "ipip""#,
            ],
        },
        Case {
            purpose: "scheduler mistyped",
            edits: &[("# service", r#"scheduler = "roundrobin""#)],
            told: &[
                r#"lb.toml:9: service "www" scheduler = "roundrobin": allowed: "round-robin", "least-connections", "maglev", "source-hash", "random""#,
            ],
        },
        Case {
            purpose: "policies mistyped",
            edits: &[(
                "# service",
                r#"when_all_down = "reject"
on_down = "rest""#,
            )],
            told: &[
                r#"lb.toml:9: service "www" when_all_down = "reject": allowed: "refuse", "drop", "keep-sending""#,
                r#"lb.toml:10: service "www" on_down = "rest": allowed: "keep", "reset""#,
            ],
        },
        Case {
            purpose: "drain_timeout out of range, in parts of seconds, of nothing",
            edits: &[
                ("# service", r#"drain_timeout = "25h""#),
                (
                    "# end",
                    r#"[[service]]
name = "other"
vip = "203.0.113.11"
port = 80
drain_timeout = "1500ms"
[[service]]
name = "dns"
vip = "203.0.113.11"
port = 53
protocol = "udp"
scheduler = "maglev"
stateless = true
drain_timeout = "5m""#,
                ),
            ],
            told: &[
                r#"lb.toml:9: service "www" drain_timeout = "25h": drain_timeout is 1s to 24h"#,
                r#"lb.toml:37: service "other" drain_timeout = "1500ms": drain_timeout is told in whole seconds"#,
                r#"lb.toml:45: service "dns" drain_timeout = "5m": a stateless service has no connections that could be reset; take it out"#,
            ],
        },
        Case {
            purpose: "VIP on an interface that does not exist",
            edits: &[("# service", r#"manage_vip = "eth7""#)],
            told: &[
                r#"lb.toml:9: service "www" manage_vip = "eth7": there is no such interface; this machine has lo, eth0, eth1"#,
            ],
        },
        Case {
            purpose: "one VIP on two interfaces",
            edits: &[
                ("# service", r#"manage_vip = "eth0""#),
                (
                    "# end",
                    r#"[[service]]
name = "plain"
vip = "203.0.113.10"
port = 80
manage_vip = "eth1""#,
                ),
            ],
            told: &[
                r#"lb.toml:37: service "plain" manage_vip = "eth1": service "www" has the same VIP 203.0.113.10 on "eth0"; name the same interface"#,
            ],
        },
        Case {
            purpose: "timeouts out of range",
            edits: &[(
                "# service",
                r#"timeouts = { half_open = "4s", established = "25h", closing = "0s" }"#,
            )],
            told: &[
                r#"lb.toml:9: service "www" timeouts half_open = "4s": a timeout is 5s to 24h"#,
                r#"lb.toml:9: service "www" timeouts established = "25h": a timeout is 5s to 24h"#,
                r#"lb.toml:9: service "www" timeouts closing = "0s": a timeout is 5s to 24h"#,
            ],
        },
        Case {
            purpose: "backend by host name",
            edits: &[(r#"address = "198.18.1.2""#, r#"address = "web1""#)],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "web1": not an IP address; write one such as "198.18.1.2" or "2001:db8::2", without port, brackets, prefix length or host name"#,
            ],
        },
        Case {
            purpose: "backend of the other family",
            edits: &[(r#"address = "198.18.1.2""#, r#"address = "2001:db8::2""#)],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "2001:db8::2": a backend's address must be IPv4 like the VIP 203.0.113.10"#,
            ],
        },
        Case {
            purpose: "backend address unspecified",
            edits: &[(r#"address = "198.18.1.2""#, r#"address = "0.0.0.0""#)],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "0.0.0.0": the unspecified address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "backend address loopback",
            edits: &[(r#"address = "198.18.1.2""#, r#"address = "127.0.0.1""#)],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "127.0.0.1": a loopback address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "backend address multicast",
            edits: &[(r#"address = "198.18.1.2""#, r#"address = "239.0.0.1""#)],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "239.0.0.1": a multicast address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "backend address broadcast",
            edits: &[(r#"address = "198.18.1.2""#, r#"address = "255.255.255.255""#)],
            told: &[
                r#"lb.toml:16: service "www" backend "web1" address = "255.255.255.255": the broadcast address; use a unicast address that other hosts can reach"#,
            ],
        },
        Case {
            purpose: "backend address that is the VIP",
            edits: &[(r#"address = "198.18.1.3""#, r#"address = "203.0.113.10""#)],
            told: &[
                r#"lb.toml:21: service "www" backend "web2" address = "203.0.113.10": this is a VIP of this file; name the server's own address"#,
            ],
        },
        Case {
            purpose: "backend address that is the VIP of a later service",
            edits: &[
                (r#"address = "198.18.1.3""#, r#"address = "203.0.113.11""#),
                (
                    "# end",
                    r#"[[service]]
name = "later"
vip = "203.0.113.11"
port = 80"#,
                ),
            ],
            told: &[
                r#"lb.toml:21: service "www" backend "web2" address = "203.0.113.11": this is a VIP of this file; name the server's own address"#,
            ],
        },
        Case {
            purpose: "backend address not given",
            edits: &[(r#"address = "198.18.1.3""#, "")],
            told: &[
                r#"lb.toml:19: service "www" backend "web2" address is missing: write the server's address, such as "198.18.1.2""#,
            ],
        },
        Case {
            purpose: "backend name not given",
            edits: &[(r#"name = "web2""#, "")],
            told: &[
                r#"lb.toml:19: service "www" backend #2 name is missing: each backend of this service has a name of its own"#,
            ],
        },
        Case {
            purpose: "two backends of one name",
            edits: &[
                (r#"name = "web2""#, r#"name = "web1""#),
                ("# server", r#"address = "198.18.1.2:443""#),
            ],
            told: &[
                r#"lb.toml:20: service "www" backend "web1" name = "web1": another backend of this service, in line 15, has this name; rename one"#,
            ],
        },
        Case {
            purpose: "two backends of one endpoint, the port by default",
            edits: &[(
                r#"address = "198.18.1.3""#,
                r#"address = "198.18.1.2"
port = 443"#,
            )],
            told: &[
                r#"lb.toml:21: service "www" backend "web2" address = "198.18.1.2": another backend of this service has 198.18.1.2 port 443 already"#,
            ],
        },
        Case {
            purpose: "backend port out of range",
            edits: &[("# backend", "port = 0")],
            told: &[r#"lb.toml:17: service "www" backend "web1" port = 0: a port is 1 to 65535"#],
        },
        Case {
            purpose: "weight out of range",
            edits: &[("# backend", "weight = 257")],
            told: &[r#"lb.toml:17: service "www" backend "web1" weight = 257: a weight is 0 to 256"#],
        },
        Case {
            purpose: "negative weight",
            edits: &[("# backend", "weight = -1")],
            told: &[r#"lb.toml:17: service "www" backend "web1" weight = -1: a weight is 0 to 256"#],
        },
        Case {
            purpose: "slow start too long, and not in whole seconds",
            edits: &[
                ("# service", r#"slow_start = "61m""#),
                (
                    "# end",
                    r#"[[service]]
name = "other"
vip = "203.0.113.11"
port = 443
slow_start = "1500ms""#,
                ),
            ],
            told: &[
                r#"lb.toml:9: service "www" slow_start = "61m": slow_start is 0s to 1h"#,
                r#"lb.toml:37: service "other" slow_start = "1500ms": slow_start is told in whole seconds"#,
            ],
        },
        Case {
            purpose: "slow start where shares are places of a hash",
            edits: &[(
                "# service",
                r#"scheduler = "maglev"
slow_start = "30s""#,
            )],
            told: &[
                r#"lb.toml:10: service "www" slow_start = "30s": with scheduler maglev each step of a growing share would move clients from one backend to another; take it out, or use round-robin, least-connections or random"#,
            ],
        },
        Case {
            purpose: "services of one VIP that disagree about pings",
            edits: &[
                ("# service", "answer_ping = false"),
                (
                    "# end",
                    r#"[[service]]
name = "plain"
vip = "203.0.113.10"
port = 80
answer_ping = true"#,
                ),
            ],
            told: &[
                r#"lb.toml:37: service "plain" answer_ping = true: service "www" has the same VIP 203.0.113.10 with answer_ping = false; say the same"#,
            ],
        },
        Case {
            purpose: "timeouts of the other protocol",
            edits: &[
                ("# service", r#"timeouts = { half_open = "5s", udp = "5m" }"#),
                (
                    "# end",
                    r#"[[service]]
name = "dns"
vip = "203.0.113.10"
port = 53
protocol = "udp"
timeouts = { half_open = "5s", established = "1h", closing = "10s", udp = "25h" }"#,
                ),
            ],
            told: &[
                r#"lb.toml:9: service "www" timeouts udp = "5m": only for protocol udp, but the protocol is tcp; take it out"#,
                r#"lb.toml:38: service "dns" timeouts established = "1h": only for protocol tcp, but the protocol is udp; take it out"#,
                r#"lb.toml:38: service "dns" timeouts closing = "10s": only for protocol tcp, but the protocol is udp; take it out"#,
                r#"lb.toml:38: service "dns" timeouts udp = "25h": a timeout is 5s to 24h"#,
            ],
        },
        Case {
            purpose: "nothing but backups",
            edits: &[
                ("# backend", "backup = true"),
                (
                    r#"address = "198.18.1.3""#,
                    r#"address = "198.18.1.3"
backup = true"#,
                ),
            ],
            told: &[
                r#"lb.toml:17: service "www" backend backup = true: all backends of the service are backups, so that there is none to stand in for; take backup out of one"#,
            ],
        },
    ]);
}
