//! `cargo xtask build-ebpf` and `cargo xtask build`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{ebpf, userspace};

/// Build only the kernel program
#[derive(clap::Args)]
pub struct EbpfArgs {
    /// Compile debug logging into the kernel program (slower)
    #[arg(long)]
    log: bool,
}

/// Build everything: the kernel program, lbd and lbctl
#[derive(clap::Args)]
pub struct Args {
    /// Compile debug logging into the kernel program (slower), and forward it in lbd
    #[arg(long)]
    log: bool,
}

/// Runs `build-ebpf`.
///
/// # Errors
/// When something does not compile.
pub fn run_ebpf(args: &EbpfArgs) -> Result<ExitCode> {
    let artifacts = ebpf::build(&ebpf::Options {
        log: args.log,
        ..ebpf::Options::default()
    })?;
    println!("kernel program  {}", artifacts.program.display());
    Ok(ExitCode::SUCCESS)
}

/// Runs `build`.
///
/// # Errors
/// When something does not compile.
pub fn run(args: &Args) -> Result<ExitCode> {
    let options = ebpf::Options {
        log: args.log,
        ..ebpf::Options::default()
    };
    let artifacts = ebpf::build(&options)?;
    let binaries = userspace::build(&options)?;
    println!("kernel program  {} (inside lbd)", artifacts.program.display());
    println!("daemon          {}", binaries.lbd.display());
    println!("control tool    {}", binaries.lbctl.display());
    Ok(ExitCode::SUCCESS)
}
