//! Booting a guest, and reading what its harness prints.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{package::Unpacked, plan::ENDED};
use crate::{interrupt, process, tally::Tally};

/// Without `cx16` guests with 6.12 crash at random. Hardware virtualisation is not used even where there is some: then it is the
/// same machine everywhere.
const MACHINE: [&str; 14] = [
    "-accel",
    "tcg,thread=multi",
    "-M",
    "pc",
    "-cpu",
    "max,-cx16",
    "-smp",
    "2",
    "-m",
    "2048",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
];

/// A crash ends the machine. Where this one is busy, an emulated timer looks broken to the kernel, which then gives up, and its
/// grace periods look endless: neither is checked. `--` is followed by the first process's arguments.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 mitigations=off no_timer_check \
     rcupdate.rcu_cpu_stall_suppress=1 -- kernel-guest";

/// Runs a guest to its end and copies what the harness prints there. A harness that ended badly, or not at all, counts as a
/// failure even if it could not say so.
pub(super) fn run(kernel: &Unpacked, image: &Path, limit: Duration, to: impl Write) -> Result<Tally> {
    let console = kernel.directory.join("console.log");
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(limit.as_secs().to_string())
        .arg("qemu-system-x86_64")
        .args(MACHINE)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", COMMAND_LINE]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", process::shown(&command)))?;
    let mut to = LastLine::new(to);
    let (status, mut tally) = interrupt::wait(child, |child| {
        Tally::copy(
            child.stdout.take().context("the child has no standard output")?,
            &mut to,
        )
    })?;
    let code = exit_code(&to.last);
    if code != Some(0) && tally.failed == 0 && interrupt::received().is_none() {
        tally.failed = 1;
        let reason = match code {
            Some(code) => format!("the harness ended with exit code {code}"),
            None => format!(
                "the guest ended ({status}) before its harness did; its console:\n{}",
                last_lines(&fs::read_to_string(&console).unwrap_or_default())
            ),
        };
        tally.failures = format!("{}: {reason}\n", kernel.package);
    }
    Ok(tally)
}

/// The harness's, if the guest lived to say it.
fn exit_code(last_line: &[u8]) -> Option<i32> {
    let line = String::from_utf8_lossy(last_line);
    line.trim_end().strip_prefix(ENDED)?.parse().ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(25);
    lines
        .iter()
        .skip(start)
        .map(|line| format!("    {line}\n"))
        .collect()
}

/// Passes everything on, and remembers the last line that was ended.
struct LastLine<W> {
    to: W,
    last: Vec<u8>,
    ended: bool,
}

impl<W: Write> LastLine<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            last: Vec::new(),
            ended: false,
        }
    }
}

impl<W: Write> Write for LastLine<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if std::mem::replace(&mut self.ended, *byte == b'\n') {
                self.last.clear();
            }
            self.last.push(*byte);
        }
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_in_the_last_line() {
        let code = |output: &str| {
            let mut to = LastLine::new(Vec::new());
            for piece in output.as_bytes().chunks(3) {
                to.write_all(piece).unwrap();
            }
            assert_eq!(to.to, output.as_bytes());
            exit_code(&to.last)
        };
        assert_eq!(code(&format!("test a ... ok\n{ENDED}0\n")), Some(0));
        assert_eq!(code(&format!("{ENDED}101\r\n")), Some(101));
        assert_eq!(code(&format!("{ENDED}0\nand more\n")), None);
        assert_eq!(code("test a ..."), None);
        assert_eq!(code(""), None);
    }
}
