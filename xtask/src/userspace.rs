//! Building the daemon and its command-line tool. The kernel program must have been built: it goes into the daemon.

use std::fs;
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
    command.arg("--features").arg(options.features().join(","));
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

/// Builds a daemon whose tables are laid out in another way, unoptimised: tests upgrade to it.
///
/// # Errors
/// When it does not compile, or cannot be copied to where the next build leaves it alone.
pub fn build_with_other_layout() -> Result<PathBuf> {
    let options = ebpf::Options {
        other_layout: true,
        ..ebpf::Options::default()
    };
    let objects = ebpf::build(&options)?;
    let mut command = process::cargo();
    command
        .args(["build", "--package", "lb-userspace", "--bin", "lbd", "--features"])
        .arg(options.features().join(","))
        .env("LB_EBPF_OBJECT", &objects.program);
    let built = executables(&mut command)?;
    let lbd = built.first().context("cargo built no lbd")?;
    let copy = objects.directory.join("lbd");
    fs::copy(&lbd.path, &copy).with_context(|| format!("cannot copy {}", lbd.path.display()))?;
    Ok(copy)
}

/// Something that cargo built and that can be started.
#[derive(Debug, Clone)]
pub struct Executable {
    /// The target's name in its `Cargo.toml`.
    pub name: String,
    /// The `Cargo.toml` of its package.
    pub manifest: PathBuf,
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
            manifest: message.manifest_path?,
            path: message.executable?,
        })
    });
    Ok(executables.collect())
}

/// The part of a message of cargo's that matters here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    manifest_path: Option<PathBuf>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
