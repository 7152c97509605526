//! Outliving the child that does the work, so that what it left can be cleaned up and reported.

use std::{
    process::{Child, ExitCode, ExitStatus},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static CHILD: Mutex<Option<Pid>> = Mutex::new(None);

/// From now on, SIGINT, SIGTERM and SIGHUP do not end this process: they go on to the child that [`wait`] waits for.
/// (A child under `sudo` is beyond our reach; Ctrl-C reaches it through the terminal, as it does every child.)
///
/// Children do not inherit this: the standard library gives each a clean signal mask.
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub fn forward_to_child() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            RECEIVED.store(signal as i32, Ordering::SeqCst);
            if let Some(child) = *CHILD.lock().unwrap_or_else(PoisonError::into_inner) {
                // It may have ended by itself in the meantime.
                let _ = kill(child, signal);
            }
        }
    });
    Ok(())
}

/// Waits for a child, passing signals on to it.
///
/// `work` is done with the child first, such as reading its output to the end.
///
/// # Errors
/// Those of `work`, or of waiting.
pub fn wait<T>(mut child: Child, work: impl FnOnce(&mut Child) -> Result<T>) -> Result<(ExitStatus, T)> {
    let set = |pid| *CHILD.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    set(i32::try_from(child.id()).ok().map(Pid::from_raw));
    let result = work(&mut child);
    let status = child.wait().context("cannot wait for a child");
    set(None);
    Ok((status?, result?))
}

/// If a signal has come, the exit code of a process that it ended.
pub fn received() -> Option<ExitCode> {
    let signal = RECEIVED.load(Ordering::SeqCst);
    (signal != 0).then(|| ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)))
}
