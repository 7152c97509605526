//! `doctor`: which file it reads, how it shows what it found, how it ends. What it finds is tested beside the code.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::at;
use crate::fake::Running;

const NOWHERE: &str = "/nonexistent/lbd.sock";

/// In the order in which they are shown.
const CHECKS: [&str; 15] = [
    "configuration",
    "kernel",
    "bpffs",
    "memory",
    "driver",
    "mtu",
    "offloads",
    "queues",
    "forwarding",
    "forged",
    "addresses",
    "neighbours",
    "ports",
    "clock",
    "certificate",
];

/// A configuration that any host accepts.
const FILE: &str = r#"
[daemon]
interfaces = ["lo"]
[[service]]
name = "www"
vip = "203.0.113.10"
port = 443
[[service.backend]]
name = "web1"
address = "198.18.1.2"
"#;

fn write(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lb.toml");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (directory, file)
}

#[tokio::test]
async fn it_needs_no_daemon() {
    let (_directory, file) = write(FILE);
    let ended = at(Path::new(NOWHERE), &format!("doctor --config {file}")).await;
    assert!([0, 7].contains(&ended.code), "{ended:?}");
    let begins = format!("ok       configuration  {file}: services 1, backends 1\n");
    assert!(ended.stdout.starts_with(&begins), "{ended:?}");
    for check in CHECKS {
        assert!(ended.stdout.contains(&format!(" {check} ")), "{check}: {ended:?}");
    }
    // The exit status says whether there is more than notes.
    let is_well = !ended.stdout.contains(" warning: ") && !ended.stdout.contains(" error: ");
    assert_eq!(ended.code == 0, is_well, "{ended:?}");
}

#[tokio::test]
async fn what_it_finds_comes_with_its_fix_and_an_exit_status() {
    let (_directory, file) = write("[daemon]\n");
    let ended = at(Path::new(NOWHERE), &format!("--json doctor --config {file}")).await;
    assert_eq!(ended.code, 7, "{ended:?}");
    let examination: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = examination["checks"].as_array().unwrap();
    let names: Vec<_> = checks
        .iter()
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(names, CHECKS);
    let findings: Vec<_> = checks
        .iter()
        .flat_map(|check| check["findings"].as_array().unwrap())
        .collect();
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(["note", "warning", "error"].contains(&finding["severity"].as_str().unwrap()));
        assert!(
            !finding["what"].as_str().unwrap().is_empty() && !finding["fix"].as_str().unwrap().is_empty()
        );
    }
}

#[tokio::test]
async fn a_refused_file_is_told_and_the_rest_is_looked_at_all_the_same() {
    let (_directory, file) = write(&FILE.replace("vip =", "vipp ="));
    let ended = at(Path::new(NOWHERE), &format!("doctor --config {file}")).await;
    assert_eq!(ended.code, 7, "{ended:?}");
    assert!(ended.stderr.contains("to mend"), "{ended:?}");
    let told = format!("error: {file}:6: service \"www\" vipp");
    assert!(
        ended.stdout.contains(&told) && ended.stdout.contains("did you mean \"vip\"?"),
        "{ended:?}"
    );
    assert!(
        ended
            .stdout
            .contains(&format!("fix: correct it; `lbctl config check {file}`")),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("kernel         Linux "), "{ended:?}");
    assert!(
        ended.stdout.contains("-        mtu            not looked at\n"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_running_daemon_says_which_file_it_is() {
    let (_directory, file) = write("[daemon]\n");
    let running = Running::start();
    running.fake.state().status.config_file = file.clone();
    let ended = running.lbctl("doctor").await;
    assert!(ended.stdout.contains(&format!("{file} is refused")), "{ended:?}");
    // A file that is named comes first.
    let ended = running.lbctl("doctor --config other.toml").await;
    assert!(ended.stdout.contains("other.toml is refused"), "{ended:?}");
    // And without either there is the usual place.
    let ended = at(Path::new(NOWHERE), "doctor").await;
    assert!(ended.stdout.contains("/etc/lb/lb.toml"), "{ended:?}");
}
