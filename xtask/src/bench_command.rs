//! `cargo xtask bench`: measuring on the user's own machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::prepared::Prepared;
use crate::setup::Needs;
use crate::site_bench::{self, Plan};
use crate::test_command::OBJECTS;
use crate::{ebpf, process, setup, sudo, userspace};

/// Measure packets against a program that does nothing, and the site against HAProxy and a direct connection
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what a packet costs in the kernel's program runner
    #[arg(long, conflicts_with = "site")]
    packet: bool,
    /// Only the whole site: HTTPS requests from the client, through the balancer, through HAProxy and directly
    #[arg(long)]
    site: bool,
    /// Runs of each measurement, interleaved; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections of the client at a time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5000))]
    connections: u32,
    #[command(flatten)]
    prepared: Prepared,
}

/// Runs the command.
///
/// # Errors
/// When the lab does not come up, or a measurement gives no figures.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !args.site {
        packets()?;
    }
    if args.packet {
        return Ok(ExitCode::SUCCESS);
    }
    let binaries = args.prepared.binaries()?;
    let plan = Plan {
        repeat: args.repeat,
        duration: Duration::from_secs(args.seconds),
        connections: args.connections,
    };
    site_bench::run(binaries, &plan)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the packet bench as the user and runs it as root.
fn packets() -> Result<()> {
    setup::ensure(Needs::Build)?;
    let objects = ebpf::build(&ebpf::Options::default())?;
    let mut build = process::cargo();
    build.args([
        "bench",
        "--no-run",
        "--package",
        "lb-tests",
        "--bench",
        "packet_bench",
    ]);
    let built = userspace::executables(&mut build)?;
    let bench = built.first().context("cargo built no packet_bench")?;
    let environment = [(OBJECTS.to_owned(), objects.directory.display().to_string())];
    process::run(&mut sudo::as_root(&bench.path, &environment)?)
}
