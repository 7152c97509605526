//! Packets through the real kernel: packet in; action, packet and counters out.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: nothing is public, and it may fail by a panic"
)]

mod balancing;
mod frame;
mod nat;
mod next_hops;
mod not_ours;
mod repeater;
mod resets;
mod shared;
mod table;
mod world;

use std::process::ExitCode;

use lb_tests::{
    harness::Suite,
    needs::Requirement::{Bpf, Root},
};

fn main() -> ExitCode {
    Suite {
        name: "packet",
        needs: &[Root, Bpf],
        parallel: true,
    }
    .run(
        [
            balancing::cases(),
            nat::cases(),
            next_hops::cases(),
            not_ours::cases(),
            resets::cases(),
            shared::cases(),
            table::cases(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    )
}
