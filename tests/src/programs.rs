//! The programs under test, as `cargo xtask test` built them.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};
use xtask::{
    lab::Binaries,
    test_command::{LBCTL, LBD, OBJECTS, OTHER_LBD, PACKAGE, XTASK},
};

/// The daemon.
///
/// # Errors
/// When the harness was not started by `cargo xtask test`.
pub fn lbd() -> Result<PathBuf> {
    from_environment(LBD)
}

/// A daemon whose tables are laid out in another way.
///
/// # Errors
/// When the harness was not started by `cargo xtask test`.
pub fn other_lbd() -> Result<PathBuf> {
    from_environment(OTHER_LBD)
}

/// The control tool.
///
/// # Errors
/// When the harness was not started by `cargo xtask test`.
pub fn lbctl() -> Result<PathBuf> {
    from_environment(LBCTL)
}

/// The Debian package.
///
/// # Errors
/// When the harness was not started by `cargo xtask test`, or on a system that cannot build such packages.
pub fn package() -> Result<PathBuf> {
    from_environment(PACKAGE)
}

/// This project's own program, which has the lab's application server.
///
/// # Errors
/// When the harness was not started by `cargo xtask test`.
pub fn xtask() -> Result<PathBuf> {
    from_environment(XTASK)
}

/// An object of the kernel crate, by the name of its binary there (`lb-ebpf` is the load balancer).
///
/// # Errors
/// When the harness was not started by `cargo xtask test`.
pub fn object(name: &str) -> Result<PathBuf> {
    from_environment(OBJECTS).map(|directory| directory.join(name))
}

/// What a lab starts.
///
/// # Errors
/// When the harness was not started by `cargo xtask test`.
pub fn of_the_lab() -> Result<Binaries> {
    Ok(Binaries {
        lbd: lbd()?,
        lbctl: lbctl()?,
        xtask: xtask()?,
        veth_pass: object("veth_pass")?,
        decapsulate: object("decapsulate")?,
    })
}

fn from_environment(name: &str) -> Result<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run the tests with `cargo xtask test`"))
}
