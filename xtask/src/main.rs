//! `cargo xtask`: see the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that a developer or a newcomer runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The lab's application server
    #[command(hide = true)]
    LabApp(xtask::app::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::LabApp(args) => xtask::app::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
