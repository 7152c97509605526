//! Becoming root for one command, and only for that.

use std::{
    ffi::OsStr,
    io::{IsTerminal, stdin},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::process;

/// True if this process already is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that will run as root: directly, or through `sudo`, which may ask for a password on the terminal.
///
/// `environment` is set for the command even though `sudo` starts it with a fresh environment.
///
/// # Errors
/// When this is not root and there is no `sudo` that could work without a terminal.
pub fn as_root(program: impl AsRef<OsStr>, environment: &[(String, String)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        return Ok(command);
    }
    if process::find("sudo").is_none() {
        bail!("this needs root, and there is no sudo: run it as root");
    }
    if !stdin().is_terminal() && !works_without_password() {
        bail!("this needs root, and sudo would ask for a password without a terminal: run it as root");
    }
    let mut command = Command::new("sudo");
    command.args(["--", "env"]);
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(program);
    Ok(command)
}

fn works_without_password() -> bool {
    Command::new("sudo")
        .args(["-n", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
