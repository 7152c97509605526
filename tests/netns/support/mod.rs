//! What the tests do again and again: a lab that is up, `lbctl` with its exit status, load, downloads, connections.

pub(crate) mod capture;
pub(crate) mod connections;
pub(crate) mod counted;
pub(crate) mod download;
pub(crate) mod echo;
pub(crate) mod held;
pub(crate) mod kind;
pub(crate) mod lbctl;
pub(crate) mod link;
pub(crate) mod path_mtu;
pub(crate) mod shared;
pub(crate) mod site;
pub(crate) mod tunnel;
pub(crate) mod wrk;

/// A measured figure, for whoever reads the run's output; standard output belongs to the harness.
#[allow(clippy::print_stderr, reason = "a test reports what it measured")]
pub(crate) fn measured(what: &str) {
    eprintln!("    {what}");
}

/// Whether `--full` was given.
pub(crate) fn is_full() -> bool {
    std::env::var_os(xtask::test_command::FULL).is_some()
}
