//! `cargo xtask test`: builds everything, then runs every suite, each with the rights it needs and no more.
//!
//! The `unit` suite is the crates' own tests, run as the caller. The others are the harnesses of the `tests` crate, one
//! per `[[test]]` there, run as root. What this process and a harness agree on is in the environment (`LB_*`, below).

use std::{
    env,
    io::{IsTerminal, stdout},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf::{self, EbpfArtifacts},
    interrupt, kernels, package, process,
    setup::{self, Needs},
    sudo,
    tally::Tally,
    userspace::{self, Executable},
    workspace,
};

/// Run the tests; those that need root through sudo
#[derive(clap::Args)]
pub struct Args {
    /// Run only this suite: unit, kernel, packet, netns, lifecycle, package (may be given several times)
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
    /// Also run the tests that take minutes
    #[arg(long)]
    full: bool,
    /// Run tests on other kernels instead, emulated: the suites kernel and packet (without --full a part of it)
    #[arg(long)]
    kernels: bool,
    /// Run only the tests whose name contains this
    filter: Option<String>,
    /// Run only the test of exactly that name
    #[arg(long, requires = "filter", conflicts_with = "kernels")]
    exact: bool,
}

impl Args {
    /// Every test of every suite, and with `full` also those that take minutes.
    pub fn all_suites(full: bool) -> Self {
        Self {
            only: Vec::new(),
            full,
            kernels: false,
            filter: None,
            exact: false,
        }
    }
}

/// The name of the suite that needs no harness.
const UNIT: &str = "unit";
/// The name of the suite that upgrades from one build to another.
const LIFECYCLE: &str = "lifecycle";
/// The name of the suite that needs a package.
const PACKAGING: &str = "package";

/// The packages of the unit suite.
const UNIT_PACKAGES: [&str; 6] = [
    "--package",
    "lb-common",
    "--package",
    "lb-userspace",
    "--package",
    "xtask",
];

/// For harnesses: set to `1` by `--full`.
pub const FULL: &str = "LB_TEST_FULL";
/// For harnesses: run one test in so many.
pub const SAMPLE: &str = "LB_TEST_SAMPLE";
/// For harnesses: the `lbd` to test.
pub const LBD: &str = "LB_LBD";
/// For harnesses: an `lbd` whose tables are laid out in another way; only where the lifecycle suite runs.
pub const OTHER_LBD: &str = "LB_OTHER_LBD";
/// For harnesses: the `lbctl` to test.
pub const LBCTL: &str = "LB_LBCTL";
/// For harnesses: the directory of the kernel crate's objects.
pub const OBJECTS: &str = "LB_EBPF_DIRECTORY";
/// For the harness of that name: the Debian package, where one can be built.
pub const PACKAGE: &str = "LB_PACKAGE";
/// For harnesses: this program, whose `lab-app` the lab starts.
pub const XTASK: &str = "LB_XTASK";

/// The profile of harnesses for emulated machines.
const EMULATED: &str = "emulated";

/// What of our own environment a harness under `sudo` should see.
const PASSED_ON: [&str; 5] = ["CI", "PATH", "RUST_BACKTRACE", "RUST_LOG", "TERM"];

/// Runs the command.
///
/// # Errors
/// When the tests could not be run. Tests that fail are no error, but a failing exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(Needs::Tests)?;
    let objects = ebpf::build(&ebpf::Options::default())?;
    if args.kernels {
        let options = kernels::Options {
            only: &args.only,
            full: args.full,
            filter: args.filter.as_deref(),
        };
        // All of them are so many that it pays to compile them better.
        let profile = if args.full { EMULATED } else { "test" };
        return kernels::run(options, &harnesses(profile)?, &objects.directory);
    }
    let outcome = run_suites(suites(args, &objects)?)?;
    if let (Some(filter), None, true) = (&args.filter, interrupt::received(), outcome.is_none()) {
        bail!("no test has {filter:?} in its name: a run without it lists them all");
    }
    Ok(interrupt::received().unwrap_or_else(|| outcome.report()))
}

/// What became of the suites, by name.
#[derive(Debug, Default)]
pub struct Outcome(Vec<(String, Tally)>);

/// The suites of tests in real time, which may fail because something else had the processors. What others say stands.
const OF_REAL_TIME: [&str; 2] = ["netns", LIFECYCLE];
/// More that fail are not explained by what else the machine had to do.
const MOST_AGAIN: usize = 5;

