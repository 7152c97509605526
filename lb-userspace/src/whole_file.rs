//! Files that are replaced whole: after a crash at any moment a file is the old one or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Why a file could not be replaced; it is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct Failure {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// What came of it.
    pub source: io::Error,
}

/// Writes a file that is this daemon's own (0600) into its directory (made, 0700, if need be).
///
/// # Errors
/// When the operating system refuses.
pub fn keep(directory: &Path, name: &str, text: &[u8]) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(failed(directory, "make the directory"))?;
    write(directory, &directory.join(name), text, None)
}

/// Removes such a file, if it is there.
///
/// # Errors
/// When the operating system refuses.
pub fn remove(directory: &Path, name: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&path, "remove it")(error)),
        Ok(()) => sync(directory),
    }
}

/// Replaces a file that somebody else owns, or writes one beside it: with the owner and the permissions of `like`.
///
/// # Errors
/// When the operating system refuses.
pub fn replace(file: &Path, text: &[u8], like: &Path) -> Result<(), Failure> {
    let directory = match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    write(directory, file, text, fs::metadata(like).ok().as_ref())
}

fn write(directory: &Path, file: &Path, text: &[u8], like: Option<&fs::Metadata>) -> Result<(), Failure> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = || -> io::Result<()> {
        let mut new = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        if let Some(like) = like {
            fchown(&new, Some(like.uid()), Some(like.gid()))?;
            new.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
        }
        new.write_all(text)?;
        new.sync_all()
    };
    let replaced = written()
        .map_err(failed(&temporary, "write it"))
        .and_then(|()| fs::rename(&temporary, file).map_err(failed(file, "replace it")));
    if replaced.is_err() {
        // Half a file is of no use to anybody; that it cannot be removed, either, is not news.
        let _ = fs::remove_file(&temporary);
    }
    replaced?;
    // The rename is on the disk only once the directory is.
    sync(directory)
}

fn sync(directory: &Path) -> Result<(), Failure> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(directory, "sync the directory"))
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure { path, action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb.toml");
        for mode in [0o640, 0o644] {
            fs::write(&file, "old").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            replace(&file, b"new", &file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "new");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn what_cannot_be_replaced_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb.toml");
        fs::write(&file, "old").unwrap();
        // A directory in the way of the temporary file stands for every reason why it cannot be written.
        fs::create_dir(directory.path().join("lb.toml.new")).unwrap();
        let error = replace(&file, b"new", &file).unwrap_err().to_string();
        assert!(error.contains("lb.toml.new: cannot write it: "), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }

    #[test]
    fn own_files_are_nobody_elses_business() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("var/lib/lb");
        keep(&state, "a.json", b"{}").unwrap();
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            fs::metadata(state.join("a.json")).unwrap().permissions().mode() & 0o777,
            0o600
        );
        remove(&state, "a.json").unwrap();
        remove(&state, "a.json").unwrap();
        assert!(!state.join("a.json").exists());
    }
}
