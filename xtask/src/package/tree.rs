//! The files of the package, as they will be installed, with the directory `DEBIAN` beside them.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A directory that stands for `/`. Modes do not depend on the umask; owners are set by packing.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// An empty one; what was there is removed.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let tree = Self(root);
        tree.directory("")?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// Makes a directory, and those above it.
    pub(super) fn directory(&self, place: &str) -> Result<PathBuf> {
        let directory = self.0.join(place);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut inner = directory.as_path();
        while inner.starts_with(&self.0) {
            fs::set_permissions(inner, Permissions::from_mode(0o755))?;
            inner = inner.parent().unwrap_or(Path::new("/"));
        }
        Ok(directory)
    }

    /// Writes a file for everybody to read.
    pub(super) fn write(&self, place: &str, content: &[u8]) -> Result<()> {
        let file = self.file(place)?;
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(fs::set_permissions(&file, Permissions::from_mode(0o644))?)
    }

    /// Writes a file through `gzip`, whose name tells so; without its time, so that the same gives the same.
    pub(super) fn write_compressed(&self, place: &str, content: &[u8]) -> Result<()> {
        let mut gzip = Command::new("gzip")
            .args(["-9", "-n"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start gzip")?;
        let mut input = gzip.stdin.take().context("gzip has no standard input")?;
        // It prints while it reads.
        let (written, output) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || input.write_all(content));
            let output = gzip.wait_with_output();
            (writing.join(), output)
        });
        let output = output.context("cannot read what gzip prints")?;
        if !matches!(written, Ok(Ok(()))) || !output.status.success() {
            bail!("gzip failed ({})", output.status);
        }
        self.write(place, &output.stdout)
    }

    /// Copies a file; returns where it is.
    pub(super) fn copy(&self, from: &Path, place: &str, mode: u32) -> Result<PathBuf> {
        let file = self.file(place)?;
        fs::copy(from, &file)
            .with_context(|| format!("cannot copy {} to {}", from.display(), file.display()))?;
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
        Ok(file)
    }

    fn file(&self, place: &str) -> Result<PathBuf> {
        let file = self.0.join(place);
        if let Some((directory, _)) = place.rsplit_once('/') {
            self.directory(directory)?;
        }
        Ok(file)
    }
}
