//! An applied configuration that waits to be confirmed, and comes back to what was before if it is not. It is written to the
//! state directory before the configuration file is replaced, so that whatever kills the daemon in between, the next start
//! knows what to do: go on waiting, or take it back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::persisted::{BackendOverride, Overrides, PersistError};
use crate::whole_file::{self, Failure};

/// The file's name within the state directory.
pub const FILE: &str = "unconfirmed.json";
/// Raised when the file's meaning changes.
const VERSION: u32 = 1;
/// What the name of the text that was taken back ends in.
const TAKEN_BACK: &str = "rolled-back";
/// What the name of the text from before an apply ends in.
const PREVIOUS: &str = "previous";
/// `daemon.state_directory`, if the file has none.
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/lb";

/// What there is to confirm, and what to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    version: u32,
    /// The configuration file, no symbolic link.
    pub file: PathBuf,
    /// The text that was in force before.
    pub before: String,
    /// The text that was applied.
    pub applied: String,
    /// When that is taken back.
    pub until: Moment,
    /// The overrides that meant nothing any more with what was applied.
    overrides: Vec<Dropped>,
}

/// An override as it was, and as it became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dropped {
    service: String,
    backend: String,
    was: Option<BackendOverride>,
    became: Option<BackendOverride>,
}

/// Why it could not be read, kept or carried out.
#[derive(Debug, thiserror::Error)]
pub enum PendingError {
    /// The operating system refused.
    #[error("{0}; check who owns it and that its disk is neither full nor read-only")]
    File(#[from] Failure),
    /// The file is there but makes no sense.
    #[error(
        "{}: cannot understand it: {problem}; it says how to take back a configuration that nobody confirmed: look at it, then \
         move it away to keep the configuration file as it is",
        path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The overrides could not be put back.
    #[error(transparent)]
    Overrides(#[from] PersistError),
}

impl Pending {
    /// Of a configuration that is about to be applied.
    pub fn new(file: PathBuf, before: String, applied: String, until: Moment) -> Self {
        Self {
            version: VERSION,
            file,
            before,
            applied,
            until,
            overrides: Vec::new(),
        }
    }

    /// Remembers the overrides that applying it changes.
    #[must_use]
    pub fn with_overrides(mut self, was: &Overrides, becomes: &Overrides) -> Self {
        let names = |overrides: &Overrides| -> Vec<(String, String)> {
            let of =
                |(service, backends): (&String, &std::collections::BTreeMap<String, BackendOverride>)| {
                    let names = backends.keys().map(|backend| (service.clone(), backend.clone()));
                    names.collect::<Vec<_>>()
                };
            overrides.backends.iter().flat_map(of).collect()
        };
        let mut all = [names(was), names(becomes)].concat();
        all.sort();
        all.dedup();
        let dropped = all.into_iter().map(|(service, backend)| Dropped {
            was: was.get(&service, &backend).cloned(),
            became: becomes.get(&service, &backend).cloned(),
            service,
            backend,
        });
        self.overrides = dropped.filter(|it| it.was != it.became).collect();
        self
    }

    /// The overrides as they are now, but for those that applying it changed and nobody has changed since: these are as they
    /// were.
    pub fn overrides_before(&self, now: &Overrides) -> Overrides {
        let mut overrides = now.clone();
        for dropped in &self.overrides {
            if now.get(&dropped.service, &dropped.backend) == dropped.became.as_ref() {
                overrides.set(&dropped.service, &dropped.backend, dropped.was.clone());
            }
        }
        overrides
    }

    /// What waits to be confirmed; `None`: nothing does.
    ///
    /// # Errors
    /// The file cannot be read or makes no sense: both are the operator's to repair.
    pub fn load(directory: &Path) -> Result<Option<Self>, PendingError> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(PendingError::File(Failure {
                    path,
                    action: "read it",
                    source,
                }));
            }
        };
        let broken = |problem: String| PendingError::Broken {
            path: path.clone(),
            problem,
        };
        let pending: Self = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        if pending.version != VERSION {
            return Err(broken(format!(
                "it is of version {} and this lbd writes version {VERSION}",
                pending.version
            )));
        }
        Ok(Some(pending))
    }

    /// Keeps it over a restart.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn save(&self, directory: &Path) -> Result<(), PendingError> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Failure {
            path: directory.join(FILE),
            action: "encode it",
            source: error.into(),
        })?;
        Ok(whole_file::keep(directory, FILE, &text)?)
    }

    /// Forgets whatever waits to be confirmed.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn forget(directory: &Path) -> Result<(), PendingError> {
        Ok(whole_file::remove(directory, FILE)?)
    }

    /// Puts the text from before back into the configuration file. Returns where the one that was there is now, if it was
    /// another one: it may have been edited since it was applied.
    ///
    /// # Errors
    /// When the operating system refuses; the file is as it was.
    pub fn restore(&self) -> Result<Option<PathBuf>, PendingError> {
        Ok(exchange(&self.file, &self.before, TAKEN_BACK)?)
    }
}