impl Outcome {
    /// Runs every suite.
    ///
    /// # Errors
    /// When the tests could not be run.
    pub fn of_all_suites(full: bool) -> Result<Self> {
        let objects = ebpf::build(&ebpf::Options::default())?;
        run_suites(suites(&Args::all_suites(full), &objects)?)
    }

    /// Runs the tests of real time that failed once more, each alone, and counts what they do now; says of each what it did.
    /// To be called when nothing else runs any more: what they said beside other work may say more about that. A suite that
    /// did not come to its end has failed, whatever its tests do alone.
    ///
    /// # Errors
    /// When they could not be run.
    pub fn run_failed_again(&mut self, full: bool) -> Result<()> {
        let failed: usize = self.0.iter().map(|(_, tally)| tally.failed_tests.len()).sum();
        if failed > MOST_AGAIN {
            println!("{failed} tests failed: too many to run them again");
            return Ok(());
        }
        let objects = ebpf::build(&ebpf::Options::default())?;
        for (suite, tally) in &mut self.0 {
            if !may_run_again(suite, tally) {
                continue;
            }
            for test in tally.failed_tests.clone() {
                println!("== again, alone: {suite}: {test}");
                let args = Args {
                    only: vec![suite.clone()],
                    filter: Some(test.clone()),
                    exact: true,
                    ..Args::all_suites(full)
                };
                let again = run_suites(suites(&args, &objects)?)?.total();
                if again.failed == 0 && again.passed == 1 {
                    tally.failed = tally.failed.saturating_sub(1);
                    tally.passed += 1;
                    tally.failures += &format!("{suite}: {test}: passed when it ran again, alone\n");
                } else {
                    tally.failures += &again.failures;
                }
            }
        }
        Ok(())
    }

    /// Counts a failure of something that is no suite.
    pub fn add_failure(&mut self, name: &str, failure: &str) {
        let tally = Tally {
            failed: 1,
            failures: format!("{name}: {failure}\n"),
            ..Tally::default()
        };
        self.0.push((name.to_owned(), tally));
    }

    /// Whether no test ran, or was skipped.
    fn is_none(&self) -> bool {
        let none = |tally: &Tally| tally.passed + tally.failed + tally.skipped == 0;
        self.0.iter().all(|(_, tally)| none(tally))
    }

    fn total(self) -> Tally {
        self.0.into_iter().map(|(_, tally)| tally).sum()
    }

    /// Prints what failed, and how many did what: the last lines of a run.
    pub fn report(self) -> ExitCode {
        let Tally {
            passed,
            failed,
            skipped,
            failures,
            ..
        } = self.total();
        // Once more: by now it is far up.
        print!("{failures}");
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Whether what failed in a suite is tests of real time, and nothing else.
fn may_run_again(suite: &str, tally: &Tally) -> bool {
    OF_REAL_TIME.contains(&suite) && tally.failed == tally.failed_tests.len() as u64
}

/// The suites that are asked for, built and ready to start.
fn suites(args: &Args, objects: &EbpfArtifacts) -> Result<Vec<(String, Command)>> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);

    let mut suites = Vec::new();
    if wanted(UNIT) {
        suites.push((UNIT.to_owned(), unit_tests(args)));
    }
    // The programs under test take the longest to build, and the unit tests do without.
    if args.only.is_empty() || args.only.iter().any(|only| only != UNIT) {
        let harnesses = harnesses("test")?;
        check_names(&args.only, &harnesses)?;
        let mut environment = harness_environment(args, objects, wanted(PACKAGING))?;
        if wanted(LIFECYCLE) {
            let other = userspace::build_with_other_layout()?;
            environment.push((OTHER_LBD.to_owned(), other.display().to_string()));
        }
        for harness in harnesses.iter().filter(|harness| wanted(&harness.name)) {
            let mut command = sudo::as_root(&harness.path, &environment)?;
            command.args(harness_arguments(args));
            suites.push((harness.name.clone(), command));
        }
    }
    Ok(suites)
}

