//! What a test may need of the machine, and how to find out whether it is there.

use std::{fmt, fs, thread};

use aya::{maps::MapType, sys::is_map_supported};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use xtask::{process, test_command};

use crate::debian_root;

/// Something without which a test cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Effective user id 0.
    Root,
    /// The kernel lets us create BPF maps.
    Bpf,
    /// The kernel lets us create network namespaces.
    NetworkNamespaces,
    /// A program of this name, on the `PATH` or among the system's own.
    Program(&'static str),
    /// A fresh Debian system can be had: made by debootstrap before, or now.
    DebianRoot,
    /// systemd-nspawn can work here: mounts can be kept from spreading, which they cannot in a chroot into a mere directory,
    /// and there are control groups.
    Containers,
    /// `--full` was given: the test takes minutes.
    Full,
}

/// Why a test cannot run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// What is missing, in words.
    pub reason: String,
    /// It was left out by choice, and not because this machine lacks something.
    pub by_choice: bool,
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

/// Checks one requirement.
///
/// # Errors
/// When it is not met.
pub fn needs(requirement: Requirement) -> Result<(), Skip> {
    let (is_met, reason) = match requirement {
        Requirement::Root => (nix::unistd::geteuid().is_root(), "needs root".to_owned()),
        Requirement::Bpf => {
            let supported = matches!(is_map_supported(MapType::Array), Ok(true));
            (supported, "may not create BPF maps here".to_owned())
        }
        Requirement::NetworkNamespaces => {
            (can_unshare(), "may not create network namespaces here".to_owned())
        }
        Requirement::Program(name) => (process::find(name).is_some(), format!("{name} is not installed")),
        Requirement::DebianRoot => match debian_root::archive() {
            Ok(_) => (true, String::new()),
            Err(error) => (false, format!("{error:#}")),
        },
        Requirement::Containers => match containers() {
            Ok(()) => (true, String::new()),
            Err(reason) => (false, reason),
        },
        Requirement::Full => {
            let is_full = std::env::var_os(test_command::FULL).is_some();
            (is_full, "takes minutes; runs with --full".to_owned())
        }
    };
    if is_met {
        return Ok(());
    }
    Err(Skip {
        reason,
        by_choice: requirement == Requirement::Full,
    })
}

/// Tries it in a thread of its own, which takes the new namespace with it.
fn can_unshare() -> bool {
    thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok())
        .join()
        .unwrap_or(false)
}

/// Tries it in a thread of its own, likewise.
fn containers() -> Result<(), String> {
    let mut groups = fs::read_dir("/sys/fs/cgroup").map_err(|error| format!("no control groups: {error}"))?;
    if groups.next().is_none() {
        return Err("no control groups: nothing is mounted at /sys/fs/cgroup".to_owned());
    }
    let may_mount = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
    });
    match may_mount.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("/ is no mount that can be kept private here: {error}")),
        Err(_) => Err("a panic".to_owned()),
    }
}
