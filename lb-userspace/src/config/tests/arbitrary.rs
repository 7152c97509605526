//! Whatever is read, nothing panics and the form of messages is kept.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{FakeHost, GOOD};
use crate::config::{Config, Mode, Ports, Protocol, parse, rules};

/// Keys of services that the good file does not have, with values right and wrong.
const OTHER_LINES: &str = r#"max_wide_connections = 1024
full_nat_ports = 16384
selection_seed = 9223372036854775807
ports = "any"
ports = "1-65535"
ports = "65535-1"
ports = "-"
vip = "2001:db8::10"
vip = "::ffff:198.18.1.2"
address = "fe80::1"
address = "2001:db8:1::2"
protocol = "udp"
mode = "full-nat"
mode = "dsr"
mode = "ipip"
scheduler = "maglev"
scheduler = "least-connections"
stateless = true
source_address = "198.51.100.5"
source_address = "2001:db8:5::5"
source_ports = "1-65535"
source_ports = "65535-65535"
source_ports = "0-0"
answer_ping = false
slow_start = "1h"
slow_start = "1ns"
when_all_down = "drop"
timeouts = { udp = "5s" }
backup = true
type = "none"
"#;

/// TOML-like text: the good file with lines put in, taken out, and cut off.
fn mangled() -> impl Strategy<Value = String> {
    let lines = GOOD.lines().chain(OTHER_LINES.lines());
    let pieces: Vec<String> = lines.map(|line| format!("{line}\n")).collect();
    let noise = prop_oneof![
        3 => proptest::sample::select(pieces),
        1 => "[a-z_]{1,9} = (-?[0-9]{1,20}|\"[^\"\\\\\n]{0,9}\"|\\[[0-9, ]{0,9}\\]|true|\\{\\})\n",
        1 => "\\PC{0,9}\n?",
    ];
    proptest::collection::vec(noise, 0..40).prop_map(|pieces| pieces.concat())
}

