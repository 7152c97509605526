//! Everything a developer or a newcomer runs, as a library, so that the test harnesses use the same code.
//!
//! One file per command (`*_command.rs`, `setup.rs`), each with its own `Args` and `run`; the rest is what they share.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "xtask talks to the person who ran it"
)]

pub mod build_command;
pub mod ci_command;
pub mod ebpf;
pub mod interrupt;
pub mod linker;
pub mod packages;
pub mod process;
pub mod setup;
pub mod sudo;
pub mod tally;
pub mod test_command;
pub mod toolchain;
pub mod userspace;
pub mod workspace;
