//! The archive that a kernel unpacks into its memory before it starts the first process: cpio in the "newc" format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel's sources).

use std::collections::BTreeSet;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// Files, with the directories that lead to them, all root's.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    there: BTreeSet<String>,
}

impl Archive {
    /// Adds an empty directory, and those above it.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above)?;
        }
        if path.is_empty() || !self.there.insert(path.to_owned()) {
            return Ok(());
        }
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds a file that anybody may run, unless there is one of that name.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above)?;
        }
        if !self.there.insert(path.to_owned()) {
            return Ok(());
        }
        self.entry(path, FILE, content)
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is larger than 4 GiB"))?;
        let name = u32::try_from(path.len() + 1).context("a path is too long")?;
        // Inode, mode, owner, group, links, time, size, two device numbers twice, length of the name, checksum (unused).
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    fn archive() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file("/init", b"first").unwrap();
        archive.file("/lib/deep/down", &[7; 4097]).unwrap();
        archive.file("lib/deep/empty", b"").unwrap();
        archive.file("/init", b"second").unwrap();
        archive.directory("/proc").unwrap();
        archive.end().unwrap()
    }

    #[test]
    fn each_entry_is_there_once_and_aligned() {
        let bytes = archive();
        let text = String::from_utf8_lossy(&bytes);
        // /init, /lib, /lib/deep, two files in it, /proc, the trailer.
        assert_eq!(text.matches("070701").count(), 7);
        assert!(text.contains("first") && !text.contains("second"));
        let starts = text.match_indices("070701").map(|(at, _)| at);
        assert!(starts.into_iter().all(|at| at % 4 == 0));
    }

    #[test]
    fn cpio_can_read_it() {
        let Some(cpio) = crate::process::find("cpio") else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(cpio)
            .args(["--extract", "--quiet", "--no-absolute-filenames"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(fs::read(directory.path().join("init")).unwrap(), b"first");
        assert_eq!(
            fs::read(directory.path().join("lib/deep/down")).unwrap(),
            [7; 4097]
        );
        assert!(directory.path().join("proc").is_dir());
    }
}
