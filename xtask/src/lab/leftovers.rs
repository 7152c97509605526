//! Who owns a prefix, and removing what was made under it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::bpf_filesystem;
use super::network::namespace;
use super::node::Node;
use super::processes::Processes;

/// The directory of everything that a lab writes.
pub(super) fn directory_of(prefix: &str) -> PathBuf {
    Path::new("/run").join(prefix)
}

/// The right to work on the lab of one prefix, for as long as this lives: a locked file.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes it, or says who has it.
    pub(super) fn take(prefix: &str) -> anyhow::Result<Self> {
        let path = directory_of(prefix).with_extension("lock");
        let cannot = || format!("cannot lock {}", path.display());
        loop {
            let file = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "another `cargo xtask` is using the lab {prefix:?} (it has locked {}): wait for it or end it",
                    path.display()
                ),
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
            let lock = Self {
                path: path.clone(),
                file,
            };
            // Its last owner may have removed the file between our opening and our locking it.
            if lock.is_current() {
                return Ok(lock);
            }
        }
    }

    fn is_current(&self) -> bool {
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(locked)) => (named.st_dev(), named.st_ino()) == (locked.st_dev(), locked.st_ino()),
            _ => false,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_current() {
            // If it stays, it is an empty file that nobody has locked.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Ends the processes and removes the namespaces and files of a lab, whatever state it is in. The lock must be held.
///
/// Ended are the recorded processes, in an order that lets them say goodbye, and then whatever else is inside the lab's
/// own namespaces: the workers of an nginx that was killed, a forgotten shell. Never anything by its name.
pub(super) fn remove(prefix: &str, processes: &mut Processes) -> anyhow::Result<()> {
    for name in [
        "haproxy",
        "lbd",
        "web1-nginx",
        "web2-nginx",
        "web1-app",
        "web2-app",
        "relay",
    ] {
        processes.stop(name)?;
    }
    for node in Node::ALL {
        let namespace = namespace(prefix, node);
        processes.end(&namespace.processes(), Signal::SIGTERM)?;
        namespace.remove()?;
    }
    let directory = directory_of(prefix);
    bpf_filesystem::unmount(&directory);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
