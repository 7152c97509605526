//! What goes over a wire, by tcpdump.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{Lab, Node};

/// A capture that is running.
pub(crate) struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

/// A frame that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    /// Of the frame as it was on the wire.
    pub(crate) length: usize,
    /// Its first bytes, at most [`SNAPPED`].
    pub(crate) bytes: Vec<u8>,
}

/// More than the headers of anything here.
pub(crate) const SNAPPED: usize = 256;

impl Capture {
    /// Begins to capture what an interface of a node sends and receives and the filter (pcap-filter(7)) lets through. What a
    /// host sends in one piece for its interface to cut (GSO) is seen cut.
    pub(crate) fn start(lab: &Lab, node: Node, device: &str, filter: &str) -> Result<Self> {
        let file = lab.file(&format!("{node}-{device}.pcap"));
        let mut command = lab.command(node, "tcpdump")?;
        // As root, since the lab's directory is root's; with room for what comes while it has no turn; and reading at once:
        // otherwise the kernel gathers frames for up to a second, and the last ones are lost at the end.
        command.args([
            "-n",
            "-p",
            "-Z",
            "root",
            "-B",
            "65536",
            "--immediate-mode",
            "-i",
            device,
        ]);
        command.args(["-s", &SNAPPED.to_string(), "-w"]).arg(&file);
        command.arg(filter).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut tcpdump = command.spawn().context("cannot start tcpdump")?;
        let errors = tcpdump.stderr.take().context("tcpdump has no standard error")?;
        let mut errors = BufReader::new(errors);
        let mut said = String::new();
        while !said.contains("listening on") {
            if errors.read_line(&mut said)? == 0 {
                bail!("tcpdump on {device} of {node}: {said}");
            }
        }
        tcpdump.stderr = Some(errors.into_inner());
        Ok(Self { tcpdump, file })
    }

    /// Ends it: everything that was seen, in this order.
    pub(crate) fn stop(mut self) -> Result<Vec<Captured>> {
        // What has just been sent may still be in the kernel's buffer.
        std::thread::sleep(Duration::from_millis(200));
        kill(Pid::from_raw(i32::try_from(self.tcpdump.id())?), Signal::SIGINT)?;
        let mut said = String::new();
        if let Some(errors) = &mut self.tcpdump.stderr {
            errors.read_to_string(&mut said)?;
        }
        ensure!(self.tcpdump.wait()?.success(), "tcpdump: {said}");
        ensure!(
            said.contains("0 packets dropped by kernel"),
            "tcpdump lost something: {said}"
        );
        read(&fs::read(&self.file)?).with_context(|| format!("cannot read {}", self.file.display()))
    }
}

/// The length of the longest frame; 0 if there is none.
pub(crate) fn longest(frames: &[Captured]) -> usize {
    frames.iter().map(|frame| frame.length).max().unwrap_or(0)
}

/// pcap-savefile(5), in this machine's byte order.
fn read(file: &[u8]) -> Option<Vec<Captured>> {
    const HEADER: usize = 24;
    let (header, mut rest) = file.split_at_checked(HEADER)?;
    if header[..4] != 0xa1b2_c3d4_u32.to_ne_bytes() {
        return None;
    }
    let mut frames = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let word = |index: usize| {
            let bytes = record[index * 4..][..4].try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        let (bytes, after) = after.split_at_checked(word(2)? as usize)?;
        frames.push(Captured {
            length: word(3)? as usize,
            bytes: bytes.to_vec(),
        });
        rest = after;
    }
    Some(frames)
}
