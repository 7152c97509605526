//! `cargo xtask test --kernels`: the tests of what happens in the kernel, on kernels that this machine does not run.
//!
//! Each is booted by qemu, which emulates the whole machine (no virtualisation is needed, nor root), from a distribution's
//! package that is unpacked and never installed. The guest has no disk: all that it needs is in its memory from the start
//! (`image`), its only process of ours is this program (`guest`), and what a harness prints there comes out here
//! (`machine`).

pub mod guest;

mod apt;
mod archive;
mod image;
mod machine;
mod package;
mod plan;

use std::{
    collections::BTreeMap,
    env,
    io::stdout,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};

use crate::{interrupt, packages, process, tally::Tally, test_command, userspace::Executable, workspace};
use package::Kernel;
use plan::Plan;

/// The kernels, as the distribution's packages name them, and where else Debian has them: the oldest that is supported, and
/// the one between that and today's.
const KERNELS: [Kernel; 2] = [
    Kernel {
        version: "6.1",
        suite: "bookworm",
    },
    Kernel {
        version: "6.12",
        suite: "bookworm-backports",
    },
];

/// The harnesses that run there. The others need servers.
const SUITES: [&str; 2] = ["kernel", "packet"];

/// One test in so many runs, unless all are asked for: everything takes some thirty times as long there. A prime, so that it
/// is another kind of service of each group of tests.
const SAMPLE: usize = 19;
/// What even so takes too long: many packets.
const LONG: [&str; 4] = [RACES, "random::", "overload::", "limited_in_rate"];
/// Tests that let the kernel repeat a program, for which it patches code that may be running on another processor
/// (`bpf_dispatcher_xdp_func`). Emulated processors have been seen not to survive that while other tests ran (an `int3` that nobody
/// had an answer for, in 6.1), so these run one after the other, in a machine of their own.
const RACES: &str = "race::";
/// When a guest is given up; with all tests it may take much longer, and a filter may leave all of them.
const LIMIT: Duration = Duration::from_secs(40 * 60);
const FULL_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Only these harnesses; none: all of them.
    pub only: &'a [String],
    /// All tests, and not a sample of them.
    pub full: bool,
    /// Only tests whose name contains this; of those all.
    pub filter: Option<&'a str>,
}

/// Runs the tests on all kernels that can be had, and says aloud why on others they did not run.
///
/// # Errors
/// When the guests cannot be made. Tests that fail are no error, but a failing exit code.
pub fn run(options: Options<'_>, harnesses: &[Executable], objects: &Path) -> Result<ExitCode> {
    let suites = suites(options.only)?;
    let mut results = Results::default();
    if let Err(reason) = prepare() {
        for kernel in KERNELS {
            results.skipped(kernel.version, &reason);
        }
        return Ok(results.end());
    }
    interrupt::forward_to_child()?;
    for kernel in KERNELS {
        let unpacked = match kernel.unpacked() {
            Ok(unpacked) => unpacked,
            Err(reason) => {
                results.skipped(kernel.version, &reason);
                continue;
            }
        };
        for suite in &suites {
            println!("== {suite} on {}", unpacked.package);
            let harness = harnesses
                .iter()
                .find(|harness| harness.name == *suite)
                .with_context(|| format!("cargo built no harness {suite}"))?;
            let started = Instant::now();
            let mut tally = Tally::default();
            for arguments in parts(suite, options) {
                let image = image::build(&unpacked, &plan(harness, arguments, options, objects)?)?;
                let limit = if options.full || options.filter.is_some() {
                    FULL_LIMIT
                } else {
                    LIMIT
                };
                let part = machine::run(&unpacked, &image, limit, stdout().lock())?;
                results.failed |= part.passed == 0;
                tally = tally + part;
                if let Some(code) = interrupt::received() {
                    eprintln!("interrupted in {suite} on {}", kernel.version);
                    return Ok(code);
                }
            }
            results.ended(&unpacked.package, suite, tally, started.elapsed());
        }
    }
    Ok(results.end())
}

fn suites(only: &[String]) -> Result<Vec<&'static str>> {
    if let Some(unknown) = only.iter().find(|name| !SUITES.contains(&name.as_str())) {
        bail!(
            "there is no test suite {unknown} on other kernels; there are {}",
            SUITES.join(", ")
        );
    }
    let wanted = |suite: &&str| only.is_empty() || only.iter().any(|name| name == suite);
    Ok(SUITES.into_iter().filter(wanted).collect())
}

/// Installs what emulates machines and packs their memory.
fn prepare() -> Result<()> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("guests run this machine's programs, and only x86-64 kernels are tried");
    }
    let missing = packages::missing_for_kernels();
    if !missing.is_empty() {
        packages::Installer::new()?.install(&missing)?;
    }
    Ok(())
}

