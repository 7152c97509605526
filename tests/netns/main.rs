//! Real hosts, in network namespaces: a client, the load balancer and its web servers.

mod lab;

use std::process::ExitCode;

use lb_tests::{
    harness::Suite,
    needs::Requirement::{Bpf, NetworkNamespaces, Root},
};

fn main() -> ExitCode {
    Suite {
        name: "netns",
        needs: &[Root, Bpf, NetworkNamespaces],
        parallel: false,
    }
    .run(lab::cases())
}
