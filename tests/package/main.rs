//! The Debian package: what is in it, and a Debian system on which it is installed.

mod contents;
mod site;
mod system;

use std::process::ExitCode;

use lb_tests::{
    harness::{Case, Suite},
    needs::Requirement::{Bpf, Containers, DebianRoot, NetworkNamespaces, Program, Root},
};

fn main() -> ExitCode {
    let cases = vec![
        Case::new("contents", contents::contents),
        Case::new(
            "installs_starts_balances_and_goes",
            system::installs_starts_balances_and_goes,
        )
        .needs(Root)
        .needs(Bpf)
        .needs(NetworkNamespaces)
        .needs(Program("systemd-nspawn"))
        .needs(Containers)
        .needs(DebianRoot),
    ];
    Suite {
        name: "package",
        needs: &[Program("dpkg-deb")],
        parallel: false,
    }
    .run(cases)
}
