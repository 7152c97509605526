//! TOML, keys and types.

use super::{Case, check};

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "unknown key, with the nearest",
            edits: &[("# daemon", r#"mettrics = "x""#)],
            told: &[
                r#"lb.toml:3: daemon mettrics = "x": unknown key; allowed here: interfaces, xdp_mode, max_connections, max_wide_connections, full_nat_ports, selection_seed, socket, socket_group, state_directory, pin_directory, metrics; did you mean "metrics"?"#,
            ],
        },
        Case {
            purpose: "unknown key, nothing near",
            edits: &[("# backend", "zzz = 1")],
            told: &[
                r#"lb.toml:17: service "www" backend "web1" zzz = 1: unknown key; allowed here: name, address, port, weight, backup"#,
            ],
        },
        Case {
            purpose: "unknown table",
            edits: &[("# daemon", "[daemn]\nx = 1")],
            told: &[
                r#"lb.toml:3: daemn: unknown key; allowed here: daemon, service, site; did you mean "daemon"?"#,
            ],
        },
        Case {
            purpose: "unknown table in a service",
            edits: &[("[service.health]", "[service.healht]")],
            told: &[
                r#"lb.toml:11: service "www" healht: unknown key; allowed here: name, vip, port, ports, protocol, mode, scheduler, stateless, source_address, source_ports, answer_ping, slow_start, manage_vip, when_all_down, on_down, drain_timeout, timeouts, health, backend; did you mean "health"?"#,
            ],
        },
        Case {
            purpose: "every mistake of shape at once, and what does not follow from it",
            edits: &[
                ("# daemon", "socket = 5\nmetrics = true"),
                (
                    "# service",
                    r#"prot = "tcp"
manage_vip = "eth7""#,
                ),
                ("# health", r#"interval = "0s""#),
                (
                    "# backend",
                    r#"weight = 300
port = "443""#,
                ),
            ],
            told: &[
                "lb.toml:3: daemon socket = 5: a string is expected here, not a number; put it in quotes",
                "lb.toml:4: daemon metrics = true: a string is expected here, not true or false; put it in quotes",
                r#"lb.toml:10: service "www" prot = "tcp": unknown key; allowed here: name, vip, port, ports, protocol, mode, scheduler, stateless, source_address, source_ports, answer_ping, slow_start, manage_vip, when_all_down, on_down, drain_timeout, timeouts, health, backend; did you mean "port"?"#,
                r#"lb.toml:14: service "www" health interval = "0s": an interval is 10ms to 1h"#,
                r#"lb.toml:20: service "www" backend "web1" port = "443": a whole number is expected here, not a string; write it without quotes"#,
            ],
        },
        Case {
            purpose: "a missing key that may be the mistyped one is not told",
            edits: &[(r#"vip = "203.0.113.10""#, r#"vpi = "203.0.113.10""#)],
            told: &[
                r#"lb.toml:7: service "www" vpi = "203.0.113.10": unknown key; allowed here: name, vip, port, ports, protocol, mode, scheduler, stateless, source_address, source_ports, answer_ping, slow_start, manage_vip, when_all_down, on_down, drain_timeout, timeouts, health, backend; did you mean "vip"?"#,
            ],
        },
        Case {
            purpose: "string for a number",
            edits: &[("port = 443", r#"port = "443""#)],
            told: &[
                r#"lb.toml:8: service "www" port = "443": a whole number is expected here, not a string; write it without quotes"#,
            ],
        },
        Case {
            purpose: "number for a string",
            edits: &[("# service", "manage_vip = 0")],
            told: &[
                r#"lb.toml:9: service "www" manage_vip = 0: a string is expected here, not a number; put it in quotes"#,
            ],
        },
        Case {
            purpose: "number with a point for a string",
            edits: &[("# site", r#"tls_versions = [1.2, "1.3"]"#)],
            told: &[
                "lb.toml:28: site tls_versions = 1.2: a string is expected here, not a number with a point; put it in quotes",
            ],
        },
        Case {
            purpose: "number with a point for a number",
            edits: &[("# backend", "weight = 1.5")],
            told: &[
                r#"lb.toml:17: service "www" backend "web1" weight = 1.5: a whole number is expected here, not a number with a point"#,
            ],
        },
        Case {
            purpose: "string for true",
            edits: &[("# site", r#"redirect_http = "true""#)],
            told: &[
                r#"lb.toml:28: site redirect_http = "true": true or false is expected here, not a string; write it without quotes"#,
            ],
        },
        Case {
            purpose: "date for a string",
            edits: &[("# daemon", "socket = 2026-11-23")],
            told: &[
                "lb.toml:3: daemon socket = 2026-11-23: a string is expected here, not a date or time of day; put it in quotes",
            ],
        },
        Case {
            purpose: "table for a string",
            edits: &[("# end", "[daemon.socket]")],
            told: &["lb.toml:33: daemon socket: a string is expected here, not a table"],
        },
        Case {
            purpose: "string for a list",
            edits: &[(r#"interfaces = ["eth0", "eth1"]"#, r#"interfaces = "eth0""#)],
            told: &[
                r#"lb.toml:2: daemon interfaces = "eth0": a list is expected here, not a string; put it in brackets: [ … ]"#,
            ],
        },
        Case {
            purpose: "string for a table",
            edits: &[("# service", r#"timeouts = "30s""#)],
            told: &[r#"lb.toml:9: service "www" timeouts = "30s": a table is expected here, not a string"#],
        },
        Case {
            purpose: "number that no integer holds",
            edits: &[("port = 443", "port = 99999999999999999999")],
            told: &[r#"lb.toml:8: service "www" port = 99999999999999999999: the number is too large"#],
        },
        Case {
            purpose: "number that not even the parser holds",
            edits: &[(
                "port = 443",
                "port = 99999999999999999999999999999999999999999999999999",
            )],
            told: &[
                r#"lb.toml:8: service "www" port = 99999999999999999999999999999999999999999999999999: the number is too large"#,
            ],
        },
        Case {
            purpose: "number for a time",
            edits: &[("# health", "interval = 5")],
            told: &[
                r#"lb.toml:12: service "www" health interval = 5: a time such as "500ms", "30s" or "2h4m" is expected here, not a number"#,
            ],
        },
        Case {
            purpose: "time without a unit",
            edits: &[("# health", r#"interval = "5""#)],
            told: &[
                r#"lb.toml:12: service "www" health interval = "5": not a length of time; write numbers with units (ms, s, m, h, d) such as "500ms", "30s" or "2h4m""#,
            ],
        },
        Case {
            purpose: "time that makes no sense",
            edits: &[("# health", r#"interval = "soon""#)],
            told: &[
                r#"lb.toml:12: service "www" health interval = "soon": not a length of time; write numbers with units (ms, s, m, h, d) such as "500ms", "30s" or "2h4m""#,
            ],
        },
        Case {
            purpose: "time that overflows",
            edits: &[("# health", r#"interval = "99999999999999999999y""#)],
            told: &[
                r#"lb.toml:12: service "www" health interval = "99999999999999999999y": not a length of time; write numbers with units (ms, s, m, h, d) such as "500ms", "30s" or "2h4m""#,
            ],
        },
        Case {
            purpose: "status in quotes",
            edits: &[(
                "# health",
                r#"type = "http"
expect_status = "200""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health expect_status = "200": a whole number or a list of them is expected here, not a string"#,
            ],
        },
        Case {
            purpose: "status in quotes in a list",
            edits: &[(
                "# health",
                r#"type = "http"
expect_status = [200, "204"]"#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health expect_status = "204": a whole number is expected here, not a string; write it without quotes"#,
            ],
        },
        Case {
            purpose: "one table in brackets for several",
            edits: &[("[[site.server]]", "[site.server]")],
            told: &[
                "lb.toml:30: site server: a list is expected here, not a table; write its header in double brackets: [[…]]",
            ],
        },
        Case {
            purpose: "several tables for one",
            edits: &[("[site]", "[[site]]"), ("[[site.server]]", "[[site.server]]")],
            told: &[
                "lb.toml:23: site: a table is expected here, not a list; write its header once and in single brackets: […]",
            ],
        },
        Case {
            purpose: "list for a table, which serde would take field by field",
            edits: &[(
                "# end",
                r#"[[service]]
name = "x"
vip = "203.0.113.11"
port = 1
timeouts = ["5s", "5s", "5s"]"#,
            )],
            told: &[
                r#"lb.toml:37: service "x" timeouts = ["5s", "5s", "5s"]: a table is expected here, not a list; write its header once and in single brackets: […]"#,
            ],
        },
        Case {
            purpose: "unknown key in scripts",
            edits: &[("# server", r#"scripts = { rload = "true" }"#)],
            told: &[
                r#"lb.toml:32: site server "web1" scripts rload = "true": unknown key; allowed here: stage, test, swap, reload, restore; did you mean "reload"?"#,
            ],
        },
        Case {
            purpose: "unknown keys of a service without a name",
            edits: &[(
                "# end",
                r#"[[service]]
nmae = "x""#,
            )],
            told: &[
                r#"lb.toml:34: service #2 nmae = "x": unknown key; allowed here: name, vip, port, ports, protocol, mode, scheduler, stateless, source_address, source_ports, answer_ping, slow_start, manage_vip, when_all_down, on_down, drain_timeout, timeouts, health, backend; did you mean "name"?"#,
            ],
        },
        Case {
            purpose: "value without quotes",
            edits: &[("# daemon", "socket = /run/lb.sock")],
            told: &[
                "lb.toml:3: socket = /run/lb.sock: not TOML at column 10: string values must be quoted, expected literal string",
            ],
        },
        Case {
            purpose: "string that does not end",
            edits: &[("# daemon", r#"socket = "/run"#)],
            told: &[
                r#"lb.toml:3: socket = "/run: not TOML at column 15: invalid basic string, expected `"`"#,
            ],
        },
        Case {
            purpose: "no value",
            edits: &[("# daemon", "socket")],
            told: &["lb.toml:3: socket: not TOML at column 7: key with no value, expected `=`"],
        },
        Case {
            purpose: "key given twice",
            edits: &[("port = 443", "port = 443\nport = 80")],
            told: &[
                "lb.toml:9: port = 80: not TOML at column 1: this is there already; take one of the two out, or write [[…]] if there may be several",
            ],
        },
        Case {
            purpose: "table given twice",
            edits: &[("# daemon", "[daemon]")],
            told: &[
                "lb.toml:3: [daemon]: not TOML at column 2: this is there already; take one of the two out, or write [[…]] if there may be several",
            ],
        },
        Case {
            purpose: "control character",
            edits: &[("# daemon", "socket = \"a\u{7}b\"")],
            told: &[
                "lb.toml:3: socket = \"a\\u{7}b\": not TOML at column 12: invalid basic string, expected non-double-quote visible characters, `\\`",
            ],
        },
        Case {
            purpose: "long values are cut and stay on one line",
            edits: &[(
                r#"interfaces = ["eth0", "eth1"]"#,
                r#"interfaces = [
  "wan",
]
xdp_mode = """
xxxxxxxxx
"""
metrics = "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy""#,
            )],
            told: &[
                r#"lb.toml:3: daemon interfaces = "wan": there is no such interface; this machine has lo, eth0, eth1"#,
                r#"lb.toml:5: daemon xdp_mode = """…: allowed: "auto", "native", "generic""#,
                r#"lb.toml:8: daemon metrics = "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…: not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
            ],
        },
    ]);
}
