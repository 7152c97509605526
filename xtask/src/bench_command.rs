//! `cargo xtask bench`: measuring on the user's own machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::prepared::Prepared;
use crate::site_bench::{self, Plan};

/// Measure the site through the balancer, through HAProxy and without either, side by side
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The whole site: HTTPS requests from the client (what is measured if nothing is named)
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
    let binaries = args.prepared.binaries()?;
    let plan = Plan {
        repeat: args.repeat,
        duration: Duration::from_secs(args.seconds),
        connections: args.connections,
    };
    site_bench::run(binaries, &plan)?;
    Ok(ExitCode::SUCCESS)
}
