//! A bpffs of the lab's own, for as long as `ip` loads programs.
//!
//! `ip` wants one even for a program that it pins nowhere. Left alone it takes the first that it finds in the list of
//! mounts, which may be inside somebody's chroot, or mounts one over `/sys/fs/bpf` and leaves it there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounted; unmounted when it is dropped.
#[derive(Debug)]
pub(super) struct BpfFilesystem {
    lab_directory: PathBuf,
}

impl BpfFilesystem {
    /// Mounts it in the directory of a lab.
    pub(super) fn mount(lab_directory: &Path) -> anyhow::Result<Self> {
        let path = path_in(lab_directory);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            None::<&str>,
        )
        .with_context(|| format!("cannot mount a bpf filesystem on {}", path.display()))?;
        Ok(Self {
            lab_directory: lab_directory.to_owned(),
        })
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        path_in(&self.lab_directory)
    }
}

impl Drop for BpfFilesystem {
    fn drop(&mut self) {
        unmount(&self.lab_directory);
    }
}

/// Unmounts what a lab that was killed may have left mounted in its directory.
pub(super) fn unmount(lab_directory: &Path) {
    // Mostly there is nothing; if it stays in spite of this, removing the directory says why.
    let _ = umount2(&path_in(lab_directory), MntFlags::MNT_DETACH);
}

fn path_in(lab_directory: &Path) -> PathBuf {
    lab_directory.join("bpf")
}
