//! Who owns a prefix, and removing what was made under it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::network::namespace;
use super::node::Node;
use super::processes::Processes;

/// The directory of everything that a lab writes.
pub(super) fn directory_of(prefix: &str) -> PathBuf {
    Path::new("/run").join(prefix)
}

/// Makes sure that nobody else is working on a lab with this prefix, for as long as the file is open.
pub(super) fn lock(prefix: &str) -> anyhow::Result<File> {
    let path = directory_of(prefix).with_extension("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `cargo xtask` is using the lab {prefix:?} (it holds {}): wait for it or end it",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Ends the processes and removes the namespaces and files of a lab, whatever state it is in. The lock must be held.
///
/// Ended are the recorded processes, in an order that lets them say goodbye, and then whatever else is inside the lab's
/// own namespaces: the workers of an nginx that was killed, a forgotten shell. Never anything by its name.
pub(super) fn remove(prefix: &str, processes: &mut Processes) -> anyhow::Result<()> {
    for name in ["haproxy", "lbd", "web1-nginx", "web2-nginx", "web1-app", "web2-app"] {
        processes.stop(name)?;
    }
    for node in Node::ALL {
        let namespace = namespace(prefix, node);
        processes.end(&namespace.processes(), Signal::SIGTERM)?;
        namespace.remove()?;
    }
    let directory = directory_of(prefix);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
