//! The example that is shipped loads, and tells every key with its default.

use std::path::Path;

use super::{FakeHost, certificates};
use crate::config::{Config, ConfigError, DEFAULT_SOURCE_PORTS, Mode, Scheduler, Timeouts, parse};

/// The example that is shipped, and the same with every commented-out key put in.
fn example() -> (String, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/lb.toml");
    let text = std::fs::read_to_string(file).unwrap();
    // Prose begins with "# ", a key that is commented out with "#" alone.
    let full = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    (text, full)
}

fn read_example(text: &str) -> Result<Config, ConfigError> {
    let mut host = FakeHost::new();
    host.files = certificates::files()
        .into_iter()
        .map(|(name, bytes)| (Path::new("/etc/lb").join(name), bytes))
        .collect();
    parse(text, Path::new("/etc/lb/lb.toml"), &host)
}

#[test]
fn the_example_loads_and_the_keys_that_it_leaves_out_are_the_defaults() {
    let (text, full) = example();
    assert_ne!(text, full);
    let config = read_example(&text).unwrap_or_else(|error| panic!("{error}"));
    let full = read_example(&full).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config, full);
}

#[test]
fn the_services_of_other_kinds_load_as_well() {
    let (text, _) = example();
    let (first, others) = text.split_once("# Services of other kinds").unwrap();
    // Prose begins with a capital; a table or a key does not.
    let toml = |line: &&str| !line.starts_with(|first: char| first.is_ascii_uppercase());
    let lines = others
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches(['#', ' ']));
    let others: String = lines.filter(toml).map(|line| format!("{line}\n")).collect();
    let config = read_example(&format!("{first}{others}")).unwrap_or_else(|error| panic!("{error}"));
    let kinds: Vec<_> = config
        .services
        .iter()
        .map(|service| (service.mode, service.scheduler, service.ports.to_string()))
        .collect();
    assert_eq!(
        kinds,
        [
            (Mode::Nat, Scheduler::RoundRobin, "443".to_owned()),
            (Mode::Nat, Scheduler::Maglev, "53".to_owned()),
            (Mode::FullNat, Scheduler::RoundRobin, "25".to_owned()),
            (Mode::Dsr, Scheduler::SourceHash, "any".to_owned()),
            (Mode::Ipip, Scheduler::LeastConnections, "443".to_owned()),
        ]
    );
}

/// What stands behind "# " is told to have its default, too, where there is one.
#[test]
fn defaults_of_keys_for_other_kinds_of_services() {
    let (text, _) = example();
    assert!(text.contains("\n# full_nat_ports = 262144\n"));
    assert!(text.contains("\n# udp = \"5m\"\n") && Timeouts::default().udp.as_secs() == 300);
    let ports = format!("{}-{}", DEFAULT_SOURCE_PORTS.start(), DEFAULT_SOURCE_PORTS.end());
    assert!(text.contains(&format!("\n# source_ports = \"{ports}\"\n")));
}

#[test]
fn the_example_tells_every_key() {
    let (_, full) = example();
    for table in [
        "[[service.backend]]",
        "[[service]]",
        "[[site.server]]",
        "[daemon]",
        "[service.health]",
        "[service.timeouts]",
        "[site.server.scripts]",
        "[site]",
    ] {
        let section: String = full
            .split('\n')
            .skip_while(|line| *line != table)
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .map(|line| format!("{line}\n"))
            .collect();
        let asked = full.replacen(
            &format!("\n{table}\n"),
            &format!("\n{table}\nno_such_key = 1\n"),
            1,
        );
        let told = read_example(&asked).unwrap_err().to_string();
        let (_, keys) = told.split_once("allowed here: ").unwrap();
        for key in keys.split(", ") {
            let is_table = full.lines().any(|line| {
                line.trim_matches(['[', ']']) == format!("{}.{key}", table.trim_matches(['[', ']']))
            });
            let is_key = section
                .lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            assert!(is_table || is_key, "{table} {key} is not in the example");
        }
    }
}
