//! A long download by curl over a verified TLS connection, and whether all of it arrived.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::app;
use xtask::lab::{Lab, Node, SITE, VIP, wait_for};

/// A download that is running.
pub(crate) struct Download {
    curl: Child,
    body: PathBuf,
    length: u64,
    /// The web server that it comes from.
    pub(crate) server: String,
}

impl Download {
    /// Begins to download `length` bytes at `rate` bytes a second; returns when the answer has begun.
    pub(crate) fn start(lab: &Lab, name: &str, length: u64, rate: u64) -> Result<Self> {
        let (head, body) = (
            lab.file(&format!("{name}.head")),
            lab.file(&format!("{name}.body")),
        );
        // An earlier download's would look like an answer.
        for file in [&head, &body] {
            let _ = fs::remove_file(file);
        }
        let mut curl = lab.curl(VIP)?;
        curl.args(["--max-time", "60", "--no-buffer", "--dump-header"])
            .arg(&head);
        curl.arg("--output").arg(&body);
        curl.arg(format!("https://{SITE}/bytes/{length}?rate={rate}"));
        let curl = curl.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let curl = curl.context("cannot start curl")?;
        let server = wait_for("the answer", Duration::from_secs(10), || {
            let head = fs::read_to_string(&head).unwrap_or_default();
            let server = head.lines().find_map(|line| line.strip_prefix("x-server: "));
            let server = server.filter(|_| head.ends_with("\r\n\r\n")).map(str::to_owned);
            server.ok_or_else(|| format!("curl got {head:?}"))
        });
        Ok(Self {
            curl,
            body,
            length,
            server: server?,
        })
    }

    /// One from each web server, as round robin has it: that of `web1` first.
    pub(crate) fn one_from_each(lab: &Lab, length: u64, rate: u64) -> Result<(Self, Self)> {
        let one = Self::start(lab, "download-1", length, rate)?;
        let other = Self::start(lab, "download-2", length, rate)?;
        ensure!(one.server != other.server, "both come from {}", one.server);
        Ok(if one.server == Node::Web1.name() {
            (one, other)
        } else {
            (other, one)
        })
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.curl.try_wait()?.is_none())
    }

    /// Waits for its end: every byte must have arrived, and the right one.
    pub(crate) fn complete(self) -> Result<()> {
        let (length, server) = (self.length, self.server.clone());
        let body = self.body.clone();
        let failure = self.end()?;
        ensure!(failure.is_none(), "the download from {server}: {failure:?}");
        let (got, as_sent) = app::compare(&mut File::open(body)?)?;
        ensure!(
            got == length && as_sent,
            "{got} of {length} bytes from {server}, as sent: {as_sent}"
        );
        Ok(())
    }

    /// Waits for its end: curl's exit status and words if it failed.
    pub(crate) fn end(self) -> Result<Option<(i32, String)>> {
        let output = self.curl.wait_with_output()?;
        if output.status.success() {
            return Ok(None);
        }
        let code = output.status.code().context("curl was killed")?;
        Ok(Some((
            code,
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )))
    }
}
