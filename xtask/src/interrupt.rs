//! Outliving the child that does the work, so that what it left can be cleaned up and reported.

use std::{
    process::{Child, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
};

use anyhow::{Context, Result};
use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

/// The last signal that came, or 0.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// The child that [`wait`] waits for, or 0.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// From now on, SIGINT, SIGTERM and SIGHUP do not end this process: they go on to the child that [`wait`] waits for.
///
/// A child under `sudo` belongs to root and is beyond our reach; Ctrl-C reaches it through the terminal, as it does
/// every child. Children inherit nothing of this, since a handler does not survive `exec`.
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub fn forward_to_child() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(forward), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but atomic accesses and kill(2), which are async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}

extern "C" fn forward(signal: libc::c_int) {
    RECEIVED.store(signal, Ordering::SeqCst);
    let child = CHILD.load(Ordering::SeqCst);
    if child > 0 {
        // SAFETY: kill(2) has no memory to get wrong; at worst the child has just ended, and it fails.
        unsafe { libc::kill(child, signal) };
    }
}

/// Waits for a child, passing signals on to it. `work` is done with it first, such as reading its output to the end.
///
/// # Errors
/// Those of `work`, or of waiting.
pub fn wait<T>(mut child: Child, work: impl FnOnce(&mut Child) -> Result<T>) -> Result<(ExitStatus, T)> {
    CHILD.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
    let result = work(&mut child);
    let status = child.wait().context("cannot wait for a child");
    CHILD.store(0, Ordering::SeqCst);
    Ok((status?, result?))
}

/// If a signal has come, the exit code of a process that it ended.
pub fn received() -> Option<ExitCode> {
    let signal = RECEIVED.load(Ordering::SeqCst);
    (signal != 0).then(|| ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)))
}
