//! A process that runs beside the work of this one, in the time that it leaves, and is shown when it has ended.

use std::{
    fmt::Display,
    fs,
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::{Pid, setsid},
};

use crate::process;

/// The least that the kernel knows.
const NICENESS: i32 = 19;

/// The process. It is ended when this is dropped, and when this process dies.
#[derive(Debug)]
pub struct Beside {
    child: Child,
    /// Everything that it prints, to both its outputs.
    printed: Option<JoinHandle<std::io::Result<String>>>,
}

impl Beside {
    /// Starts it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn start(command: &mut Command) -> Result<Self> {
        let (mut from, to) = std::io::pipe().context("cannot make a pipe")?;
        let to_as_well = to.try_clone().context("cannot make a pipe")?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(to))
            .stderr(Stdio::from(to_as_well));
        let has_niceness_of_its_own = sessions_have_niceness();
        // SAFETY: setsid(2), prctl(2) and setpriority(2) are async-signal-safe, and nothing else is called.
        unsafe {
            command.pre_exec(move || {
                if has_niceness_of_its_own {
                    setsid()?;
                }
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
                libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", process::shown(command)))?;
        // The command holds the writing ends of the pipe, which would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if has_niceness_of_its_own {
            // It may have ended already.
            let _ = fs::write(autogroup_of(child.id()), NICENESS.to_string());
        }
        let printed = thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).map(|_| text)
        });
        Ok(Self {
            child,
            printed: Some(printed),
        })
    }

    /// Waits for its end; what it has printed.
    ///
    /// # Errors
    /// When it cannot be waited for, or has printed what is no text.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait().context("cannot wait for a child")?;
        let printed = self.printed.take().context("it has been read")?.join();
        let text = printed
            .map_err(|_| anyhow!("its reader panicked"))?
            .context("cannot read what it printed")?;
        Ok((status, text))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.printed.is_some() {
            if let Ok(pid) = i32::try_from(self.child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            let _ = self.child.wait();
        }
    }
}

/// Where the kernel shows and takes a session's niceness. It shares time among sessions first, and only within each by
/// the niceness of processes (sched(7), "The autogroup feature").
fn autogroup_of(process: impl Display) -> String {
    format!("/proc/{process}/autogroup")
}

/// Whether a session may be nice as a whole. Where it may not, a session of its own would get as much time as all tests.
fn sessions_have_niceness() -> bool {
    let Ok(ours) = fs::read_to_string(autogroup_of("self")) else {
        return false;
    };
    // As in `/autogroup-25 nice 0`. Writing what is there changes nothing.
    ours.trim_end()
        .rsplit(' ')
        .next()
        .is_some_and(|niceness| fs::write(autogroup_of("self"), niceness).is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_is_nice_and_says_what_it_printed() {
        let mut command = Command::new("sh");
        command.args(["-c", "cut -d ' ' -f 19 /proc/$$/stat; echo wrong >&2; exit 3"]);
        let (status, text) = Beside::start(&mut command).unwrap().end().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(text, "19\nwrong\n");
    }

    #[test]
    fn it_ends_when_nobody_waits_for_it() {
        let began = Instant::now();
        drop(Beside::start(Command::new("sleep").arg("100")).unwrap());
        assert!(began.elapsed() < Duration::from_secs(50));
    }
}
