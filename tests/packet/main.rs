//! Packets through the real kernel: packet in; action, packet and counters out.

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
    .run(vec![])
}
