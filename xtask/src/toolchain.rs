//! A Rust compiler that can build for BPF. Two kinds exist:
//!
//! - the distribution's, with a prebuilt `core` for `bpfel-unknown-none` (Debian: `libstd-rust-web-dev-bpf`). Stable, and
//!   everything comes from one package manager, so it is preferred;
//! - rustup's nightly with `rust-src`, which builds `core` itself (`-Z build-std`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::process;

/// The target of the kernel crate: BPF, little-endian as x86-64 and arm64 are.
pub const TARGET: &str = "bpfel-unknown-none";

/// The `rust-version` of the workspace.
const OLDEST_RUSTC: (u32, u32) = (1, 95);

/// A compiler for the kernel crate, with the cargo that belongs to it.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The cargo beside `rustc`.
    pub cargo: PathBuf,
    /// The compiler.
    pub rustc: PathBuf,
    /// Its release as it names itself, such as `1.96.0`.
    pub release: String,
    /// The LLVM major version that it emits bitcode of; the linker must read that.
    pub llvm: u32,
    /// There is no prebuilt `core`: `-Z build-std=core` has to make it.
    pub builds_core: bool,
}

impl Toolchain {
    /// The best toolchain that is installed.
    ///
    /// # Errors
    /// Says for each place that was looked at why it will not do.
    pub fn find() -> Result<Self> {
        distribution().or_else(|first| {
            rustup_nightly().map_err(|second| {
                anyhow::anyhow!("no Rust compiler here can build for BPF: {first:#}; {second:#}")
            })
        })
    }

    /// This toolchain's cargo, with an environment in which no other toolchain has left its settings.
    pub fn cargo(&self) -> Command {
        self.command(&self.cargo)
    }

    /// This toolchain's `cargo clippy`, if it has one; the word `clippy` is already its first argument.
    pub fn clippy(&self) -> Option<Command> {
        let program = self.cargo.with_file_name("cargo-clippy");
        program.exists().then(|| {
            let mut command = self.command(&program);
            command.env("CARGO", &self.cargo).arg("clippy");
            command
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        process::forget_outer_toolchain(&mut command);
        command
            .env("RUSTC", &self.rustc)
            .current_dir(crate::workspace::root());
        command
    }

    /// One line for the user.
    pub fn description(&self) -> String {
        let Self {
            rustc, release, llvm, ..
        } = self;
        let core = if self.builds_core {
            "builds core from rust-src"
        } else {
            "prebuilt core for BPF"
        };
        format!("{} {release}, LLVM {llvm}, {core}", rustc.display())
    }
}

fn distribution() -> Result<Toolchain> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let cargo = PathBuf::from("/usr/bin/cargo");
    ensure!(
        rustc.exists() && cargo.exists(),
        "the distribution's rustc and cargo are not installed"
    );
    let (release, llvm) = version(&rustc)?;
    let libraries = ask(&rustc, &["--print", "target-libdir", "--target", TARGET])?;
    let has_core = fs::read_dir(libraries.trim()).is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
    });
    ensure!(
        has_core,
        "{} {release} has no prebuilt core for {TARGET}",
        rustc.display()
    );
    Ok(Toolchain {
        cargo,
        rustc,
        release,
        llvm,
        builds_core: false,
    })
}

fn rustup_nightly() -> Result<Toolchain> {
    let mut rustup = Command::new("rustup");
    process::forget_outer_toolchain(&mut rustup);
    let sysroot = process::probe(rustup.args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .context("rustup has no nightly toolchain")?;
    let sysroot = PathBuf::from(sysroot.trim());
    ensure!(
        sysroot
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists(),
        "rustup's nightly toolchain has no rust-src component"
    );
    let (cargo, rustc) = (sysroot.join("bin/cargo"), sysroot.join("bin/rustc"));
    let (release, llvm) = version(&rustc)?;
    Ok(Toolchain {
        cargo,
        rustc,
        release,
        llvm,
        builds_core: true,
    })
}

/// The release and the LLVM major version of a compiler that is new enough.
fn version(rustc: &Path) -> Result<(String, u32)> {
    let text = ask(rustc, &["-vV"])?;
    let (release, llvm) =
        parse_version(&text).with_context(|| format!("{} -vV is not understood: {text}", rustc.display()))?;
    let (major, minor) = OLDEST_RUSTC;
    ensure!(
        major_minor(&release) >= Some(OLDEST_RUSTC),
        "{} is {release}, and this project needs {major}.{minor} or later",
        rustc.display()
    );
    Ok((release, llvm))
}

fn ask(rustc: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(rustc);
    process::forget_outer_toolchain(&mut command);
    process::probe(command.args(arguments))
        .with_context(|| format!("{} {} failed", rustc.display(), arguments.join(" ")))
}

fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let release = field("release:")?.to_owned();
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

fn major_minor(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustc_names_its_release_and_its_llvm() {
        let text = "rustc 1.97.0-nightly (abc 2026-05-01)\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(text), Some(("1.97.0-nightly".to_owned(), 22)));
        assert_eq!(parse_version("rustc 1.0"), None);
    }

    #[test]
    fn releases_compare_by_number() {
        assert!(major_minor("1.100.0") >= Some(OLDEST_RUSTC));
        assert!(major_minor("1.95.0-nightly") >= Some(OLDEST_RUSTC));
        assert!(major_minor("1.94.1") < Some(OLDEST_RUSTC));
        assert!(major_minor("unknown") < Some(OLDEST_RUSTC));
    }
}
