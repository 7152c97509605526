//! The machine that was measured on, and what was measured: kernel, mitigations, versions.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde::{Deserialize, Serialize};

use super::measurement::Conditions;
use crate::{process, workspace};

/// What a report says of the machine, each with its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Machine {
    facts: Vec<(String, String)>,
}

/// Without which a measurement says little: they are conditions of each.
const CONDITIONS: [&str; 5] = ["processor", "processors", "kernel", "mitigations", "BPF JIT"];

/// Programs that take part, and how they are asked for their version.
const VERSIONS: [(&str, &[&str]); 6] = [
    ("haproxy", &["-v"]),
    ("nginx", &["-v"]),
    ("nft", &["--version"]),
    ("wrk", &["-v"]),
    ("h2load", &["--version"]),
    ("ip", &["-V"]),
];

impl Machine {
    /// Looks around. What cannot be found out is said to be unknown.
    pub fn survey(lbd: &Path) -> Self {
        let mut machine = Self::default();
        machine.note("commit", commit());
        machine.note("processor", processor());
        machine.note("processors", thread::available_parallelism().ok());
        machine.note("memory", memory());
        machine.note("kernel", read("/proc/sys/kernel/osrelease"));
        machine.note(
            "mitigations",
            mitigations(Path::new("/sys/devices/system/cpu/vulnerabilities")),
        );
        machine.note("BPF JIT", jit());
        machine.note("system", system());
        machine.note("lbd", version(&lbd.to_string_lossy(), &["--version"]));
        for (program, asked) in VERSIONS {
            machine.note(program, version(program, asked));
        }
        machine
    }

    fn note(&mut self, name: &str, value: Option<impl ToString>) {
        let value = value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        self.facts.push((name.to_owned(), value));
    }

    /// Name and value of everything.
    pub fn facts(&self) -> &[(String, String)] {
        &self.facts
    }

    /// What has to be the same of two measurements that are compared.
    pub fn conditions(&self) -> Conditions {
        let facts = self.facts.iter();
        let mut conditions = Conditions::new();
        for (name, value) in facts.filter(|(name, _)| CONDITIONS.contains(&name.as_str())) {
            conditions = conditions.with(name, value);
        }
        conditions
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn processor() -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let model = value_of(&text, "model name", ':')?;
    let virtual_machine = text
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    Some(if virtual_machine {
        format!("{model}, in a virtual machine")
    } else {
        model
    })
}

fn memory() -> Option<String> {
    let total = value_of(&read("/proc/meminfo")?, "MemTotal", ':')?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)))
}

fn system() -> Option<String> {
    let name = value_of(&read("/etc/os-release")?, "PRETTY_NAME", '=')?;
    Some(name.trim_matches('"').to_owned())
}

/// The value of the first line that begins with the name.
fn value_of(text: &str, name: &str, separator: char) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(separator));
    lines
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

/// What the kernel does against the processor's weaknesses: those that this processor has.
fn mitigations(directory: &Path) -> Option<String> {
    let mut found: Vec<String> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let does = fs::read_to_string(&path).ok()?;
            let name = path.file_name()?.to_string_lossy().into_owned();
            (does.trim() != "Not affected").then(|| format!("{name}: {}", does.trim()))
        })
        .collect();
    found.sort();
    Some(if found.is_empty() {
        "none needed".to_owned()
    } else {
        found.join("; ")
    })
}

fn jit() -> Option<String> {
    let is = |name: &str| read(&format!("/proc/sys/net/core/{name}"));
    let state = match is("bpf_jit_enable")?.as_str() {
        "0" => "off",
        _ => "on",
    };
    let hardened = is("bpf_jit_harden").unwrap_or_else(|| "unknown".to_owned());
    Some(format!("{state}, hardening {hardened}"))
}

/// The commit, and whether anything was changed after it.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        // A repository of another user's is refused otherwise: this runs as root.
        let root = workspace::root();
        let mut command = Command::new("git");
        command
            .arg("-c")
            .arg(format!("safe.directory={}", root.display()));
        process::probe(command.arg("-C").arg(root).args(arguments))
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let changed = if changes.trim().is_empty() {
        ""
    } else {
        ", with changes"
    };
    Some(format!("{}{changed}", commit.trim()))
}

/// The first line that a program prints, on either output, that has a digit in it; some fail while they say it.
fn version(program: &str, asked: &[&str]) -> Option<String> {
    let path = if program.contains('/') {
        program.into()
    } else {
        process::find(program)?
    };
    let output = Command::new(path).args(asked).output().ok()?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let mut lines = printed.lines().map(str::trim);
    lines
        .find(|line| line.contains(|letter: char| letter.is_ascii_digit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaknesses_that_the_processor_has() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("meltdown"), "Not affected\n").unwrap();
        let state = || mitigations(directory.path()).unwrap();
        assert_eq!(state(), "none needed");
        fs::write(directory.path().join("spectre_v2"), "Mitigation: Retpolines\n").unwrap();
        fs::write(directory.path().join("mds"), "Vulnerable\n").unwrap();
        assert_eq!(state(), "mds: Vulnerable; spectre_v2: Mitigation: Retpolines");
    }

    #[test]
    fn kernel_and_mitigations_are_conditions() {
        let mut machine = Machine::default();
        machine.note("kernel", Some("6.18"));
        machine.note("mitigations", None::<String>);
        machine.note("wrk", Some("4"));
        let expected = Conditions::new()
            .with("kernel", "6.18")
            .with("mitigations", "unknown");
        assert_eq!(machine.conditions(), expected);
    }
}
