//! `lbctl`, with what it prints and its exit status.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
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
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let deadline = Instant::now() + Duration::from_secs(40);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let whole = |reader: JoinHandle<io::Result<String>>| match reader.join() {
        Ok(text) => Ok(text?),
        Err(_) => bail!("a thread panicked"),
    };
    Ok(Said {
        code: status.code().context("it was killed")?,
        out: whole(out)?,
        err: whole(err)?,
    })
}

/// All of it, whether it fits a pipe or not.
fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<io::Result<String>> {
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text)?;
        }
        Ok(text)
    })
}