/// Builds the programs under test, and says where they are.
fn harness_environment(args: &Args, objects: &EbpfArtifacts, packed: bool) -> Result<Vec<(String, String)>> {
    let binaries = userspace::build(&ebpf::Options::default())?;
    let package = match process::find("dpkg-deb") {
        Some(_) if packed => Some((
            PACKAGE.to_owned(),
            package::build(&binaries)?.display().to_string(),
        )),
        _ => None,
    };
    let xtask = env::current_exe()?;
    let paths = [
        (LBD, &binaries.lbd),
        (LBCTL, &binaries.lbctl),
        (OBJECTS, &objects.directory),
        (XTASK, &xtask),
    ];
    let paths = paths.map(|(name, path)| (name.to_owned(), path.display().to_string()));
    let full = args.full.then(|| (FULL.to_owned(), "1".to_owned()));
    let passed_on = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)));
    Ok(paths
        .into_iter()
        .chain(package)
        .chain(full)
        .chain(passed_on)
        .collect())
}

fn run_suites(suites: Vec<(String, Command)>) -> Result<Outcome> {
    interrupt::forward_to_child()?;
    let mut outcome = Outcome::default();
    for (name, mut command) in suites {
        let tally = run_suite(&name, &mut command)?;
        if interrupt::received().is_some() {
            eprintln!("interrupted in {name}");
            break;
        }
        outcome.0.push((name, tally));
    }
    Ok(outcome)
}

/// A suite that ends badly counts as a failure even if it could not say so (it crashed, or did not compile).
fn run_suite(name: &str, command: &mut Command) -> Result<Tally> {
    println!("== {name}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", process::shown(command)))?;
    let (status, mut tally) = interrupt::wait(child, |child| {
        Tally::copy(
            child.stdout.take().context("the child has no standard output")?,
            stdout().lock(),
        )
    })?;
    if !status.success() && tally.failed == 0 {
        eprintln!("the {name} tests ended with {status}");
        tally.broke_off();
    }
    Ok(tally)
}

fn unit_tests(args: &Args) -> Command {
    let mut command = process::cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(UNIT_PACKAGES)
        .arg("--")
        .args(harness_arguments(args));
    if args.full {
        command.env(FULL, "1");
    }
    command
}

/// Arguments that libtest and libtest-mimic both understand.
fn harness_arguments(args: &Args) -> Vec<String> {
    // They would see a pipe, and use no colour.
    let color = stdout().is_terminal().then(|| "--color=always".to_owned());
    let exact = args.exact.then(|| "--exact".to_owned());
    let options = color.into_iter().chain(exact);
    options.chain(args.filter.clone()).collect()
}

/// Builds the harnesses. The other packages are named only so that cargo chooses the same features of shared
/// dependencies as for the unit tests, and does not compile them twice.
fn harnesses(profile: &str) -> Result<Vec<Executable>> {
    let mut command = process::cargo();
    command
        .args(["test", "--no-run", "--profile", profile, "--package", "lb-tests"])
        .args(UNIT_PACKAGES);
    let manifest = workspace::root().join("tests/Cargo.toml");
    let mut executables = userspace::executables(&mut command)?;
    executables.retain(|executable| executable.manifest == manifest);
    executables.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(executables)
}

/// Builds the harnesses, and the kernel program that they need.
///
/// # Errors
/// When they do not compile.
pub fn build_harnesses() -> Result<()> {
    ebpf::build(&ebpf::Options::default())?;
    harnesses("test").map(drop)
}

fn check_names(only: &[String], harnesses: &[Executable]) -> Result<()> {
    let known: Vec<_> = std::iter::once(UNIT)
        .chain(harnesses.iter().map(|harness| &*harness.name))
        .collect();
    match only.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => bail!("there is no test suite {name}; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_real_time_have_a_second_try() {
        let of = |failed, names: &[&str]| Tally {
            failed,
            failed_tests: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Tally::default()
        };
        assert!(may_run_again("netns", &of(1, &["failover/hanging_server"])));
        assert!(may_run_again(LIFECYCLE, &of(2, &["a", "b"])));
        assert!(!may_run_again("packet", &of(1, &["race::of_two"])));
        // It has ended badly, and could not say of what.
        assert!(!may_run_again("netns", &of(1, &[])));
    }

    #[test]
    fn a_suite_that_broke_off_has_no_second_try() {
        let mut tally = Tally {
            failed_tests: vec!["a".to_owned()],
            ..Tally::default()
        };
        tally.broke_off();
        assert_eq!(tally.failed, 1);
        assert!(!may_run_again("netns", &tally));
    }
}