/// Files of services that differ in everything that a service may have, most of them right.
fn services() -> impl Strategy<Value = String> {
    let one_of = |lines: &[&'static str]| proptest::sample::select(lines.to_vec());
    let service = (
        one_of(&["203.0.113.10", "203.0.113.11", "2001:db8::10"]),
        one_of(&[
            "port = 443",
            "port = 53",
            "ports = \"any\"",
            "ports = \"400-500\"",
        ]),
        one_of(&["tcp", "udp"]),
        one_of(&[
            "mode = \"nat\"",
            "mode = \"full-nat\"\nsource_address = \"198.51.100.5\"\nsource_ports = \"1-1024\"",
            "mode = \"full-nat\"\nsource_address = \"2001:db8:5::5\"",
            "mode = \"dsr\"",
            "mode = \"ipip\"\nsource_address = \"198.51.100.5\"",
            "mode = \"ipip\"\nsource_address = \"2001:db8:5::5\"",
        ]),
        one_of(&[
            "round-robin",
            "least-connections",
            "maglev",
            "source-hash",
            "random",
        ]),
        one_of(&[
            "",
            "stateless = true",
            "slow_start = \"1m\"",
            "answer_ping = false",
            "answer_ping = true",
        ]),
        proptest::collection::vec(
            (
                one_of(&["198.18.1.2", "198.18.1.3", "2001:db8:1::2", "2001:db8:1::3"]),
                one_of(&["", "port = 443", "port = 8443"]),
                proptest::bool::ANY,
            ),
            0..3,
        ),
    );
    proptest::collection::vec(service, 1..4).prop_map(|services| {
        let mut text = "[daemon]\ninterfaces = [\"eth0\"]\nfull_nat_ports = 65536\n".to_owned();
        for (number, (vip, ports, protocol, mode, scheduler, rest, backends)) in services.into_iter().enumerate() {
            text += &format!(
                "[[service]]\nname = \"s{number}\"\nvip = \"{vip}\"\n{ports}\nprotocol = \"{protocol}\"\n{mode}\n\
                 scheduler = \"{scheduler}\"\n{rest}\n"
            );
            for (number, (address, port, backup)) in backends.into_iter().enumerate() {
                text += &format!(
                    "[[service.backend]]\nname = \"b{number}\"\naddress = \"{address}\"\n{port}\nbackup = {backup}\n"
                );
            }
        }
        text
    })
}

/// What the rest of the daemon relies on. How `config` might come to be is not asked.
fn holds_what_it_promises(config: &Config) {
    let mut endpoints = HashSet::new();
    let mut answers_ping = HashMap::new();
    let mut own_ports = 0;
    for service in &config.services {
        assert!(endpoints.insert(service.endpoint()), "{service:?}");
        let of_vip = *answers_ping.entry(service.vip).or_insert(service.answer_ping);
        assert_eq!(of_vip, service.answer_ping, "{service:?}");
        let sends = matches!(service.mode, Mode::FullNat | Mode::Ipip);
        assert_eq!(service.source_address.is_some(), sends, "{service:?}");
        assert!(
            service
                .source_address
                .is_none_or(|own| config.services.iter().all(|other| other.vip != own))
        );
        if service.stateless {
            assert!(
                service.protocol == Protocol::Udp && service.scheduler.hashes(),
                "{service:?}"
            );
            assert!(service.mode != Mode::FullNat, "{service:?}");
        }
        assert!(
            service.slow_start.is_zero() || !service.scheduler.hashes(),
            "{service:?}"
        );
        let all_backups = service.backends.iter().all(|backend| backend.backup);
        assert!(service.backends.is_empty() || !all_backups, "{service:?}");
        if service.mode == Mode::FullNat {
            own_ports += service.backends.len() * service.source_ports.len();
        }
        for backend in &service.backends {
            match (&service.ports, backend.port) {
                (Ports::Range(_), None) => {}
                (Ports::One(port), Some(own)) => assert!(service.mode.maps_ports() || own == *port),
                _ => panic!("{service:?}"),
            }
            let like = match service.mode {
                Mode::Ipip => service.source_address.unwrap(),
                _ => service.vip,
            };
            assert_eq!(backend.address.is_ipv4(), like.is_ipv4(), "{service:?}");
            assert!(service.vip.is_ipv4() || backend.address.is_ipv6(), "{service:?}");
        }
    }
    assert!(own_ports <= config.daemon.full_nat_ports as usize);
}

/// Whatever is read, it is accepted or told why, a line for each problem, in the form that is promised.
fn told_in_form(text: &str) {
    if let Err(error) = parse(text, Path::new("lb.toml"), &FakeHost::new()) {
        assert!(!error.problems.is_empty(), "refused without a reason: {text:?}");
        for problem in &error.problems {
            let lines = 1 + text.matches('\n').count();
            assert!((1..=lines).contains(&problem.line.unwrap()), "{problem}");
            assert!(!problem.what.contains(char::is_control), "{problem}");
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_walked_into() {
    for depth in [79, 80, 81, 1000, 100_000] {
        told_in_form(&format!("{}a = 1", "a.".repeat(depth)));
        told_in_form(&format!("[{}a]", "a.".repeat(depth)));
        told_in_form(&format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)));
        told_in_form(&format!("a = {}1{}", "{a=".repeat(depth), "}".repeat(depth)));
    }
}

#[test]
fn what_is_accepted_holds_what_it_promises() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(2000));
    let accepted = Cell::new(0);
    runner
        .run(&services(), |text| {
            told_in_form(&text);
            if let Ok(config) = parse(&text, Path::new("lb.toml"), &FakeHost::new()) {
                holds_what_it_promises(&config);
                accepted.set(accepted.get() + config.services.len());
            }
            Ok(())
        })
        .unwrap();
    assert!(
        accepted.get() > 100,
        "only {} services were right",
        accepted.get()
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}|(?s).{0,200}") {
        told_in_form(&text);
    }

    #[test]
    fn mangled_files_never_panic(text in mangled()) {
        told_in_form(&text);
    }

    #[test]
    fn an_accepted_server_name_is_one_for_rustls(name in "\\*?[a-zA-Z0-9_.:-]{0,70}") {
        if rules::server_name(&name).is_ok() {
            prop_assert!(rustls::pki_types::ServerName::try_from(name).is_ok());
        }
    }
}
