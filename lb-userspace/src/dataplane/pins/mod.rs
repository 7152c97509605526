//! What outlives the daemon: a directory in a bpf filesystem where the tables, the programs and the links are pinned, so that
//! packets go their way while no daemon runs.
//!
//! ```text
//! tables-3/CONTROL …      a set of tables; while a larger one takes its place there are two
//! programs-17             what the attached program calls; the program itself is held by the links
//! links/native/eth0       who is attached, and how; links/generic/…
//! ```
//!
//! Nothing here says what state a start or an upgrade was in when the daemon was killed: that is told from what there is.

mod links;
mod roles;
mod sets;
mod shape;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;

pub(super) use links::{Link, Replaced};
pub(super) use roles::Role;
pub(super) use sets::{Choice, Found, SetNumber, choose, current};
pub(super) use shape::{Shapes, wanted};

/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FILESYSTEM: i64 = 0xcafe_4a11;

/// The directory, which no other daemon uses for as long as this lives.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is on another kind of file system.
    #[error(
        "daemon.pin_directory {directory}: not on a bpf filesystem; mount one there (`mount -t bpf bpf /sys/fs/bpf`) or \
         name a directory on one that is mounted (`findmnt -t bpf`)"
    )]
    OtherFilesystem {
        /// The directory.
        directory: PathBuf,
    },
    /// Another daemon has it.
    #[error(
        "daemon.pin_directory {directory}: another lbd uses it; stop that one first, or give this one another directory"
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refuses.
    #[error(
        "{path}: cannot {doing}: {source}; lbd keeps its tables on a bpf filesystem, which must be writable for it"
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// Something is pinned there that this daemon cannot use.
    #[error(
        "{path}: {reason}; what is pinned stays as it is and goes on balancing: use the lbd that made it, or give up its \
         connections with `lbd --cleanup` and start again"
    )]
    Unusable {
        /// The pin or the directory of a set.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Pins {
    /// Takes the directory, which is made if need be.
    ///
    /// # Errors
    /// It is not on a bpf filesystem, another daemon has it, or the system refuses.
    pub fn take(directory: &Path) -> Result<Self, PinError> {
        let is_new = !directory.exists();
        make_directory(directory)?;
        let kind = statfs(directory).map_err(|error| failed(directory, "look at it")(error.into()))?;
        if kind.filesystem_type().0 != BPF_FILESYSTEM {
            if is_new {
                remove_all(directory)?;
            }
            return Err(PinError::OtherFilesystem {
                directory: directory.to_owned(),
            });
        }
        let lock = File::open(directory).map_err(failed(directory, "open it"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory: directory.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(PinError::InUse {
                directory: directory.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(failed(directory, "lock it")(error)),
        }
    }

    /// Removes everything that is ours in it, and the directory itself unless somebody else has something there: programs are
    /// detached, connections forgotten. Links go first, so that no packet meets half of the rest. Returns what is left.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(self) -> Result<Vec<String>, PinError> {
        remove_all(&self.directory.join(links::DIRECTORY))?;
        for number in self.sets()? {
            self.remove_set(number)?;
        }
        for generation in self.generations()? {
            self.remove_programs(generation)?;
        }
        let left = names(&self.directory)?;
        if !left.is_empty() {
            return Ok(left);
        }
        match fs::remove_dir(&self.directory) {
            // It is the root of a filesystem.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(left),
            Err(error) => Err(failed(&self.directory, "remove it")(error)),
            Ok(()) => Ok(left),
        }
    }

    /// Where the array of the programs of a generation is pinned.
    pub(super) fn programs(&self, generation: u32) -> PathBuf {
        self.directory.join(format!("{PROGRAMS}{generation}"))
    }

    /// The generations of programs that there are, in ascending order.
    pub(super) fn generations(&self) -> Result<Vec<u32>, PinError> {
        self.numbered(PROGRAMS)
    }

    /// Lets go of a generation's programs; the kernel frees them once no link runs them.
    pub(super) fn remove_programs(&self, generation: u32) -> Result<(), PinError> {
        remove_all(&self.programs(generation))
    }

    /// The numbers of what is called like this and then a number, in ascending order.
    fn numbered(&self, prefix: &str) -> Result<Vec<u32>, PinError> {
        let mut numbers: Vec<u32> = names(&self.directory)?
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

const PROGRAMS: &str = "programs-";

fn make_directory(path: &Path) -> Result<(), PinError> {
    fs::create_dir_all(path).map_err(failed(path, "make the directory"))
}

/// The names of what lies in a directory; of one that is not there, none.
fn names(directory: &Path) -> Result<Vec<String>, PinError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, "list it")(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(directory, "list it"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a pin, or a directory with all that is in it; if there is none, that is just as well.
fn remove_all(path: &Path) -> Result<(), PinError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove it")(error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::Io { path, doing, source }
}

/// That something cannot be pinned; the system's own words are at the end of the chain.
pub(super) fn not_pinned(path: &Path, error: &dyn std::error::Error) -> PinError {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    failed(path, "pin anything there")(io::Error::other(last.to_string()))
}

fn unusable(path: &Path, reason: impl Into<String>) -> PinError {
    PinError::Unusable {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins, as far as their names go.
    fn pins(directory: &Path, files: &[&str]) -> Pins {
        for file in files {
            let file = directory.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        Pins {
            directory: directory.to_owned(),
            _lock: File::open(directory).unwrap(),
        }
    }

    const OURS: [&str; 4] = [
        "tables-3/CONTROL",
        "tables-4/CONTROL",
        "programs-17",
        "links/native/eth0",
    ];

    #[test]
    fn what_is_ours_is_removed_with_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lb");
        assert!(pins(&directory, &OURS).remove().unwrap().is_empty());
        assert!(!directory.exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path();
        let theirs = ["maps/a", "tables", "tables-x", "programs-17.old"];
        let pins = pins(directory, &[&OURS[..], &theirs].concat());
        assert_eq!(
            pins.remove().unwrap(),
            ["maps", "programs-17.old", "tables", "tables-x"]
        );
        assert!(theirs.iter().all(|file| directory.join(file).exists()));
        assert!(OURS.iter().all(|file| !directory.join(file).exists()));
    }

    #[test]
    fn a_directory_elsewhere_is_refused_and_not_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lb");
        let refused = Pins::take(&directory).unwrap_err();
        assert!(matches!(refused, PinError::OtherFilesystem { .. }), "{refused}");
        assert!(!directory.exists());
    }
}
