//! `cargo xtask ci`: everything that has to hold before a change is merged.

use std::{
    env,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Result, bail};

use crate::{
    beside::Beside,
    ebpf, fuzz_command, interrupt, process,
    setup::{self, Needs},
    test_command, workspace,
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

    println!("== fuzzing");
    match fuzz_command::missing() {
        Some(missing) => println!("   fuzzing: SKIPPED, {missing}"),
        None if fuzz_command::run(&fuzz_command::Args::short(args.full))? != ExitCode::SUCCESS => {
            bail!("fuzzing found something, see above");
        }
        None => {}
    }

    // Most tests wait most of the time, while emulated machines do nothing but compute.
    let other_kernels = other_kernels(args.full)?;
    println!("== tests");
    let tests = test_command::run(&test_command::Args::all_suites(args.full))?;
    if interrupt::received().is_some() {
        return Ok(tests);
    }
    println!("== tests on other kernels");
    let (status, printed) = other_kernels.end()?;
    print!("{printed}");
    Ok(if status.success() {
        tests
    } else {
        ExitCode::FAILURE
    })
}

/// Starts them beside the others.
fn other_kernels(full: bool) -> Result<Beside> {
    // What is built beside the others, with the time that they leave, they would wait for.
    test_command::build_harnesses()?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["test", "--kernels"]);
    // Packets take long in an emulated machine: without `full` it is only seen that the programs are taken.
    command.args(if full {
        ["--full"].as_slice()
    } else {
        &["--only", "kernel"]
    });
    Beside::start(&mut command)
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
