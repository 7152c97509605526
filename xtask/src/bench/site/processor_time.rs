//! Processor time: the machine's, other people's, a process's, and that of XDP programs.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::labs::{Labs, processors};
use crate::lab::{self, Lab, Node};

/// Of `/proc/stat` and its like: `USER_HZ`, which is the same on every architecture that Linux runs on but Alpha.
const TICK: Duration = Duration::from_millis(10);

/// The machine's processor time up to a moment.
#[derive(Debug)]
pub(super) struct Machine {
    moment: Instant,
    idle: Duration,
    others: Duration,
}

impl Machine {
    /// Now.
    pub(super) fn now(labs: &Labs) -> Result<Self> {
        let others = others(labs)?;
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Ok(Self {
            moment: Instant::now(),
            idle: idle(&stat).context("cannot read the first line of /proc/stat")?,
            others,
        })
    }

    /// How many processors other processes kept busy since then, which are neither in a lab nor the kernel's.
    pub(super) fn others_since(&self, before: &Self) -> f64 {
        let elapsed = (self.moment - before.moment).as_secs_f64();
        self.others.saturating_sub(before.others).as_secs_f64() / elapsed
    }

    /// How many processors were busy since then on average, with what belongs to the labs or to the kernel: what processes
    /// elsewhere on the machine used is not counted.
    pub(super) fn cores_since(&self, before: &Self) -> f64 {
        let elapsed = (self.moment - before.moment).as_secs_f64();
        let idle = self.idle.saturating_sub(before.idle).as_secs_f64();
        processors() as f64 - idle / elapsed - self.others_since(before)
    }
}

/// Time in which processors had nothing to do or were not ours (idle, iowait, steal; proc_stat(5)). With a kernel that stops
/// its clock when idle, which all of today's do, it is exact; the busy times there are estimated from samples.
fn idle(stat: &str) -> Option<Duration> {
    let numbers: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let ticks = numbers.get(3)? + numbers.get(4)? + numbers.get(7)?;
    Some(TICK * u32::try_from(ticks).ok()?)
}

/// Of the kernel's threads (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What all processes have used that are neither in one of the labs nor this one nor the kernel's. A process that has ended
/// is in its parent's figures.
fn others(labs: &Labs) -> Result<Duration> {
    let mut ours = HashSet::new();
    for lab in labs.iter() {
        for node in Node::ALL {
            let path = lab.namespace(node).path();
            let namespace = fs::metadata(&path).with_context(|| format!("there is no {}", path.display()))?;
            ours.insert((namespace.st_dev(), namespace.st_ino()));
        }
    }
    let own = std::process::id().to_string();
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        // Processes come and go meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let is_in_a_lab = fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|namespace| ours.contains(&(namespace.st_dev(), namespace.st_ino())));
        if pid != own && !is_in_a_lab {
            ticks += user_ticks(&stat).unwrap_or_default();
        }
    }
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// Ticks of a process and its children that have ended (proc_pid_stat(5): utime to cstime, from field 14), none if it is a
/// thread of the kernel (flags, field 9).
fn user_ticks(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses, which may hold anything; the next one is field 3.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    if number(9)? & KERNEL_THREAD != 0 {
        return Some(0);
    }
    (14..=17).map(number).sum()
}

/// What a process and the others of its group, all their threads, have used.
pub(super) fn of_group(leader: i32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid)));
        if group != Ok(nix::unistd::Pid::from_raw(leader)) {
            continue;
        }
        for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // The first number: ns on a processor (Documentation/scheduler/sched-stats.rst).
            let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let on_processor = stat
                .split(' ')
                .next()
                .and_then(|number| number.parse::<u64>().ok());
            nanoseconds += on_processor.unwrap_or_default();
        }
    }
    if nanoseconds == 0 {
        bail!("the kernel does not say for how long process {leader} has run");
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// As long as this exists, the kernel notes for how long BPF programs run. It costs every run some 50 ns, which are not in the
/// figure.
#[derive(Debug)]
pub(super) struct RunTimes {
    _enabled: OwnedFd,
}

/// bpf(2), `BPF_ENABLE_STATS` (Linux 5.8).
const ENABLE_STATS: libc::c_int = 32;

impl RunTimes {
    /// From now on.
    pub(super) fn enable() -> Result<Self> {
        // What to count: 0 is the run time.
        let what = [0_u32];
        // SAFETY: the kernel reads `what`, which is as long as it is told, and nothing else.
        let descriptor =
            unsafe { libc::syscall(libc::SYS_bpf, ENABLE_STATS, what.as_ptr(), size_of_val(&what)) };
        if descriptor < 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).context("the kernel does not note BPF programs' run time");
        }
        // SAFETY: it was just opened, for nobody else.
        let enabled = unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor)?) };
        Ok(Self { _enabled: enabled })
    }

    /// Of the programs that are attached to the balancer's interfaces.
    pub(super) fn of_balancer(&self, lab: &Lab) -> Result<Duration> {
        #[derive(Deserialize)]
        struct Link {
            xdp: Option<Xdp>,
        }
        #[derive(Deserialize)]
        struct Xdp {
            prog: Option<Program>,
        }
        #[derive(Deserialize)]
        struct Program {
            id: u32,
        }
        #[derive(Deserialize)]
        struct Shown {
            #[serde(default)]
            run_time_ns: u64,
        }
        let links = lab::run(
            lab.command(Node::Lb, "ip")?
                .args(["-json", "-details", "link", "show"]),
        )?;
        let links: Vec<Link> = serde_json::from_str(&links).context("cannot read what ip prints")?;
        let mut programs: Vec<u32> = links
            .into_iter()
            .filter_map(|link| Some(link.xdp?.prog?.id))
            .collect();
        programs.sort_unstable();
        programs.dedup();
        let mut nanoseconds = 0;
        for program in programs {
            let shown = lab::run(lab.command(Node::Lb, "bpftool")?.args([
                "-j",
                "prog",
                "show",
                "id",
                &program.to_string(),
            ]))?;
            let shown: Shown = serde_json::from_str(&shown).context("cannot read what bpftool prints")?;
            nanoseconds += shown.run_time_ns;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read() {
        let stat = "cpu  100 0 50 1000 20 0 7 3 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(idle(stat), Some(Duration::from_millis(10_230)));
        assert_eq!(idle("cpu  100 0 50"), None);
    }

    #[test]
    fn times_of_processes_are_read() {
        let user = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5";
        assert_eq!(user_ticks(user), Some(100));
        let kernel = "9 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 10 20 0 0 20 0 1 0 5";
        assert_eq!(user_ticks(kernel), Some(0));
        assert_eq!(user_ticks("9 (a) S 1"), None);
    }

    #[test]
    fn a_process_of_our_own_has_run() {
        let group = nix::unistd::getpgrp();
        assert!(of_group(group.as_raw()).unwrap() > Duration::ZERO);
    }
}
