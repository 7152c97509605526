//! `cargo xtask ci`: everything that has to hold before a change is merged.

use std::{
    env,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::Result;

use crate::{
    beside::Beside,
    ebpf, fuzz_command, interrupt, process,
    setup::{self, Needs},
    test_command::{self, Outcome},
    workspace,
};

/// Check formatting, lints and documentation, then run all the tests, and some on other kernels
#[derive(clap::Args)]
pub struct Args {
    /// Also run the tests that take minutes
    #[arg(long)]
    full: bool,
}

/// Runs the command.
///
/// # Errors
/// With the first check that fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let toolchain = setup::ensure(Needs::Tests)?;

    if has_rustfmt() {
        step("formatting", process::cargo().args(["fmt", "--all", "--check"]))?;
    } else {
        println!("== formatting: SKIPPED, this cargo has no rustfmt");
    }

    // The build script of lb-userspace wants the object, even for a check.
    ebpf::build(&ebpf::Options::default())?;
    step(
        "lints",
        process::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    match toolchain.clippy() {
        Some(mut clippy) => {
            ebpf::configure(&mut clippy, &toolchain)?;
            clippy.arg("--target-dir").arg(workspace::ebpf_target());
            step(
                "lints of the kernel program",
                clippy.args(["--", "-D", "warnings"]),
            )?;
        }
        None => println!(
            "== lints of the kernel program: SKIPPED, no cargo-clippy beside {}",
            toolchain.cargo.display()
        ),
    }
    step(
        "documentation",
        process::cargo()
            .args([
                "doc",
                "--no-deps",
                "--package",
                "lb-common",
                "--package",
                "lb-userspace",
                "--package",
                "xtask",
            ])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;

    // What is built beside the tests, in the time that they leave, they would wait for.
    test_command::build_harnesses()?;
    let beside = beside(args.full)?;
    println!("== tests");
    let mut outcome = Outcome::of_all_suites(args.full)?;
    for (name, process) in beside {
        if let Some(code) = interrupt::received() {
            return Ok(code);
        }
        println!("== {name}");
        let (status, printed) = process.end()?;
        print!("{printed}");
        if !status.success() {
            outcome.add_failure(name, &status.to_string());
        }
    }
    outcome.run_failed_again(args.full)?;
    Ok(interrupt::received().unwrap_or_else(|| outcome.report()))
}

/// Starts what does nothing but compute, while most tests wait most of the time.
fn beside(full: bool) -> Result<Vec<(&'static str, Beside)>> {
    let start = |arguments: &[&str]| Beside::start(Command::new(env::current_exe()?).args(arguments));
    // Packets take long in an emulated machine: without `full` it is only seen that the programs are taken. And to build
    // all of the daemon for fuzzing takes minutes of both processors.
    let (kernels, fuzz): (&[&str], &[&str]) = if full {
        (&["test", "--kernels", "--full"], &["fuzz"])
    } else {
        (
            &["test", "--kernels", "--only", "kernel"],
            &["fuzz", "--target", "parser"],
        )
    };
    let mut beside = vec![("tests on other kernels", start(kernels)?)];
    match fuzz_command::missing() {
        Some(missing) => println!("== fuzzing: SKIPPED, {missing}"),
        None => beside.push(("fuzzing", start(fuzz)?)),
    }
    Ok(beside)
}

fn has_rustfmt() -> bool {
    process::probe(process::cargo().args(["fmt", "--version"])).is_some()
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    process::run(command)?;
    println!("   {name}: {} s", start.elapsed().as_secs());
    Ok(())
}
