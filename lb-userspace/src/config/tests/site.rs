//! `[site]`, its certificate and its web servers.

use super::{Case, check, good};

/// Else a daemon would not start again once the certificate has expired, nor where the clock is wrong.
#[test]
fn a_certificate_is_taken_whatever_the_date() {
    for file in ["expired.pem", "early.pem"] {
        let config = good(&[(
            r#"certificate = "site.pem""#,
            &format!("certificate = \"{file}\""),
        )]);
        assert!(config.site.unwrap().certificate.ends_with(file));
    }
}

#[test]
fn refused() {
    check(&[
        Case {
            purpose: "no names",
            edits: &[(r#"server_names = ["www.foobar.com"]"#, "server_names = []")],
            told: &["lb.toml:24: site server_names = []: name at least one name"],
        },
        Case {
            purpose: "names not given",
            edits: &[(r#"server_names = ["www.foobar.com"]"#, "")],
            told: &[
                r#"lb.toml:23: site server_names is missing: list the site's names, such as ["www.example.com"]"#,
            ],
        },
        Case {
            purpose: "names that are none",
            edits: &[(
                r#"server_names = ["www.foobar.com"]"#,
                r#"server_names = ["www foobar", "192.0.2.1", "a..b", "-a.b", "www.*.com", "", "bücher.example", "x;}"]"#,
            )],
            told: &[
                r#"lb.toml:24: site server_names = "www foobar": not a DNS name such as "www.example.com""#,
                r#"lb.toml:24: site server_names = "192.0.2.1": not a DNS name such as "www.example.com""#,
                r#"lb.toml:24: site server_names = "a..b": not a DNS name such as "www.example.com""#,
                r#"lb.toml:24: site server_names = "-a.b": not a DNS name such as "www.example.com""#,
                r#"lb.toml:24: site server_names = "www.*.com": not a DNS name such as "www.example.com""#,
                r#"lb.toml:24: site server_names = "": not a DNS name such as "www.example.com""#,
                r#"lb.toml:24: site server_names = "bücher.example": a DNS name is written in ASCII; use the xn-- form of this one"#,
                r#"lb.toml:24: site server_names = "x;}": not a DNS name such as "www.example.com""#,
            ],
        },
        Case {
            purpose: "name twice, in another case",
            edits: &[(
                r#"server_names = ["www.foobar.com"]"#,
                r#"server_names = ["www.foobar.com", "WWW.foobar.com"]"#,
            )],
            told: &[
                r#"lb.toml:24: site server_names = "WWW.foobar.com": this name is named twice; take one out"#,
            ],
        },
        Case {
            purpose: "names that the certificate does not cover",
            edits: &[(
                r#"server_names = ["www.foobar.com"]"#,
                r#"server_names = ["www.foobar.com", "mail.foobar.com", "*.foobar.com", "a.b.apps.foobar.com"]"#,
            )],
            told: &[
                r#"lb.toml:24: site server_names = "mail.foobar.com": the certificate is not valid for it, but for www.foobar.com, foobar.com, *.apps.foobar.com"#,
                r#"lb.toml:24: site server_names = "*.foobar.com": the certificate is not valid for it, but for www.foobar.com, foobar.com, *.apps.foobar.com"#,
                r#"lb.toml:24: site server_names = "a.b.apps.foobar.com": the certificate is not valid for it, but for www.foobar.com, foobar.com, *.apps.foobar.com"#,
            ],
        },
        Case {
            purpose: "certificate of another site",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "other.pem""#)],
            told: &[
                r#"lb.toml:24: site server_names = "www.foobar.com": the certificate is not valid for it, but for www.example.com, example.com"#,
            ],
        },
        Case {
            purpose: "certificate without names",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "nameless.pem""#)],
            told: &[
                r#"lb.toml:24: site server_names = "www.foobar.com": the certificate is not valid for it, but for no name at all"#,
            ],
        },
        Case {
            purpose: "certificate not given",
            edits: &[(r#"certificate = "site.pem""#, "")],
            told: &["lb.toml:23: site certificate is missing: write the PEM file with the certificate chain"],
        },
        Case {
            purpose: "certificate file that does not exist",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "gone.pem""#)],
            told: &[
                r#"lb.toml:25: site certificate = "gone.pem": cannot be read: No such file or directory"#,
            ],
        },
        Case {
            purpose: "certificate file that is no PEM",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "text.pem""#)],
            told: &[
                r#"lb.toml:25: site certificate = "text.pem": no certificate inside; PEM, which begins with -----BEGIN CERTIFICATE-----, is expected"#,
            ],
        },
        Case {
            purpose: "certificate file cut short",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "cut.pem""#)],
            told: &[r#"lb.toml:25: site certificate = "cut.pem": the PEM text is damaged or cut short"#],
        },
        Case {
            purpose: "certificate file with something else inside",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "wrong.pem""#)],
            told: &[
                r#"lb.toml:25: site certificate = "wrong.pem": certificate 1 of 1: not an X.509 certificate"#,
            ],
        },
        Case {
            purpose: "certificate and key mixed up",
            edits: &[
                (r#"certificate = "site.pem""#, r#"certificate = "site.key""#),
                (r#"key = "site.key""#, r#"key = "site.pem""#),
            ],
            told: &[
                r#"lb.toml:25: site certificate = "site.key": no certificate inside; PEM, which begins with -----BEGIN CERTIFICATE-----, is expected"#,
            ],
        },
        Case {
            purpose: "chain in the wrong order",
            edits: &[(r#"certificate = "site.pem""#, r#"certificate = "backwards.pem""#)],
            told: &[
                r#"lb.toml:24: site server_names = "www.foobar.com": the certificate is not valid for it, but for no name at all"#,
                r#"lb.toml:26: site key = "site.key": not the key of the first certificate (the server's own comes first in a chain)"#,
            ],
        },
        Case {
            purpose: "key not given",
            edits: &[(r#"key = "site.key""#, "")],
            told: &["lb.toml:23: site key is missing: write the PEM file with the certificate's private key"],
        },
        Case {
            purpose: "key file that does not exist",
            edits: &[(r#"key = "site.key""#, r#"key = "gone.key""#)],
            told: &[r#"lb.toml:26: site key = "gone.key": cannot be read: No such file or directory"#],
        },
        Case {
            purpose: "key of another certificate",
            edits: &[(r#"key = "site.key""#, r#"key = "other.key""#)],
            told: &[
                r#"lb.toml:26: site key = "other.key": not the key of the first certificate (the server's own comes first in a chain)"#,
            ],
        },
        Case {
            purpose: "key file without a key",
            edits: &[(r#"key = "site.key""#, r#"key = "text.pem""#)],
            told: &[
                r#"lb.toml:26: site key = "text.pem": no private key inside; PEM, which begins with -----BEGIN PRIVATE KEY-----, is expected"#,
            ],
        },
        Case {
            purpose: "key that is none",
            edits: &[(r#"key = "site.key""#, r#"key = "wrong.key""#)],
            told: &[
                r#"lb.toml:26: site key = "wrong.key": not a private key of a kind that TLS has use for (RSA, ECDSA, Ed25519)"#,
            ],
        },
        Case {
            purpose: "key with a passphrase",
            edits: &[(r#"key = "site.key""#, r#"key = "locked.key""#)],
            told: &[
                r#"lb.toml:26: site key = "locked.key": the key has a passphrase; take it away (openssl pkey -in KEY -out NEW_KEY)"#,
            ],
        },
        Case {
            purpose: "no upstream",
            edits: &[(r#"upstream = ["127.0.0.1:8080"]"#, "upstream = []")],
            told: &["lb.toml:27: site upstream = []: name at least one upstream"],
        },
        Case {
            purpose: "upstream not given",
            edits: &[(r#"upstream = ["127.0.0.1:8080"]"#, "")],
            told: &[
                r#"lb.toml:23: site upstream is missing: list the application servers that nginx passes requests to, such as ["127.0.0.1:8080"]"#,
            ],
        },
        Case {
            purpose: "upstreams that are none",
            edits: &[(
                r#"upstream = ["127.0.0.1:8080"]"#,
                r#"upstream = ["127.0.0.1", "app:8080", "127.0.0.1:0", "0.0.0.0:80"]"#,
            )],
            told: &[
                r#"lb.toml:27: site upstream = "127.0.0.1": not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
                r#"lb.toml:27: site upstream = "app:8080": not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
                r#"lb.toml:27: site upstream = "127.0.0.1:0": a port is 1 to 65535"#,
                r#"lb.toml:27: site upstream = "0.0.0.0:80": nothing can be connected to there; name the server's own address"#,
            ],
        },
        Case {
            purpose: "upstream named twice",
            edits: &[(
                r#"upstream = ["127.0.0.1:8080"]"#,
                r#"upstream = ["127.0.0.1:8080", "127.0.0.1:8080"]"#,
            )],
            told: &[
                r#"lb.toml:27: site upstream = "127.0.0.1:8080": this upstream is named twice; take one out"#,
            ],
        },
        Case {
            purpose: "ports out of range",
            edits: &[("# site", "http_port = 65536\nhttps_port = 0")],
            told: &[
                "lb.toml:28: site http_port = 65536: http_port (0: off) is 0 to 65535",
                "lb.toml:29: site https_port = 0: a port is 1 to 65535",
            ],
        },
        Case {
            purpose: "one port for both",
            edits: &[("# site", "http_port = 8443\nhttps_port = 8443")],
            told: &[
                "lb.toml:29: site https_port = 8443: HTTP and HTTPS are both on port 8443; give them different ones, or http_port = 0",
            ],
        },
        Case {
            purpose: "HTTP on the default port of HTTPS",
            edits: &[("# site", "http_port = 443")],
            told: &[
                "lb.toml:28: site http_port = 443: HTTP and HTTPS are both on port 443; give them different ones, or http_port = 0",
            ],
        },
        Case {
            purpose: "redirect of nothing",
            edits: &[("# site", "http_port = 0\nredirect_http = true")],
            told: &[
                "lb.toml:29: site redirect_http = true: nothing can be redirected: http_port = 0 turns HTTP off; take one of the two out",
            ],
        },
        Case {
            purpose: "HSTS with HTTP served",
            edits: &[(
                "# site",
                r#"redirect_http = false
hsts = "1d""#,
            )],
            told: &[
                r#"lb.toml:29: site hsts = "1d": tells browsers never to use HTTP, while redirect_http = false serves the site over it; take hsts out, or redirect, or turn HTTP off with http_port = 0"#,
            ],
        },
        Case {
            purpose: "HSTS in fractions of a second",
            edits: &[("# site", r#"hsts = "1500ms""#)],
            told: &[r#"lb.toml:28: site hsts = "1500ms": hsts is told in whole seconds"#],
        },
        Case {
            purpose: "HSTS for longer than any browser lives",
            edits: &[("# site", r#"hsts = "100y""#)],
            told: &[r#"lb.toml:28: site hsts = "100y": hsts is 0s to 3650d"#],
        },
        Case {
            purpose: "no TLS version",
            edits: &[("# site", "tls_versions = []")],
            told: &["lb.toml:28: site tls_versions = []: name at least one TLS version"],
        },
        Case {
            purpose: "TLS version twice",
            edits: &[("# site", r#"tls_versions = ["1.2", "1.2"]"#)],
            told: &[
                r#"lb.toml:28: site tls_versions = "1.2": this TLS version is named twice; take one out"#,
            ],
        },
        Case {
            purpose: "TLS version of the past",
            edits: &[("# site", r#"tls_versions = ["1.1", "1.3"]"#)],
            told: &[r#"lb.toml:28: site tls_versions = "1.1": allowed: "1.2", "1.3""#],
        },
        Case {
            purpose: "times out of range",
            edits: &[(
                "# site",
                r#"keepalive_time = "500ms"
keepalive_timeout = "0s"
drain_timeout = "61m""#,
            )],
            told: &[
                r#"lb.toml:28: site keepalive_time = "500ms": keepalive_time is 1s to 1h"#,
                r#"lb.toml:29: site keepalive_timeout = "0s": keepalive_timeout is 1s to 1h"#,
                r#"lb.toml:30: site drain_timeout = "61m": drain_timeout is 1s to 1h"#,
            ],
        },
        Case {
            purpose: "keep-alive in fractions of a second",
            edits: &[("# site", r#"keepalive_time = "1500ms""#)],
            told: &[r#"lb.toml:28: site keepalive_time = "1500ms": keepalive_time is told in whole seconds"#],
        },
        Case {
            purpose: "no server",
            edits: &[
                ("[[site.server]]", "[[service]]"),
                (
                    r#"name = "web1"
# server"#,
                    r#"name = "x"
vip = "203.0.113.11"
port = 1"#,
                ),
            ],
            told: &[
                "lb.toml:23: site server is missing: name at least one web server, headed [[site.server]]",
            ],
        },
        Case {
            purpose: "two servers of one name",
            edits: &[(
                "# end",
                r#"[[site.server]]
name = "web1"
address = "198.18.1.9:443"
directory = "/etc/nginx/lb2""#,
            )],
            told: &[
                r#"lb.toml:34: site server "web1" name = "web1": another server of the site, in line 31, has this name; rename one"#,
            ],
        },
        Case {
            purpose: "server without an address and without a backend of its name",
            edits: &[(
                "# end",
                r#"[[site.server]]
name = "web9"
directory = "/etc/nginx/lb2""#,
            )],
            told: &[
                r#"lb.toml:33: site server "web9" address is missing: there is no backend of this name to take it from; write address and HTTPS port, such as "198.18.1.2:443""#,
            ],
        },
        Case {
            purpose: "server whose backends are at two addresses",
            edits: &[(
                "# end",
                r#"[[service]]
name = "mail"
vip = "203.0.113.10"
port = 25
backend = [{ name = "web1", address = "198.18.1.9" }]"#,
            )],
            told: &[
                r#"lb.toml:30: site server "web1" address is missing: backends of this name are at 198.18.1.2 and at 198.18.1.9; write which one, with its port"#,
            ],
        },
        Case {
            purpose: "server at the VIP",
            edits: &[("# server", r#"address = "203.0.113.10:443""#)],
            told: &[
                r#"lb.toml:32: site server "web1" address = "203.0.113.10:443": this is a VIP of this file; name the web server's own address"#,
            ],
        },
        Case {
            purpose: "server address without a port",
            edits: &[("# server", r#"address = "198.18.1.2""#)],
            told: &[
                r#"lb.toml:32: site server "web1" address = "198.18.1.2": not an address with a port; write "192.0.2.1:443" or "[2001:db8::1]:443", no host names"#,
            ],
        },
        Case {
            purpose: "server address to listen on",
            edits: &[("# server", r#"address = "0.0.0.0:443""#)],
            told: &[
                r#"lb.toml:32: site server "web1" address = "0.0.0.0:443": nothing can be connected to there; name the server's own address"#,
            ],
        },
        Case {
            purpose: "two servers at one address",
            edits: &[(
                "# end",
                r#"[[site.server]]
name = "web2"
address = "198.18.1.2:443"
via = ["ssh", "web2"]"#,
            )],
            told: &[
                r#"lb.toml:33: site server "web2": another server of the site has the address 198.18.1.2:443 already"#,
            ],
        },
        Case {
            purpose: "two servers in one directory of one machine",
            edits: &[(
                "# end",
                r#"[[site.server]]
name = "web2""#,
            )],
            told: &[
                r#"lb.toml:33: site server "web2": another server of the site has the same via and directory; they would overwrite one another"#,
            ],
        },
        Case {
            purpose: "nothing to reach the server by",
            edits: &[("# server", "via = []")],
            told: &[
                r#"lb.toml:32: site server "web1" via = []: name the command that runs a script there, such as ["ssh", "root@web1"]; for this machine leave via out"#,
            ],
        },
        Case {
            purpose: "empty word in via",
            edits: &[("# server", r#"via = ["ssh", ""]"#)],
            told: &[r#"lb.toml:32: site server "web1" via = "": must not be empty or contain a zero byte"#],
        },
        Case {
            purpose: "relative directory",
            edits: &[("# server", r#"directory = "nginx/lb""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "nginx/lb": must be absolute, such as "/etc/nginx/lb""#,
            ],
        },
        Case {
            purpose: "directory with characters of the shell",
            edits: &[("# server", r#"directory = "/etc/nginx/$(id)""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "/etc/nginx/$(id)": only letters, digits, dots, underscores, hyphens and slashes are allowed"#,
            ],
        },
        Case {
            purpose: "directory that climbs",
            edits: &[("# server", r#"directory = "/etc/nginx/../lb""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "/etc/nginx/../lb": no final slash, no // and no . or .. on the way, please"#,
            ],
        },
        Case {
            purpose: "directory with a final slash",
            edits: &[("# server", r#"directory = "/etc/nginx/lb/""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "/etc/nginx/lb/": no final slash, no // and no . or .. on the way, please"#,
            ],
        },
        Case {
            purpose: "directory that is not the hand-off's own",
            edits: &[("# server", r#"directory = "/etc""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "/etc": the hand-off owns this directory; give it one of its own, such as "/etc/nginx/lb""#,
            ],
        },
        Case {
            purpose: "nginx's own directory",
            edits: &[("# server", r#"directory = "/etc/nginx""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "/etc/nginx": the hand-off owns this directory; give it one of its own, such as "/etc/nginx/lb""#,
            ],
        },
        Case {
            purpose: "the root directory",
            edits: &[("# server", r#"directory = "/""#)],
            told: &[
                r#"lb.toml:32: site server "web1" directory = "/": no final slash, no // and no . or .. on the way, please"#,
            ],
        },
        Case {
            purpose: "empty nginx",
            edits: &[("# server", r#"nginx = " ""#)],
            told: &[
                r#"lb.toml:32: site server "web1" nginx = " ": must not be empty or contain a zero byte"#,
            ],
        },
        Case {
            purpose: "nginx of two lines",
            edits: &[("# server", "nginx = \"a\\nb\"")],
            told: &["lb.toml:32: site server \"web1\" nginx = \"a\\nb\": must be one line"],
        },
        Case {
            purpose: "empty script",
            edits: &[("# server", r#"scripts = { reload = "" }"#)],
            told: &[
                r#"lb.toml:32: site server "web1" scripts reload = "": must not be empty or contain a zero byte"#,
            ],
        },
        Case {
            purpose: "name of a server",
            edits: &[(
                "# end",
                r#"[[site.server]]
name = "web 9"
address = "198.18.1.9:443"
via = ["ssh", "web9"]"#,
            )],
            told: &[
                r#"lb.toml:34: site server "web 9" name = "web 9": a name is 1 to 63 letters, digits, dots, underscores and hyphens"#,
            ],
        },
    ]);
}
