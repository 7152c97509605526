//! Running commands to their end, with errors that show the command and what it said; and waiting.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::shown;
use crate::signals;

/// Runs it to its end: its standard output, or an error with all that it printed.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_run(command))?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        bail!("{} failed ({}): {}", shown(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why a command could not even be started.
pub(super) fn cannot_run(command: &Command) -> String {
    format!(
        "cannot run {}; is it installed? (`cargo xtask setup` installs what is missing)",
        shown(command)
    )
}

/// Asks again and again until there is an answer; `Err(reason)` is "not yet". Fails with the last reason after `timeout`,
/// and at once when the user has interrupted.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let reason = match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        if signals::interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s; {reason}", timeout.as_secs_f32());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
