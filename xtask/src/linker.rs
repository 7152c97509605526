//! `bpf-linker`, which turns the compiler's LLVM bitcode into an object that the kernel can load.
//!
//! It is linked with LLVM, and must know the LLVM that the compiler uses. The one that fits is built once, kept under
//! `target/tools`, and rebuilt only when either version changes.

use std::{
    fs,
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, toolchain::Toolchain, workspace};

const VERSION: &str = "0.13.0";

/// The LLVM versions that this bpf-linker can be built with (its cargo features).
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// How the linker for a toolchain can be had, cheapest first.
#[derive(Debug, PartialEq, Eq)]
pub enum Linker {
    /// It is there.
    Ready(PathBuf),
    /// It has to be built, with the LLVM that has this prefix.
    Buildable(PathBuf),
    /// The development files of this LLVM version are missing.
    NeedsLlvm(u32),
}

/// Looks for the linker, without building it.
pub fn find(toolchain: &Toolchain) -> Linker {
    let llvm = toolchain.llvm;
    if is_cached(llvm) {
        return Linker::Ready(cached());
    }
    // Someone who works with rustup has bpf-linker from its releases, with an LLVM inside: nobody has to build it.
    if toolchain.builds_core
        && let Some(found) = process::find("bpf-linker")
    {
        return Linker::Ready(found);
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if prefix.join("bin/llvm-config").exists() {
        Linker::Buildable(prefix)
    } else {
        Linker::NeedsLlvm(llvm)
    }
}

/// The linker for this toolchain, built now if need be (one to two minutes).
///
/// # Errors
/// When LLVM's development files are missing, or the build fails.
pub fn ensure(toolchain: &Toolchain) -> Result<PathBuf> {
    match find(toolchain) {
        Linker::Ready(path) => Ok(path),
        Linker::Buildable(prefix) => build(toolchain, &prefix),
        Linker::NeedsLlvm(llvm) => bail!(
            "bpf-linker has to be built for LLVM {llvm}, and /usr/lib/llvm-{llvm} is missing: install llvm-{llvm}-dev, \
             or put a bpf-linker for LLVM {llvm} on the PATH"
        ),
    }
}

fn build(toolchain: &Toolchain, llvm_prefix: &Path) -> Result<PathBuf> {
    let llvm = toolchain.llvm;
    if !LLVM_VERSIONS.contains(&llvm) {
        bail!(
            "bpf-linker {VERSION} cannot be built for LLVM {llvm}, which {} uses",
            toolchain.rustc.display()
        );
    }
    println!("building bpf-linker {VERSION} for LLVM {llvm}: one to two minutes, once");
    let tools = workspace::tools();
    let build_directory = tools.join("build");
    let mut command = toolchain.cargo();
    command
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&tools)
        .arg("--target-dir")
        .arg(&build_directory)
        // So that cargo does not suggest to put our private directory on the PATH.
        .env("PATH", path_with(&tools.join("bin"))?)
        .env("LLVM_PREFIX", llvm_prefix);
    if !stderr().is_terminal() {
        command.arg("--quiet");
    }
    process::run(&mut command)?;
    fs::remove_dir_all(&build_directory)
        .with_context(|| format!("cannot remove {}", build_directory.display()))?;
    fs::write(stamp_file(), stamp(llvm))
        .with_context(|| format!("cannot write {}", stamp_file().display()))?;
    Ok(cached())
}

fn path_with(directory: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([directory.to_owned()]);
    std::env::join_paths(directories).context("cannot extend the PATH")
}

fn cached() -> PathBuf {
    workspace::tools().join("bin/bpf-linker")
}

fn stamp_file() -> PathBuf {
    workspace::tools().join("bpf-linker.version")
}

fn stamp(llvm: u32) -> String {
    format!("bpf-linker {VERSION} llvm {llvm}\n")
}

/// Whether the cached linker is the one we would build, and runs (its libLLVM may have been removed). One that was put
/// there without a stamp is taken at its word.
fn is_cached(llvm: u32) -> bool {
    let fits = fs::read_to_string(stamp_file()).map_or(true, |text| text == stamp(llvm));
    let answer = || process::probe(Command::new(cached()).arg("--version"));
    fits && answer().is_some_and(|answer| answer.trim() == format!("bpf-linker {VERSION}"))
}
