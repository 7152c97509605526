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
    ebpf, interrupt, process,
    setup::{self, Needs},
    sudo,
    tally::Tally,
    userspace::{self, Executable},
};

/// Run the tests; those that need root through sudo
#[derive(clap::Args, Default)]
pub struct Args {
    /// Run only this suite: unit, packet, netns (may be given several times)
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
    /// Also run the tests that take minutes
    #[arg(long)]
    full: bool,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

/// The name of the suite that needs no harness.
const UNIT: &str = "unit";

/// For harnesses: set to `1` by `--full`.
pub const FULL: &str = "LB_TEST_FULL";
/// For harnesses: the `lbd` to test.
pub const LBD: &str = "LB_LBD";
/// For harnesses: the `lbctl` to test.
pub const LBCTL: &str = "LB_LBCTL";
/// For harnesses: the directory of the kernel crate's objects.
pub const OBJECTS: &str = "LB_EBPF_DIRECTORY";
/// For harnesses: this program, whose `lab-app` the lab starts.
pub const XTASK: &str = "LB_XTASK";

/// What of our own environment a harness under `sudo` should see.
const PASSED_ON: [&str; 5] = ["CI", "PATH", "RUST_BACKTRACE", "RUST_LOG", "TERM"];

/// Runs the command.
///
/// # Errors
/// When the tests could not be run. Tests that fail are no error, but a failing exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(Needs::Lab)?;
    let options = ebpf::Options::default();
    let objects = ebpf::build(&options)?;
    let binaries = userspace::build(&options)?;
    let harnesses = harnesses()?;
    check_names(&args.only, &harnesses)?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);

    let mut environment: Vec<(String, String)> = vec![
        (LBD.to_owned(), binaries.lbd.display().to_string()),
        (LBCTL.to_owned(), binaries.lbctl.display().to_string()),
        (OBJECTS.to_owned(), objects.directory.display().to_string()),
        (XTASK.to_owned(), env::current_exe()?.display().to_string()),
    ];
    if args.full {
        environment.push((FULL.to_owned(), "1".to_owned()));
    }
    let passed_on = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)));
    environment.extend(passed_on);

    let mut commands = Vec::new();
    if wanted(UNIT) {
        commands.push((UNIT.to_owned(), unit_tests(args)));
    }
    for harness in harnesses.into_iter().filter(|harness| wanted(&harness.name)) {
        let mut command = sudo::as_root(&harness.path, &environment)?;
        command.args(harness_arguments(args));
        commands.push((harness.name, command));
    }
    run_suites(commands)
}

fn run_suites(commands: Vec<(String, Command)>) -> Result<ExitCode> {
    interrupt::forward_to_child()?;
    let mut total = Tally::default();
    for (name, mut command) in commands {
        total = total + run_suite(&name, &mut command)?;
        if let Some(code) = interrupt::received() {
            eprintln!("interrupted in {name}");
            return Ok(code);
        }
    }
    let Tally {
        passed,
        failed,
        skipped,
    } = total;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
        Tally::read(child.stdout.take().context("the child has no standard output")?)
    })?;
    if !status.success() && tally.failed == 0 {
        eprintln!("the {name} tests ended with {status}");
        tally.failed = 1;
    }
    Ok(tally)
}

fn unit_tests(args: &Args) -> Command {
    let mut command = process::cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args([
            "--package",
            "lb-common",
            "--package",
            "lb-userspace",
            "--package",
            "xtask",
            "--",
        ])
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
    color.into_iter().chain(args.filter.clone()).collect()
}

fn harnesses() -> Result<Vec<Executable>> {
    let mut command = process::cargo();
    command.args(["test", "--package", "lb-tests", "--no-run"]);
    userspace::executables(&mut command)
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
