//! What breaks, and what is changed, while a site is in use: nothing of it may be noticed.
//!
//! Each test is a row of a table: a fault happens while long downloads, short requests and idle connections go on, IPv4 and IPv6,
//! TCP and UDP; afterwards the balancer must be as it should.

mod changes;
mod clock;
mod control;
mod environment;
mod growth;
mod kills;
mod network;
mod row;
#[path = "../netns/support/mod.rs"]
#[allow(dead_code, reason = "these tests need a part of it")]
mod support;
mod upgrade;
mod watch;

use std::process::ExitCode;

use lb_tests::{
    harness::Suite,
    needs::Requirement::{Bpf, NetworkNamespaces, Root},
};

fn main() -> ExitCode {
    let lab = row::lab();
    let subjects = [
        kills::cases(&lab),
        changes::cases(&lab),
        clock::cases(&lab),
        network::cases(&lab),
        environment::cases(&lab),
        control::cases(&lab),
        upgrade::cases(&lab),
        growth::cases(&lab),
    ];
    Suite {
        name: "lifecycle",
        needs: &[Root, Bpf, NetworkNamespaces],
        parallel: false,
    }
    .run(subjects.into_iter().flatten().collect())
}
