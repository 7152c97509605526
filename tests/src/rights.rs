//! What processes may do, as `/proc` tells, next to what the documentation says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lb::privileges::{DAEMON, SITE_WORKER};

/// The sets of capabilities(7) of a thread, as masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// What it can do.
    pub effective: u64,
    /// What it could do.
    pub permitted: u64,
    /// What it passes on to programs with file capabilities.
    pub inheritable: u64,
    /// What it passes on to others.
    pub ambient: u64,
    /// What nothing that it runs can go beyond.
    pub bounding: u64,
    /// Whether set-user-ID programs give nothing any more.
    pub no_new_privileges: bool,
}

impl Rights {
    /// Of one thread: `/proc/PID/task/TID`.
    fn of(thread: &Path) -> Result<Self> {
        let status = fs::read_to_string(thread.join("status"))?;
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
                .with_context(|| format!("no {name} in {}", thread.display()))
        };
        let mask = |name| anyhow::Ok(u64::from_str_radix(field(name)?, 16)?);
        Ok(Self {
            effective: mask("CapEff")?,
            permitted: mask("CapPrm")?,
            inheritable: mask("CapInh")?,
            ambient: mask("CapAmb")?,
            bounding: mask("CapBnd")?,
            no_new_privileges: field("NoNewPrivs")? == "1",
        })
    }

    /// Of each thread of a process: `/proc/PID`.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of_all_threads(process: &Path) -> Result<Vec<Self>> {
        fs::read_dir(process.join("task"))?
            .map(|thread| Self::of(&thread?.path()))
            .collect()
    }
}

/// Checks that every thread of `lbd` (`/proc/PID`) has what it is said to keep, and nothing else.
///
/// # Errors
/// It has not.
pub fn are_the_daemons(process: &Path) -> Result<()> {
    let wanted = mask(&DAEMON.map(|(it, _)| it.index()));
    let documented = Rights {
        effective: wanted,
        permitted: wanted,
        inheritable: 0,
        ambient: 0,
        bounding: wanted,
        no_new_privileges: true,
    };
    let threads = Rights::of_all_threads(process)?;
    ensure!(threads.len() > 1, "lbd has one thread: was it read too early?");
    ensure!(
        threads.iter().all(|rights| *rights == documented),
        "lbd has {threads:x?} instead of {documented:x?}"
    );
    Ok(())
}

/// Checks that the site worker has, of what it could have, what it is said to keep; `could` is the mask of what `lbd` was
/// started with.
///
/// # Errors
/// It has not.
pub fn are_the_site_workers(process: &Path, could: u64) -> Result<()> {
    let wanted = mask(&SITE_WORKER.map(|(it, _)| it.index())) & could;
    for rights in Rights::of_all_threads(process)? {
        let has = [rights.effective, rights.permitted, rights.bounding];
        ensure!(
            has == [wanted; 3] && (rights.inheritable, rights.ambient) == (0, 0),
            "the site worker has {rights:x?} instead of {wanted:x}"
        );
    }
    Ok(())
}

/// The only child of a process, as `/proc/PID` again.
///
/// # Errors
/// It has none, or several.
pub fn only_child(process: &Path) -> Result<PathBuf> {
    let mut children = Vec::new();
    for thread in fs::read_dir(process.join("task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(text.split_whitespace().map(str::to_owned));
    }
    ensure!(
        children.len() == 1,
        "{} has the children {children:?}",
        process.display()
    );
    Ok(process.with_file_name(children.concat()))
}

/// A mask of bits by their numbers.
pub fn mask(bits: &[u8]) -> u64 {
    bits.iter().map(|bit| 1 << bit).sum()
}
