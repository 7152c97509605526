//! Everything a developer or a newcomer runs, as a library, so that the test harnesses use the same code.
//!
//! One file per command (`*_command.rs`, `setup.rs`), each with its own `Args` and `run`; the rest is what they share.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "xtask talks to the person who ran it"
)]

pub mod app;
pub mod bench;
pub mod bench_command;
pub mod beside;
pub mod build_command;
pub mod ci_command;
pub mod ebpf;
pub mod fuzz_command;
pub mod interrupt;
pub mod kernels;
pub mod lab;
pub mod lab_command;
pub mod linker;
pub mod live_view;
pub mod network_args;
pub mod package;
pub mod package_command;
pub mod packages;
pub mod prepared;
pub mod process;
pub mod relay;
pub mod run_command;
pub mod setup;
pub mod signals;
pub mod sudo;
pub mod tally;
pub mod test_command;
pub mod toolchain;
pub mod transfer;
pub mod transfer_command;
pub mod userspace;
pub mod workspace;
