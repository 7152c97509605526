//! Tables of {purpose, edits of a good file, the exact lines that are printed}.

mod arbitrary;
mod certificates;
mod daemon;
mod example;
mod families;
mod forwarding;
mod good;
mod health;
mod limits;
mod ports;
mod service;
mod shape;
mod sharing;
mod site;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Config, Host, parse};

/// A good file; edits replace its lines, mostly the comments.
pub(super) const GOOD: &str = r#"[daemon]
interfaces = ["eth0", "eth1"]
# daemon

[[service]]
name = "www"
vip = "203.0.113.10"
port = 443
# service

[service.health]
# health

[[service.backend]]
name = "web1"
address = "198.18.1.2"
# backend

[[service.backend]]
name = "web2"
address = "198.18.1.3"

[site]
server_names = ["www.foobar.com"]
certificate = "site.pem"
key = "site.key"
upstream = ["127.0.0.1:8080"]
# site

[[site.server]]
name = "web1"
# server
# end
"#;

/// A machine with interfaces and files as told.
pub(super) struct FakeHost {
    pub(super) interfaces: Vec<String>,
    pub(super) addresses: Vec<(IpAddr, u32)>,
    pub(super) files: HashMap<PathBuf, Vec<u8>>,
}

impl FakeHost {
    pub(super) fn new() -> Self {
        Self {
            interfaces: vec!["lo".into(), "eth0".into(), "eth1".into()],
            // The host's own, and one that lbd has put there.
            addresses: vec![
                ([198, 51, 100, 5].into(), 24),
                ("2001:db8:5::5".parse().unwrap(), 64),
                ([203, 0, 113, 77].into(), 32),
            ],
            files: certificates::files(),
        }
    }
}

impl Host for FakeHost {
    fn interfaces(&self) -> io::Result<Vec<String>> {
        Ok(self.interfaces.clone())
    }

    fn addresses(&self) -> io::Result<Vec<(IpAddr, u32)>> {
        Ok(self.addresses.clone())
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        Ok((name == "adm").then_some(4))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(file)
            .cloned()
            .ok_or_else(|| io::Error::from_raw_os_error(2))
    }
}

/// What should be refused.
pub(super) struct Case {
    pub(super) purpose: &'static str,
    /// In the good file, replace each left side, which must occur once as a line, with the right side.
    pub(super) edits: &'static [(&'static str, &'static str)],
    /// What is printed.
    pub(super) told: &'static [&'static str],
}

pub(super) fn edited(edits: &[(&str, &str)]) -> String {
    let mut text = GOOD.to_owned();
    for (from, to) in edits {
        let from = format!("\n{from}\n");
        assert_eq!(
            text.matches(&from).count(),
            1,
            "{from:?} must be one line of the good file"
        );
        text = text.replace(&from, &format!("\n{to}\n"));
    }
    text
}

pub(super) fn read(text: &str) -> Result<Config, Vec<String>> {
    parse(text, Path::new("lb.toml"), &FakeHost::new())
        .map_err(|error| error.to_string().lines().map(ToOwned::to_owned).collect())
}

pub(super) fn good(edits: &[(&str, &str)]) -> Config {
    read(&edited(edits)).unwrap_or_else(|told| panic!("{edits:?} is refused:\n{}", told.join("\n")))
}

/// Checks every case before failing, so that one run shows all that differ.
pub(super) fn check(cases: &[Case]) {
    let mut failed = String::new();
    for case in cases {
        let told = read(&edited(case.edits)).map_or_else(|told| told, |_| Vec::new());
        if told != case.told {
            failed += &format!(
                "{}\n  told:     {}\n  expected: {}\n",
                case.purpose,
                told.join("\n            "),
                case.told.join("\n            ")
            );
        }
    }
    assert!(failed.is_empty(), "{failed}");
}
