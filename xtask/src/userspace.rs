//! Building the daemon and its command-line tool. The kernel program must have been built: it goes into the daemon.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{ebpf, process};

/// The two programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The daemon.
    pub lbd: PathBuf,
    /// The control tool.
    pub lbctl: PathBuf,
}

/// Builds both, optimised.
///
/// # Errors
/// When they do not compile.
pub fn build(options: &ebpf::Options) -> Result<Binaries> {
    let mut command = process::cargo();
    command.args(["build", "--release", "--package", "lb-userspace", "--bins"]);
    if options.log {
        command.args(["--features", "log"]);
    }
    let built = executables(&mut command)?;
    let find = |name: &str| {
        let found = built.iter().find(|executable| executable.name == name);
        found
            .map(|executable| executable.path.clone())
            .with_context(|| format!("cargo built no {name}"))
    };
    Ok(Binaries {
        lbd: find("lbd")?,
        lbctl: find("lbctl")?,
    })
}

/// Something that cargo built and that can be started.
#[derive(Debug, Clone)]
pub struct Executable {
    /// The target's name in its `Cargo.toml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// Runs a cargo command that builds, and returns the executables that it left, wherever the target directory is.
///
/// # Errors
/// When it does not compile; the user has seen why.
pub fn executables(command: &mut std::process::Command) -> Result<Vec<Executable>> {
    let messages = process::output(command.arg("--message-format=json-render-diagnostics"))?;
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let executables = artifacts.filter_map(|message| {
        Some(Executable {
            name: message.target?.name,
            path: message.executable?,
        })
    });
    Ok(executables.collect())
}

/// The part of a message of cargo's that matters here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
