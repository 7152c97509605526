//! Load from the client, by `wrk`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{Lab, SITE, VIP};

/// A `wrk` that is running.
pub(crate) struct Wrk(Child);

/// That it opens, and resets in the end.
pub(crate) const CONNECTIONS: usize = 64;
/// Longer than any test, in seconds.
const FOR_EVER: u32 = 24 * 3600;

/// What it said in the end.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Per second.
    pub(crate) rate: f64,
    /// `wrk`'s lines about what went wrong: socket errors, answers that were not 2xx or 3xx.
    pub(crate) errors: Vec<String>,
}

impl Wrk {
    /// HTTPS requests to the VIP on 64 keep-alive connections for so many seconds.
    pub(crate) fn start(lab: &Lab, seconds: u32) -> Result<Self> {
        Self::run(lab.wrk(VIP)?, seconds)
    }

    /// Until it is told to stop, but with a pause after each answer, so that others have time, too.
    pub(crate) fn unhurried(lab: &Lab, pause: Duration) -> Result<Self> {
        let mut wrk = lab.wrk(VIP)?;
        let scripts = [format!("wrk-{VIP}.lua"), "wrk-unhurried.lua".to_owned()].map(|name| lab.file(&name));
        let delay = format!("function delay()\n  return {}\nend\n", pause.as_millis());
        fs::write(&scripts[1], fs::read_to_string(&scripts[0])? + &delay)?;
        // The last one counts.
        wrk.arg("--script").arg(&scripts[1]);
        Self::run(wrk, FOR_EVER)
    }

    fn run(mut wrk: Command, seconds: u32) -> Result<Self> {
        wrk.arg(format!("-c{CONNECTIONS}"));
        wrk.args(["-t1", "--timeout", "5s", "-d", &format!("{seconds}s")]);
        wrk.arg(format!("https://{SITE}/wrk"));
        wrk.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Self(wrk.spawn().context("cannot start wrk")?))
    }

    /// The same, for as long as it takes: until [`Self::stop`].
    pub(crate) fn until_told(lab: &Lab) -> Result<Self> {
        Self::start(lab, FOR_EVER)
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<Figures> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGINT)?;
        self.end()
    }

    /// The same, and nothing may have gone wrong.
    pub(crate) fn stop_without_errors(self) -> Result<Figures> {
        self.stop()?.without_errors()
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Result<Figures> {
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && complaint.is_empty(),
            "wrk: {text}{complaint}"
        );
        read(&text).with_context(|| format!("cannot read what wrk printed:\n{text}"))
    }

    /// The same, and nothing may have gone wrong.
    pub(crate) fn end_without_errors(self) -> Result<Figures> {
        self.end()?.without_errors()
    }
}

impl Figures {
    fn without_errors(self) -> Result<Self> {
        ensure!(self.errors.is_empty() && self.requests > 100, "{self:?}");
        Ok(self)
    }
}

fn read(text: &str) -> Option<Figures> {
    let mut lines = text.lines().map(str::trim);
    let requests = lines.clone().find(|line| line.contains(" requests in "))?;
    let rate = lines
        .clone()
        .find_map(|line| line.strip_prefix("Requests/sec:"))?;
    let errors = lines
        .by_ref()
        .filter(|line| line.starts_with("Socket errors:") || line.starts_with("Non-2xx or 3xx responses:"));
    Some(Figures {
        requests: requests.split(' ').next()?.parse().ok()?,
        rate: rate.trim().parse().ok()?,
        errors: errors.map(str::to_owned).collect(),
    })
}
