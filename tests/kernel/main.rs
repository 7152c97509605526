//! What has to be true of the running kernel: it takes every program, in every combination of what they are loaded with, and
//! lets them be attached.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: nothing is public, and it may fail by a panic"
)]

mod attaching;
mod verifier;

use std::process::ExitCode;

use lb_tests::{
    harness::Suite,
    needs::Requirement::{Bpf, Root},
};

fn main() -> ExitCode {
    Suite {
        name: "kernel",
        needs: &[Root, Bpf],
        parallel: true,
    }
    .run(
        [verifier::cases(), attaching::cases()]
            .into_iter()
            .flatten()
            .collect(),
    )
}
