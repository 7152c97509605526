//! Building the kernel crate.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    linker, process,
    setup::{self, Needs},
    toolchain::{TARGET, Toolchain},
    workspace,
};

/// How the kernel program is built.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// With debug logging through aya-log (slower, for development).
    pub log: bool,
    /// With its tables laid out in another way, for tests of upgrades.
    pub other_layout: bool,
}

impl Options {
    /// Features of `lb-ebpf` and `lb-userspace` alike.
    pub(crate) fn features(self) -> Vec<&'static str> {
        let features = [(self.log, "log"), (self.other_layout, "other-layout")];
        features
            .into_iter()
            .filter_map(|(wanted, feature)| wanted.then_some(feature))
            .collect()
    }

    fn target(self) -> PathBuf {
        if self.other_layout {
            workspace::ebpf_target().with_extension("other-layout")
        } else {
            workspace::ebpf_target()
        }
    }
}

/// What the kernel crate's build leaves.
#[derive(Debug, Clone)]
pub struct EbpfArtifacts {
    /// The load balancer's object.
    pub program: PathBuf,
    /// Where all objects of the kernel crate are, each named as its binary.
    pub directory: PathBuf,
}

impl EbpfArtifacts {
    /// Where the build puts things.
    pub fn locate() -> Self {
        Self::in_target(&workspace::ebpf_target())
    }

    fn in_target(target: &Path) -> Self {
        let directory = target.join(TARGET).join("bpf");
        Self {
            program: directory.join("lb-ebpf"),
            directory,
        }
    }
}

/// Builds every binary of the kernel crate, and first of all what that takes.
///
/// # Errors
/// When no toolchain can be had, or the program does not compile.
pub fn build(options: &Options) -> Result<EbpfArtifacts> {
    let toolchain = setup::ensure(Needs::Build)?;
    let mut command = toolchain.cargo();
    command.arg("build");
    configure(&mut command, &toolchain)?;
    command.arg("--target-dir").arg(options.target());
    if options.other_layout {
        command.args(["--bin", "lb-ebpf"]);
    }
    command.arg("--features").arg(options.features().join(","));
    process::run(&mut command)?;
    Ok(EbpfArtifacts::in_target(&options.target()))
}

/// Adds what every cargo command on the kernel crate needs.
///
/// # Errors
/// When there is no linker.
pub fn configure(command: &mut Command, toolchain: &Toolchain) -> Result<()> {
    command
        .args(["--package", "lb-ebpf", "--profile", "bpf", "--target", TARGET])
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            linker::ensure(toolchain)?,
        )
        // v3 is the newest instruction set that Linux 6.1 knows; the default has no atomics that return a value.
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            "-C link-arg=--btf -C target-cpu=v3",
        );
    if toolchain.builds_core {
        command.args(["-Z", "build-std=core"]);
    } else {
        // A stable compiler lets only these crates use unstable features (BPF's intrinsics).
        command.env("RUSTC_BOOTSTRAP", "aya_ebpf,lb_ebpf,bench");
    }
    Ok(())
}
