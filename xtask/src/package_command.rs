//! `cargo xtask package`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{ebpf, package, userspace};

/// Build a Debian package: lbd with its systemd unit, lbctl, manual pages, completions, an example configuration
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// When something does not compile, or `dpkg-deb` is missing.
pub fn run(_: &Args) -> Result<ExitCode> {
    let options = ebpf::Options::default();
    ebpf::build(&options)?;
    let package = package::build(&userspace::build(&options)?)?;
    println!("package  {}", package.display());
    println!("install  sudo apt install {}", package.display());
    Ok(ExitCode::SUCCESS)
}
