//! The maps of the loaded program, for a second instance of the same object to be loaded over.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use aya::Ebpf;

use super::DataplaneError;
use super::load::PROGRAMS;

/// What decisions are made from, and what they are remembered in.
pub(super) const STATE: [&str; 17] = [
    "CONTROL",
    "SERVICE_TABLE",
    "ENDPOINT_TABLE",
    "SIBLINGS",
    "SERVICES",
    "BACKENDS",
    "OUTERS",
    "SLOTS",
    "SERVICE_STATES",
    "BACKEND_STATES",
    "CONNECTIONS",
    "WIDE_CONNECTIONS",
    "PORTS",
    "PRESSURE",
    "FRAGMENTS",
    "ICMP_SENT",
    "RETURN_HOP_TABLE",
];
/// What is only counted.
pub(super) const COUNTERS: [&str; 3] = ["OUTCOME_COUNTERS", "BACKEND_COUNTERS", "EVICTIONS"];

/// All maps that instances may have in common, where the loader looks for them.
#[derive(Debug)]
pub(super) enum SharedMaps {
    /// In a BPF file system that nobody else sees and that goes with this.
    Own(OwnedFd),
    /// Where they are pinned anyway.
    Pinned {
        /// The tables.
        set: PathBuf,
        /// The array of programs.
        programs: PathBuf,
    },
}

impl SharedMaps {
    /// Those that are pinned.
    pub(super) fn pinned(set: PathBuf, programs: PathBuf) -> Self {
        Self::Pinned { set, programs }
    }

    /// Those of a loaded object.
    ///
    /// # Errors
    /// There is no BPF file system to be had: that needs CAP_SYS_ADMIN.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, DataplaneError> {
        let failed = |map: &'static str, reason: String| DataplaneError::Map { map, reason };
        let directory = file_system().map_err(|error| {
            failed(
                "CONTROL",
                format!("cannot be shared, there is no BPF file system to be had: {error}"),
            )
        })?;
        let shared = Self::Own(directory);
        for name in STATE.into_iter().chain(COUNTERS).chain([PROGRAMS]) {
            let map = ebpf.map(name).ok_or(DataplaneError::Missing(name))?;
            map.pin(shared.path(name))
                .map_err(|error| failed(name, format!("cannot be shared: {error}")))?;
        }
        Ok(shared)
    }

    /// Where a map is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Own(directory) => PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())),
            Self::Pinned { programs, .. } if name == PROGRAMS => programs.clone(),
            Self::Pinned { set, .. } => set.join(name),
        }
    }
}

/// A BPF file system that is mounted nowhere (since 5.2).
fn file_system() -> io::Result<OwnedFd> {
    const TYPE: &CStr = c"bpf";
    const FSOPEN_CLOEXEC: libc::c_int = 1;
    const FSCONFIG_CMD_CREATE: libc::c_int = 6;
    const FSMOUNT_CLOEXEC: libc::c_int = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the name outlives the call.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, TYPE.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: this command takes no key, no value and no number.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            none,
            none,
            0,
        )
    };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just given it to us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
