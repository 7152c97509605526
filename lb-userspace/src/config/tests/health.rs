//! `[service.health]`.

use super::{Case, check};

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "type that does not exist",
            edits: &[("# health", r#"type = "htttp""#)],
            told: &[
                r#"lb.toml:12: service "www" health type = "htttp": allowed: "tcp", "http", "https", "none""#,
            ],
        },
        Case {
            purpose: "interval shorter than the timeout",
            edits: &[(
                "# health",
                r#"interval = "1s"
timeout = "1500ms""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health timeout = "1500ms": longer than the interval, 1s; a probe ends before the next begins: at most 1s here, or interval = "1s 500ms""#,
            ],
        },
        Case {
            purpose: "timeout longer than the default interval",
            edits: &[("# health", r#"timeout = "5s""#)],
            told: &[
                r#"lb.toml:12: service "www" health timeout = "5s": longer than the interval, 2s; a probe ends before the next begins: at most 2s here, or interval = "5s""#,
            ],
        },
        Case {
            purpose: "no time at all",
            edits: &[(
                "# health",
                r#"interval = "0s"
timeout = "0s""#,
            )],
            told: &[
                r#"lb.toml:12: service "www" health interval = "0s": an interval is 10ms to 1h"#,
                r#"lb.toml:13: service "www" health timeout = "0s": a timeout is 10ms to 1h"#,
            ],
        },
        Case {
            purpose: "times too long",
            edits: &[(
                "# health",
                r#"interval = "2h"
timeout = "1d"
jitter = "61m""#,
            )],
            told: &[
                r#"lb.toml:12: service "www" health interval = "2h": an interval is 10ms to 1h"#,
                r#"lb.toml:13: service "www" health timeout = "1d": a timeout is 10ms to 1h"#,
                r#"lb.toml:14: service "www" health jitter = "61m": a jitter is 0s to 1h"#,
            ],
        },
        Case {
            purpose: "jitter longer than the interval",
            edits: &[(
                "# health",
                r#"interval = "1s"
jitter = "1100ms""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health jitter = "1100ms": longer than the interval; at most 1s here"#,
            ],
        },
        Case {
            purpose: "rise and fall of none",
            edits: &[("# health", "rise = 0\nfall = 0")],
            told: &[
                r#"lb.toml:12: service "www" health rise = 0: rise is 1 to 100"#,
                r#"lb.toml:13: service "www" health fall = 0: fall is 1 to 100"#,
            ],
        },
        Case {
            purpose: "rise and fall of too many",
            edits: &[("# health", "rise = 101\nfall = 1_000")],
            told: &[
                r#"lb.toml:12: service "www" health rise = 101: rise is 1 to 100"#,
                r#"lb.toml:13: service "www" health fall = 1_000: fall is 1 to 100"#,
            ],
        },
        Case {
            purpose: "port out of range",
            edits: &[("# health", "port = 70000")],
            told: &[r#"lb.toml:12: service "www" health port = 70000: a port is 1 to 65535"#],
        },
        Case {
            purpose: "keys of HTTP with a TCP probe",
            edits: &[(
                "# health",
                r#"path = "/"
host = "a"
expect_status = 200
ca = "ca.pem"
server_name = "a""#,
            )],
            told: &[
                r#"lb.toml:12: service "www" health path = "/": only for type http or https, but the type is tcp; take it out or change the type"#,
                r#"lb.toml:13: service "www" health host = "a": only for type http or https, but the type is tcp; take it out or change the type"#,
                r#"lb.toml:14: service "www" health expect_status = 200: only for type http or https, but the type is tcp; take it out or change the type"#,
                r#"lb.toml:15: service "www" health ca = "ca.pem": only for type https, but the type is tcp; take it out or change the type"#,
                r#"lb.toml:16: service "www" health server_name = "a": only for type https, but the type is tcp; take it out or change the type"#,
            ],
        },
        Case {
            purpose: "keys of HTTPS with an HTTP probe",
            edits: &[(
                "# health",
                r#"type = "http"
ca = "ca.pem""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health ca = "ca.pem": only for type https, but the type is http; take it out or change the type"#,
            ],
        },
        Case {
            purpose: "keys with no probe at all",
            edits: &[(
                "# health",
                r#"type = "none"
interval = "1s"
path = "/"
ca = "ca.pem""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health interval = "1s": only for type tcp, http or https, but the type is none; take it out or change the type"#,
                r#"lb.toml:14: service "www" health path = "/": only for type http or https, but the type is none; take it out or change the type"#,
                r#"lb.toml:15: service "www" health ca = "ca.pem": only for type https, but the type is none; take it out or change the type"#,
            ],
        },
        Case {
            purpose: "path without a slash",
            edits: &[(
                "# health",
                r#"type = "http"
path = "health""#,
            )],
            told: &[r#"lb.toml:13: service "www" health path = "health": a path begins with /"#],
        },
        Case {
            purpose: "empty path",
            edits: &[(
                "# health",
                r#"type = "http"
path = """#,
            )],
            told: &[r#"lb.toml:13: service "www" health path = "": a path begins with /"#],
        },
        Case {
            purpose: "path with a space",
            edits: &[(
                "# health",
                r#"type = "http"
path = "/a b""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health path = "/a b": a path has no spaces, control characters, # or letters beyond ASCII; write them as %20, %23, …"#,
            ],
        },
        Case {
            purpose: "path with a line break, which would forge a header",
            edits: &[("# health", "type = \"http\"\npath = \"/a\\r\\nX: y\"")],
            told: &[
                "lb.toml:13: service \"www\" health path = \"/a\\r\\nX: y\": a path has no spaces, control characters, # or letters beyond ASCII; write them as %20, %23, …",
            ],
        },
        Case {
            purpose: "path that is too long",
            edits: &[(
                "# health",
                r#"type = "http"
path = "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health path = "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…: a path is at most 2048 bytes"#,
            ],
        },
        Case {
            purpose: "path with a fragment",
            edits: &[(
                "# health",
                r#"type = "http"
path = "/a#b""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health path = "/a#b": a path has no spaces, control characters, # or letters beyond ASCII; write them as %20, %23, …"#,
            ],
        },
        Case {
            purpose: "host with a space",
            edits: &[(
                "# health",
                r#"type = "http"
host = "www foobar""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health host = "www foobar": a Host header is a DNS name or an IP address (IPv6 in brackets), with or without a port, such as "www.example.com" or "192.0.2.1:8080""#,
            ],
        },
        Case {
            purpose: "host with port 0",
            edits: &[(
                "# health",
                r#"type = "http"
host = "www.foobar.com:0""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health host = "www.foobar.com:0": a Host header is a DNS name or an IP address (IPv6 in brackets), with or without a port, such as "www.example.com" or "192.0.2.1:8080""#,
            ],
        },
        Case {
            purpose: "host with a line break",
            edits: &[("# health", "type = \"http\"\nhost = \"www.foobar.com\\r\\nX: y\"")],
            told: &[
                "lb.toml:13: service \"www\" health host = \"www.foobar.com\\r\\nX: y\": a Host header is a DNS name or an IP address (IPv6 in brackets), with or without a port, such as \"www.example.com\" or \"192.0.2.1:8080\"",
            ],
        },
        Case {
            purpose: "bare IPv6 host",
            edits: &[(
                "# health",
                r#"type = "http"
host = "2001:db8::1""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health host = "2001:db8::1": a Host header is a DNS name or an IP address (IPv6 in brackets), with or without a port, such as "www.example.com" or "192.0.2.1:8080""#,
            ],
        },
        Case {
            purpose: "status out of range",
            edits: &[(
                "# health",
                r#"type = "http"
expect_status = [99, 600]"#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health expect_status = [99, 600]: a status is 100 to 599, not 99"#,
                r#"lb.toml:13: service "www" health expect_status = [99, 600]: a status is 100 to 599, not 600"#,
            ],
        },
        Case {
            purpose: "one status out of range",
            edits: &[(
                "# health",
                r#"type = "http"
expect_status = 2000"#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health expect_status = 2000: a status is 100 to 599, not 2000"#,
            ],
        },
        Case {
            purpose: "no status",
            edits: &[(
                "# health",
                r#"type = "http"
expect_status = []"#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health expect_status = []: name at least one status, 100 to 599"#,
            ],
        },
        Case {
            purpose: "status named twice",
            edits: &[(
                "# health",
                r#"type = "http"
expect_status = [200, 204, 200]"#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health expect_status = [200, 204, 200]: 200 is named twice; take one out"#,
            ],
        },
        Case {
            purpose: "HTTPS without CA and name",
            edits: &[("# health", r#"type = "https""#)],
            told: &[
                r#"lb.toml:11: service "www" health ca is missing: write the PEM file of the authorities that may have signed the backends' certificate"#,
                r#"lb.toml:11: service "www" health server_name is missing: write the name that the backends' certificate carries"#,
            ],
        },
        Case {
            purpose: "CA file that does not exist",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "gone.pem"
server_name = "www.foobar.com""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health ca = "gone.pem": cannot be read: No such file or directory"#,
            ],
        },
        Case {
            purpose: "CA file without a certificate",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "text.pem"
server_name = "www.foobar.com""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health ca = "text.pem": no certificate inside; PEM, which begins with -----BEGIN CERTIFICATE-----, is expected"#,
            ],
        },
        Case {
            purpose: "CA file with a certificate that is none",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "wrong.pem"
server_name = "www.foobar.com""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health ca = "wrong.pem": certificate 1 of 1: not an X.509 certificate"#,
            ],
        },
        Case {
            purpose: "CA file cut short",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "cut.pem"
server_name = "www.foobar.com""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health ca = "cut.pem": the PEM text is damaged or cut short"#,
            ],
        },
        Case {
            purpose: "CA file that is a key",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "site.key"
server_name = "www.foobar.com""#,
            )],
            told: &[
                r#"lb.toml:13: service "www" health ca = "site.key": no certificate inside; PEM, which begins with -----BEGIN CERTIFICATE-----, is expected"#,
            ],
        },
        Case {
            purpose: "server name that is none",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "ca.pem"
server_name = "www.foobar.com:443""#,
            )],
            told: &[
                r#"lb.toml:14: service "www" health server_name = "www.foobar.com:443": not a DNS name such as "www.example.com", nor an IP address"#,
            ],
        },
        Case {
            purpose: "server name with a wildcard",
            edits: &[(
                "# health",
                r#"type = "https"
ca = "ca.pem"
server_name = "*.foobar.com""#,
            )],
            told: &[
                r#"lb.toml:14: service "www" health server_name = "*.foobar.com": not a DNS name such as "www.example.com", nor an IP address"#,
            ],
        },
    ]);
}