/// Replaces the text of the configuration file. Returns where the one that was there is kept, if it was another one.
///
/// # Errors
/// When the operating system refuses; the file is as it was.
pub fn exchange_applied(file: &Path, text: &str) -> Result<Option<PathBuf>, Failure> {
    exchange(file, text, PREVIOUS)
}

fn exchange(file: &Path, text: &str, kept_as: &str) -> Result<Option<PathBuf>, Failure> {
    let present = match fs::read(file) {
        Ok(present) => Some(present),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            return Err(Failure {
                path: file.to_owned(),
                action: "read it",
                source,
            });
        }
    };
    if present.as_deref() == Some(text.as_bytes()) {
        return Ok(None);
    }
    let mut kept = file.as_os_str().to_owned();
    kept.push(".");
    kept.push(kept_as);
    let kept = PathBuf::from(kept);
    if let Some(present) = &present {
        whole_file::replace(&kept, present, file)?;
    }
    whole_file::replace(file, text.as_bytes(), file)?;
    Ok(present.map(|_| kept))
}

/// To be called before the daemon reads its configuration: takes back what waited to be confirmed and whose time is over.
/// Returns what was done, for the log; what could not be done the running daemon tries again.
///
/// # Errors
/// What is kept makes no sense.
pub fn at_start(config: &Path, now: Moment) -> Result<Option<String>, PendingError> {
    match take_back(config, now) {
        Err(PendingError::File(failure)) => Ok(Some(format!(
            "{}: what was applied was not confirmed in time and cannot be taken back yet: {failure}",
            config.display()
        ))),
        other => other,
    }
}

fn take_back(config: &Path, now: Moment) -> Result<Option<String>, PendingError> {
    // What cannot be read has its own, better error a moment later.
    let Ok(file) = fs::canonicalize(config) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&file).unwrap_or_default();
    let directory = state_directory(&text, config);
    let Some(pending) = Pending::load(&directory)? else {
        return Ok(None);
    };
    if pending.file != file {
        // Another configuration that shares the state directory; not this one's business.
        return Ok(None);
    }
    if text == pending.before {
        // Killed before the file was replaced, or after it was put back.
        put_back(&pending, &directory)?;
        return Ok(Some(format!(
            "{}: the change that was not confirmed is not in force",
            file.display()
        )));
    }
    if !pending.until.is_past(now) {
        return Ok(None);
    }
    let kept = pending.restore()?;
    put_back(&pending, &directory)?;
    let kept = kept.map_or_else(String::new, |kept| {
        format!("; what was applied is in {}", kept.display())
    });
    Ok(Some(format!(
        "{}: what was applied was not confirmed in time, the configuration from before is back{kept}",
        file.display()
    )))
}

/// The overrides, then that there is nothing to confirm any more.
fn put_back(pending: &Pending, directory: &Path) -> Result<(), PendingError> {
    let overrides = Overrides::load(directory)?;
    let before = pending.overrides_before(&overrides);
    if before != overrides {
        before.save(directory)?;
    }
    Pending::forget(directory)
}

/// Where a configuration keeps its state, also one that would not be accepted: what was applied may be what is wrong.
fn state_directory(text: &str, config: &Path) -> PathBuf {
    let table: Option<toml::Table> = text.parse().ok();
    let named = table
        .as_ref()
        .and_then(|table| table.get("daemon")?.get("state_directory")?.as_str())
        .unwrap_or(DEFAULT_STATE_DIRECTORY);
    config.parent().unwrap_or(Path::new("")).join(named)
}

#[cfg(test)]
mod tests;