/// What the harness of a suite is told, by one guest after the other.
fn parts(suite: &str, options: Options<'_>) -> Vec<Vec<String>> {
    let parts = match (options.filter, suite, options.full) {
        (Some(filter), ..) => vec![(1, vec![filter])],
        (None, "packet", true) => vec![(2, vec!["--skip", RACES]), (1, vec![RACES])],
        (None, "packet", false) => vec![(2, LONG.iter().flat_map(|long| ["--skip", long]).collect())],
        (None, ..) => vec![(2, Vec::new())],
    };
    let told = |(threads, more): (u8, Vec<&str>)| {
        let usual = ["--color=never".to_owned(), format!("--test-threads={threads}")];
        usual
            .into_iter()
            .chain(more.into_iter().map(str::to_owned))
            .collect()
    };
    parts.into_iter().map(told).collect()
}

/// What a guest does: runs a harness.
fn plan(harness: &Executable, arguments: Vec<String>, options: Options<'_>, objects: &Path) -> Result<Plan> {
    let mut environment = BTreeMap::from([(test_command::OBJECTS.to_owned(), image::OBJECTS.to_owned())]);
    for name in ["CI", "RUST_BACKTRACE"] {
        if let Ok(value) = env::var(name) {
            environment.insert(name.to_owned(), value);
        }
    }
    if options.full {
        environment.insert(test_command::FULL.to_owned(), "1".to_owned());
    }
    if !options.full && options.filter.is_none() && harness.name == "packet" {
        environment.insert(test_command::SAMPLE.to_owned(), SAMPLE.to_string());
    }
    let program = |name: &str| {
        process::find(name).with_context(|| format!("{name} is not installed: run `cargo xtask setup`"))
    };
    Ok(Plan {
        harness: harness.path.clone(),
        arguments,
        environment,
        tools: vec![program("sh")?, program("ip")?],
        objects: objects.to_owned(),
    })
}

/// Where kernels and images are kept. Removing it costs a download.
fn directory() -> PathBuf {
    workspace::root().join("target/kernels")
}

/// How it ended on each kernel.
#[derive(Default)]
struct Results {
    rows: Vec<[String; 6]>,
    failures: String,
    failed: bool,
}

impl Results {
    fn skipped(&mut self, version: &str, reason: &anyhow::Error) {
        println!("== tests on Linux {version}: SKIPPED, {reason:#}");
        let dash = || "-".to_owned();
        self.rows.push([
            version.to_owned(),
            "SKIPPED".to_owned(),
            dash(),
            dash(),
            dash(),
            dash(),
        ]);
    }

    fn ended(&mut self, package: &str, suite: &str, tally: Tally, time: Duration) {
        self.failed |= tally.failed != 0 || tally.passed == 0;
        self.failures += &tally.failures;
        self.rows.push([
            package.to_owned(),
            suite.to_owned(),
            tally.passed.to_string(),
            tally.failed.to_string(),
            tally.skipped.to_string(),
            time.as_secs().to_string(),
        ]);
    }

    /// Prints the table.
    fn end(self) -> ExitCode {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(["kernel", "suite", "passed", "failed", "skipped", "s"]);
        table.add_rows(self.rows);
        print!("{}", self.failures);
        println!("{table}");
        if self.failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_without_a_test_that_passed_has_failed() {
        let outcome = |passed, failed| {
            let mut results = Results::default();
            let tally = Tally {
                passed,
                failed,
                ..Tally::default()
            };
            results.ended("linux", "packet", tally, Duration::ZERO);
            results.failed
        };
        assert_eq!([outcome(0, 0), outcome(3, 1), outcome(3, 0)], [true, true, false]);
    }

    #[test]
    fn all_tests_of_packets_run_and_races_by_themselves() {
        let told = |full, filter| {
            let options = Options {
                only: &[],
                full,
                filter,
            };
            parts("packet", options)
        };
        let full = told(true, None);
        assert_eq!(full[0][1..], ["--test-threads=2", "--skip", RACES]);
        assert_eq!(full[1][1..], ["--test-threads=1", RACES]);
        assert_eq!(told(true, Some("x"))[0][1..], ["--test-threads=1", "x"]);
        assert!(told(false, None)[0].iter().any(|it| it == RACES));
    }

    #[test]
    fn suites_are_chosen_by_name() {
        assert_eq!(suites(&[]).unwrap(), SUITES);
        assert_eq!(suites(&["packet".to_owned()]).unwrap(), ["packet"]);
        let refused = suites(&["netns".to_owned()]).unwrap_err().to_string();
        assert!(
            refused.contains("netns") && refused.contains("kernel, packet"),
            "{refused}"
        );
    }
}
