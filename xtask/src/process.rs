//! Running other programs: with an environment that is known, and with errors that name the command.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Finds a program as a shell would, and also where an ordinary user's `PATH` often does not look.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Runs a command whose output the user sees.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command for its standard output; its standard error goes to the user.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", shown(command)))
}

/// Runs a command for its standard output, where failing is an answer too.
pub fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()
}

/// The command as one would type it, for messages.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The cargo that started us, for everything that runs on this host: rustup's or the distribution's.
pub fn cargo() -> Command {
    calling_cargo(&env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that calls that cargo in its turn: a subcommand that is not on the `PATH`.
pub fn calling_cargo(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::workspace::root());
    for (name, _) in env::vars_os().filter(|(name, _)| describes_our_package(name)) {
        command.env_remove(name);
    }
    command
}

/// What `cargo run` tells us about the `xtask` package, and a build of another package must not hear.
fn describes_our_package(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_")
        || [
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_BIN_NAME",
            "CARGO_CRATE_NAME",
            "OUT_DIR",
        ]
        .contains(&&*name)
}

/// Takes away what the user or an outer cargo set for another compiler (flags, wrappers, the choice of toolchain), and
/// keeps what says how to reach and show things (`CARGO_HOME`, proxies, registries, colours).
pub fn forget_outer_toolchain(command: &mut Command) {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_rust = [
            "CARGO",
            "RUSTC",
            "RUSTFLAGS",
            "RUSTDOC",
            "RUSTUP_TOOLCHAIN",
            "OUT_DIR",
            "LD_LIBRARY_PATH",
        ]
        .iter()
        .any(|prefix| text.starts_with(prefix));
        if of_rust && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
}
