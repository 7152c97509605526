//! A bpffs of the lab's own, for as long as it is up: `lbd` pins there what outlives it, and `ip` wants one even for a program that
//! it pins nowhere. Left alone `ip` takes the first that it finds in the list of mounts, which may be inside somebody's chroot, or
//! mounts one over `/sys/fs/bpf` and leaves it there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount as mount_filesystem, umount2};

/// Mounts it in the directory of a lab.
pub(super) fn mount(lab_directory: &Path) -> anyhow::Result<()> {
    let path = path(lab_directory);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    mount_filesystem(
        Some("bpf"),
        &path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .with_context(|| format!("cannot mount a bpf filesystem on {}", path.display()))
}

/// Unmounts it, and with it goes what is pinned there.
pub(super) fn unmount(lab_directory: &Path) {
    // Of a lab that never was there is nothing; if it stays otherwise, removing the directory says why.
    let _ = umount2(&path(lab_directory), MntFlags::MNT_DETACH);
}

/// Where it is mounted.
pub(super) fn path(lab_directory: &Path) -> PathBuf {
    lab_directory.join("bpf")
}

/// Where `lbd` pins.
pub(super) fn pin_directory(lab_directory: &Path) -> PathBuf {
    path(lab_directory).join("lb")
}
