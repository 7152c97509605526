//! Packets through the real kernel: packet in; action, packet and counters out.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: nothing is public, and it may fail by a panic"
)]

mod aging;
mod balancing;
mod echo;
mod forged;
mod frame;
mod full_nat;
mod hairpin;
mod icmp_errors;
mod jiffies;
mod kind;
mod leaving;
mod matrix;
mod migrating;
mod namespace;
mod nat;
mod next_hops;
mod not_ours;
mod one_sided;
mod overload;
mod own_ports;
mod passed_fragments;
mod path_cost;
mod pool;
mod pressure;
mod race;
mod random;
mod ranges;
mod repeater;
mod schedulers;
mod seen;
mod shared;
mod table;
mod talk;
mod trace;
mod unremembered;
mod why;
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
            matrix::cases(),
            balancing::cases(),
            echo::cases(),
            full_nat::cases(),
            hairpin::cases(),
            overload::cases(),
            pressure::cases(),
            race::cases(),
            random::cases(),
            ranges::cases(),
            schedulers::cases(),
            nat::cases(),
            next_hops::cases(),
            not_ours::cases(),
            shared::cases(),
            table::cases(),
            forged::cases(),
            icmp_errors::cases(),
            leaving::cases(),
            migrating::cases(),
            one_sided::cases(),
            own_ports::cases(),
            passed_fragments::cases(),
            path_cost::cases(),
            unremembered::cases(),
            trace::cases(),
            why::cases(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    )
}
