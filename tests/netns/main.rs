//! Real hosts, in network namespaces: a client, the load balancer and its web servers.

mod apply;
mod bad_input;
mod balance;
mod doctor;
mod drain;
mod failover;
mod failover_wide;
mod flood;
mod handoff;
mod lab;
mod lab_network;
mod lossy;
mod modes;
mod next_hop;
mod path_mtu;
mod plan;
mod policies;
mod privileges;
mod reload;
mod restart;
#[allow(dead_code, reason = "the lifecycle tests need the rest")]
mod support;
mod surroundings;
mod trace;
mod why;
mod xdp_mode;

use std::process::ExitCode;

use lb_tests::{
    harness::Suite,
    needs::Requirement::{Bpf, NetworkNamespaces, Root},
};

fn main() -> ExitCode {
    let subjects = [
        lab::cases(),
        lab_network::cases(),
        balance::cases(),
        modes::cases(),
        lossy::cases(),
        path_mtu::cases(),
        policies::cases(),
        surroundings::cases(),
        flood::cases(),
        failover::cases(),
        failover_wide::cases(),
        doctor::cases(),
        drain::cases(),
        handoff::cases(),
        privileges::cases(),
        reload::cases(),
        plan::cases(),
        apply::cases(),
        restart::cases(),
        bad_input::cases(),
        next_hop::cases(),
        xdp_mode::cases(),
        why::cases(),
        trace::cases(),
    ];
    Suite {
        name: "netns",
        needs: &[Root, Bpf, NetworkNamespaces],
        parallel: false,
    }
    .run(subjects.into_iter().flatten().collect())
}
