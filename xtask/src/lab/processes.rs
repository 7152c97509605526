//! Processes that outlive the call that started them: each is recorded in a file by pid and start time, so that another
//! run, or the next one after a crash, can end exactly those and no other.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::cannot_run;

/// How long a process gets after SIGTERM.
const TERMINATION: Duration = Duration::from_secs(5);

/// The processes recorded in one directory, by name.
#[derive(Debug)]
pub(super) struct Processes {
    directory: PathBuf,
    /// Our own children among them, to be reaped, and when they were started.
    children: Vec<(Child, u64)>,
}

impl Processes {
    /// Those recorded in this directory.
    pub(super) fn in_directory(directory: PathBuf) -> Self {
        Self {
            directory,
            children: Vec::new(),
        }
    }

    /// Starts a command in the background, its output appended to `log`, in a session of its own (Ctrl-C does not reach
    /// it). `die_with_parent`: it gets a SIGTERM when the **thread** that called this ends.
    pub(super) fn start(
        &mut self,
        name: &str,
        command: &mut Command,
        log: &Path,
        die_with_parent: bool,
    ) -> anyhow::Result<i32> {
        self.stop(name)?;
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot open {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // SAFETY: only setsid and prctl are called, both async-signal-safe and without allocation.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                if die_with_parent {
                    prctl::set_pdeathsig(Signal::SIGTERM)?;
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| cannot_run(command))?;
        let pid = i32::try_from(child.id())?;
        let started = start_time(pid).unwrap_or_default();
        self.children.push((child, started));
        let record = self.record(name);
        fs::write(&record, format!("{pid} {started}\n"))
            .with_context(|| format!("cannot write {}", record.display()))?;
        Ok(pid)
    }

    /// The pid of a recorded process that still runs.
    pub(super) fn running(&mut self, name: &str) -> Option<i32> {
        self.reap();
        let record = fs::read_to_string(self.record(name)).ok()?;
        let (pid, started) = record.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        let started: u64 = started.parse().ok()?;
        is_there(&self.children, pid, started).then_some(pid)
    }

    /// Ends a recorded process, with SIGTERM and, if that is not enough, SIGKILL. Whether it was running.
    pub(super) fn stop(&mut self, name: &str) -> anyhow::Result<bool> {
        self.stop_with(name, Signal::SIGTERM)
    }

    /// The same, beginning with another signal.
    pub(super) fn stop_with(&mut self, name: &str, signal: Signal) -> anyhow::Result<bool> {
        let running = self.running(name);
        if let Some(pid) = running {
            // Its whole group, which it leads: an nginx that is killed leaves its workers behind, and these listen on.
            self.end(&members(pid), signal)
                .with_context(|| format!("cannot stop {name}"))?;
        }
        match fs::remove_file(self.record(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(running.is_some()),
        }
    }

    /// Ends these processes and waits until they are gone.
    pub(super) fn end(&mut self, pids: &[i32], signal: Signal) -> anyhow::Result<()> {
        let mut left: Vec<(i32, u64)> = pids
            .iter()
            .filter_map(|&pid| Some((pid, start_time(pid)?)))
            .collect();
        for (signal, patience) in [(signal, TERMINATION), (Signal::SIGKILL, TERMINATION)] {
            for &(pid, _) in &left {
                // It may have gone by itself.
                let _ = kill(Pid::from_raw(pid), signal);
            }
            let deadline = Instant::now() + patience;
            while !left.is_empty() && Instant::now() < deadline {
                self.reap();
                left.retain(|&(pid, started)| is_there(&self.children, pid, started));
                thread::sleep(Duration::from_millis(5));
            }
            if left.is_empty() {
                return Ok(());
            }
        }
        bail!(
            "process {} does not end, not even by SIGKILL",
            left.first().map_or(0, |&(pid, _)| pid)
        )
    }

    /// Takes note of children that have ended.
    fn reap(&mut self) {
        self.children
            .retain_mut(|(child, _)| matches!(child.try_wait(), Ok(None)));
    }

    fn record(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pid"))
    }
}

/// Whether a process is still there. One of our `children` is until all of its threads have ended, and not only the first, which
/// looks as if nothing but the exit status were left: the others may hold sockets for a moment longer.
fn is_there(children: &[(Child, u64)], pid: i32, started: u64) -> bool {
    let is_it = |(child, began): &(Child, u64)| i32::try_from(child.id()) == Ok(pid) && *began == started;
    children.iter().any(is_it) || start_time(pid) == Some(started)
}

/// When a process was started, in clock ticks since boot: with the pid it names a process for ever. `None`: it is gone, or
/// only its exit status is left.
fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.started)
}

/// The processes of a process group.
fn members(group: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|stat| stat.group == group))
        .collect()
}

struct Stat {
    group: i32,
    started: u64,
}

/// proc(5), `/proc/pid/stat`: fields 3 (state), 5 (pgrp) and 22 (starttime).
fn stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Stat {
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recorded_process_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut processes = Processes::in_directory(directory.path().into());
        let pid = processes
            .start("sleeper", Command::new("sleep").arg("60"), &log, true)
            .unwrap();
        assert_eq!(processes.running("sleeper"), Some(pid));

        // The same pid, but not the same process.
        fs::write(directory.path().join("sleeper.pid"), format!("{pid} 1\n")).unwrap();
        assert_eq!(processes.running("sleeper"), None);
        assert!(!processes.stop("sleeper").unwrap());
        assert!(start_time(pid).is_some());

        processes.end(&[pid], Signal::SIGTERM).unwrap();
        assert_eq!(start_time(pid), None);
    }
}
