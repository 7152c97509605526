//! `[daemon]`.

use super::{Case, check, good};

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "no interface listed",
            edits: &[(r#"interfaces = ["eth0", "eth1"]"#, "interfaces = []")],
            told: &["lb.toml:2: daemon interfaces = []: name at least one interface"],
        },
        Case {
            purpose: "interfaces not given",
            edits: &[(r#"interfaces = ["eth0", "eth1"]"#, r#"xdp_mode = "auto""#)],
            told: &[
                r#"lb.toml:1: daemon interfaces is missing: list the interfaces to attach to, such as ["eth0"]"#,
            ],
        },
        Case {
            purpose: "interface mistyped",
            edits: &[(
                r#"interfaces = ["eth0", "eth1"]"#,
                r#"interfaces = ["eth0", "ethl"]"#,
            )],
            told: &[
                r#"lb.toml:2: daemon interfaces = "ethl": there is no such interface; this machine has lo, eth0, eth1"#,
            ],
        },
        Case {
            purpose: "interface that does not exist",
            edits: &[(r#"interfaces = ["eth0", "eth1"]"#, r#"interfaces = ["wan"]"#)],
            told: &[
                r#"lb.toml:2: daemon interfaces = "wan": there is no such interface; this machine has lo, eth0, eth1"#,
            ],
        },
        Case {
            purpose: "interface named twice",
            edits: &[(
                r#"interfaces = ["eth0", "eth1"]"#,
                r#"interfaces = ["eth0", "eth1", "eth0"]"#,
            )],
            told: &[r#"lb.toml:2: daemon interfaces = "eth0": this interface is named twice; take one out"#],
        },
        Case {
            purpose: "mode that does not exist",
            edits: &[("# daemon", r#"xdp_mode = "nativ""#)],
            told: &[r#"lb.toml:3: daemon xdp_mode = "nativ": allowed: "auto", "native", "generic""#],
        },
        Case {
            purpose: "connection table too small",
            edits: &[("# daemon", "max_connections = 1023")],
            told: &["lb.toml:3: daemon max_connections = 1023: max_connections is 1024 to 16777216"],
        },
        Case {
            purpose: "connection table too large",
            edits: &[("# daemon", "max_connections = 16_777_217")],
            told: &["lb.toml:3: daemon max_connections = 16_777_217: max_connections is 1024 to 16777216"],
        },
        Case {
            purpose: "negative number",
            edits: &[("# daemon", "max_connections = -1")],
            told: &["lb.toml:3: daemon max_connections = -1: max_connections is 1024 to 16777216"],
        },
        Case {
            purpose: "metrics on port 0",
            edits: &[("# daemon", r#"metrics = "127.0.0.1:0""#)],
            told: &[r#"lb.toml:3: daemon metrics = "127.0.0.1:0": a port is 1 to 65535"#],
        },
        Case {
            purpose: "metrics without a port",
            edits: &[("# daemon", r#"metrics = "127.0.0.1""#)],
            told: &[
                r#"lb.toml:3: daemon metrics = "127.0.0.1": not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
            ],
        },
        Case {
            purpose: "metrics on a host name",
            edits: &[("# daemon", r#"metrics = "localhost:9100""#)],
            told: &[
                r#"lb.toml:3: daemon metrics = "localhost:9100": not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
            ],
        },
        Case {
            purpose: "metrics port above 65535",
            edits: &[("# daemon", r#"metrics = "127.0.0.1:65536""#)],
            told: &[
                r#"lb.toml:3: daemon metrics = "127.0.0.1:65536": not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
            ],
        },
        Case {
            purpose: "empty paths",
            edits: &[(
                "# daemon",
                r#"socket = ""
state_directory = """#,
            )],
            told: &[
                r#"lb.toml:3: daemon socket = "": name a file"#,
                r#"lb.toml:4: daemon state_directory = "": name a file"#,
            ],
        },
        Case {
            purpose: "zero byte in a path",
            edits: &[("# daemon", "state_directory = \"a\\u0000b\"")],
            told: &["lb.toml:3: daemon state_directory = \"a\\u0000b\": a path has no zero bytes"],
        },
        Case {
            purpose: "socket that is a directory",
            edits: &[("# daemon", r#"socket = "/run/lb/""#)],
            told: &[r#"lb.toml:3: daemon socket = "/run/lb/": name the socket itself, not a directory"#],
        },
        Case {
            purpose: "socket path beyond what the kernel takes",
            edits: &[(
                "# daemon",
                r#"socket = "/run/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
            )],
            told: &[
                r#"lb.toml:3: daemon socket = "/run/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…: a socket's whole path is at most 107 bytes"#,
            ],
        },
        Case {
            purpose: "group that does not exist",
            edits: &[("# daemon", r#"socket_group = "operators""#)],
            told: &[
                r#"lb.toml:3: daemon socket_group = "operators": there is no such group; make it (`groupadd --system operators`), or name another one, or its number"#,
            ],
        },
        Case {
            purpose: "group without a name",
            edits: &[("# daemon", r#"socket_group = """#)],
            told: &[
                r#"lb.toml:3: daemon socket_group = "": there is no such group; make it (`groupadd --system NAME`), or name another one, or its number"#,
            ],
        },
        Case {
            purpose: "the number that is no group",
            edits: &[("# daemon", r#"socket_group = "4294967295""#)],
            told: &[r#"lb.toml:3: daemon socket_group = "4294967295": a group's number is 0 to 4294967294"#],
        },
        Case {
            purpose: "everything wrong is told at once, in the order of the file",
            edits: &[
                (r#"interfaces = ["eth0", "eth1"]"#, r#"interfaces = ["wan"]"#),
                (
                    "# daemon",
                    r#"xdp_mode = "x"
max_connections = 1"#,
                ),
                ("port = 443", "port = 0"),
                ("# backend", "weight = 300"),
                ("# server", "via = []"),
            ],
            told: &[
                r#"lb.toml:2: daemon interfaces = "wan": there is no such interface; this machine has lo, eth0, eth1"#,
                r#"lb.toml:3: daemon xdp_mode = "x": allowed: "auto", "native", "generic""#,
                "lb.toml:4: daemon max_connections = 1: max_connections is 1024 to 16777216",
                r#"lb.toml:9: service "www" port = 0: a port is 1 to 65535"#,
                r#"lb.toml:18: service "www" backend "web1" weight = 300: a weight is 0 to 256"#,
                r#"lb.toml:33: site server "web1" via = []: name the command that runs a script there, such as ["ssh", "root@web1"]; for this machine leave via out"#,
            ],
        },
    ]);
}

#[test]
fn a_group_goes_by_name_or_by_number() {
    let group = |typed: &str| {
        let line = format!("socket_group = {typed:?}");
        good(&[("# daemon", &line)]).daemon.socket_group
    };
    assert_eq!(group("adm"), Some(4));
    assert_eq!(group("1001"), Some(1001));
    assert_eq!(group("0"), Some(0));
    assert_eq!(good(&[]).daemon.socket_group, None);
}
