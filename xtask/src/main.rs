//! `cargo xtask COMMAND`: parses and dispatches; each command lives in its own file of the library.

#![allow(clippy::print_stderr, reason = "errors are printed here, once")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{
    app, bench_command, build_command, ci_command, fuzz_command, kernels::guest, lab_command,
    package_command, relay, run_command, setup, test_command, transfer_command,
};

/// Build, run, measure and test the load balancer.
#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    max_term_width = 100,
    after_help = "Whatever is missing is installed first (setup). What needs root runs through sudo; building does not.\n\n\
                  Examples:\n  cargo xtask run              the whole site, to watch; Ctrl-C takes it down\n  \
                  cargo xtask run --once       a hundred requests, then down again\n  \
                  cargo xtask test             every test\n  \
                  cargo xtask test --only unit eviction"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_command::EbpfArgs),
    Build(build_command::Args),
    Run(run_command::Args),
    Lab(lab_command::Args),
    Bench(bench_command::Args),
    Test(test_command::Args),
    Fuzz(fuzz_command::Args),
    Package(package_command::Args),
    Ci(ci_command::Args),
    #[command(hide = true)]
    LabApp(app::Args),
    #[command(hide = true)]
    LabTransfer(transfer_command::Args),
    #[command(hide = true)]
    LabRelay(relay::Args),
    #[command(hide = true)]
    KernelGuest(guest::Args),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_command::run_ebpf(&args),
        Command::Build(args) => build_command::run(&args),
        Command::Run(args) => run_command::run(&args),
        Command::Lab(args) => lab_command::run(&args),
        Command::Bench(args) => bench_command::run(&args),
        Command::Test(args) => test_command::run(&args),
        Command::Package(args) => package_command::run(&args),
        Command::Fuzz(args) => fuzz_command::run(&args),
        Command::Ci(args) => ci_command::run(&args),
        Command::LabApp(args) => app::run(args),
        Command::LabTransfer(args) => transfer_command::run(&args),
        Command::LabRelay(args) => relay::run(&args),
        Command::KernelGuest(args) => guest::run(&args),
    };
    result.unwrap_or_else(|error| {
        // Not returned from `main`: that would print a backtrace wherever RUST_BACKTRACE is set.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        super::Arguments::command().debug_assert();
    }
}
