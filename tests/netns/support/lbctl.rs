//! `lbctl`, with what it prints and its exit status.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use xtask::lab::Lab;

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit status.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

/// Runs `lbctl`.
pub(crate) fn lbctl(lab: &Lab, arguments: &[&str]) -> Result<Said> {
    run(lab.lbctl_command().args(arguments))
}

/// What `lbctl --json` says, which must succeed.
pub(crate) fn json<T: DeserializeOwned>(lab: &Lab, arguments: &[&str]) -> Result<T> {
    let said = run(lab.lbctl_command().arg("--json").args(arguments))?;
    ensure!(said.code == 0, "lbctl --json {arguments:?}: {said:?}");
    serde_json::from_str(&said.out).with_context(|| format!("lbctl --json {arguments:?}: {said:?}"))
}

/// Runs a command that has to end by itself within 40 seconds.
pub(crate) fn run(command: &mut Command) -> Result<Said> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.with_context(|| format!("cannot start {command:?}"))?;
    let deadline = Instant::now() + Duration::from_secs(40);
    // What is printed here fits a pipe.
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!("{command:?} does not end: {output:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    Ok(Said {
        code: output.status.code().context("it was killed")?,
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}
