//! What was changed at run time and survives a restart of the daemon: drains, weights, backends added and removed. One
//! small JSON file in the state directory, replaced atomically; a broken one stops the daemon rather than being
//! forgotten, since a forgotten drain sends clients to a server that somebody is working on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::types::BackendChange;
use crate::config;
use crate::moment::Moment;
use crate::whole_file;

/// The file's name within the state directory.
pub const FILE: &str = "overrides.json";

/// Raised when the file's meaning changes.
const VERSION: u32 = 1;

/// What was changed at run time, by service and backend. A backend that is as the file says has no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// By service name, then by backend name.
    pub backends: BTreeMap<String, BTreeMap<String, BackendOverride>>,
}

/// What was changed of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendOverride {
    /// No new connections; it keeps those it has.
    pub drained: bool,
    /// Since when, and what becomes of those that do not end; only of what is drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// As if it had failed.
    pub disabled: bool,
    /// Instead of the file's, 0 to 256.
    pub weight: Option<u16>,
    /// Not from the file, or instead of the file's.
    pub added: Option<config::Backend>,
    /// In the file, but taken out.
    pub removed: bool,
}

/// A drain by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// When it began, or its deadline was last set.
    pub since: Moment,
    /// So many seconds later what is left is reset; `None`: as the service's `drain_timeout` says.
    pub deadline_seconds: Option<u64>,
}

impl Drain {
    /// When what is left is reset; `None`: never.
    pub fn until(self, drain_timeout: Option<Duration>) -> Option<Moment> {
        let time = self.deadline_seconds.map(Duration::from_secs).or(drain_timeout)?;
        Some(self.since.after(time))
    }
}

/// Why overrides could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The operating system refused.
    #[error(
        "{path}: cannot {action}: {source}; check who owns daemon.state_directory and that its disk is not full"
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The file is there but makes no sense.
    #[error(
        "{path}: cannot understand it: {problem}; it holds the drains, weights and backends that were set with lbctl: \
         repair it, or move it away to start with what the configuration file says"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The file as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<T> {
    version: u32,
    backends: T,
}

type Backends = BTreeMap<String, BTreeMap<String, BackendOverride>>;

impl Overrides {
    /// Reads the overrides kept in `directory`; none if there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read or makes no sense: both are the operator's to repair.
    pub fn load(directory: &Path) -> Result<Self, PersistError> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(&path, "read it")(error)),
        };
        let broken = |problem: String| PersistError::Broken {
            path: path.clone(),
            problem,
        };
        // The version first: another version's backends need not look like ours.
        let Written { version, .. } = serde_json::from_slice::<Written<serde::de::IgnoredAny>>(&text)
            .map_err(|e| broken(e.to_string()))?;
        if version != VERSION {
            return Err(broken(format!(
                "it is of version {version} and this lbd writes version {VERSION}"
            )));
        }
        let written: Written<Backends> =
            serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            backends: written.backends,
        })
    }

    /// Writes the overrides to `directory` (made, 0700, if need be). After a crash at any moment the file is the old one
    /// or the new one, whole.
    ///
    /// # Errors
    /// When the operating system refuses; the old file is then as it was.
    pub fn save(&self, directory: &Path) -> Result<(), PersistError> {
        let path = directory.join(FILE);
        let written = Written {
            version: VERSION,
            backends: &self.backends,
        };
        let mut text =
            serde_json::to_vec_pretty(&written).map_err(|error| failed(&path, "encode it")(error.into()))?;
        text.push(b'\n');
        whole_file::keep(directory, FILE, &text)
            .map_err(|whole_file::Failure { path, action, source }| PersistError::Io { path, action, source })
    }

    /// What was changed of a backend; `None`: nothing.
    pub fn get(&self, service: &str, backend: &str) -> Option<&BackendOverride> {
        self.backends.get(service)?.get(backend)
    }

    /// Changes one backend, which `in_file` says is in the configuration file or not. Whether that makes sense (the
    /// backend exists, is not removed already) is the caller's to judge; `now` is when a drain begins. Returns whether anything is different now.
    pub fn apply_change(
        &mut self,
        service: &str,
        backend: &str,
        change: BackendChange,
        in_file: bool,
        now: Moment,
    ) -> bool {
        self.edit(service, backend, |entry| match change {
            BackendChange::Drain { deadline_seconds } => {
                // Whoever says it again without a deadline means the drain that there is.
                if !entry.drained || deadline_seconds.is_some() {
                    entry.drain = Some(Drain {
                        since: now,
                        deadline_seconds,
                    });
                }
                entry.drained = true;
            }
            BackendChange::Undrain => (entry.drained, entry.drain) = (false, None),
            BackendChange::Disable => entry.disabled = true,
            BackendChange::Enable => entry.disabled = false,
            BackendChange::Weight(weight) => entry.weight = weight,
            BackendChange::Remove { .. } => {
                *entry = BackendOverride {
                    removed: in_file,
                    ..BackendOverride::default()
                }
            }
        })
    }

    /// Adds a backend, afresh: no drain or weight of an earlier one of its name remains. One that `in_file` already
    /// describes just comes back. Returns whether anything is different now.
    pub fn apply_add(
        &mut self,
        service: &str,
        backend: &config::Backend,
        in_file: Option<&config::Backend>,
    ) -> bool {
        let added = (in_file != Some(backend)).then(|| backend.clone());
        self.edit(service, &backend.name, |entry| {
            *entry = BackendOverride {
                added,
                ..BackendOverride::default()
            }
        })
    }

    /// The same without the backends that were added.
    #[must_use]
    pub fn without_added(&self) -> Self {
        let mut overrides = self.clone();
        for changes in overrides.backends.values_mut() {
            changes.retain(|_, change| change.added.is_none());
        }
        overrides.backends.retain(|_, changes| !changes.is_empty());
        overrides
    }

    /// Makes what was changed of one backend this.
    pub fn set(&mut self, service: &str, backend: &str, change: Option<BackendOverride>) {
        self.edit(service, backend, |entry| *entry = change.unwrap_or_default());
    }

    /// Edits one entry, keeps no empty one, and tells whether it is different now.
    fn edit(&mut self, service: &str, backend: &str, edit: impl FnOnce(&mut BackendOverride)) -> bool {
        let before = self.get(service, backend).cloned().unwrap_or_default();
        let mut after = before.clone();
        edit(&mut after);
        if after == before {
            return false;
        }
        let backends = self.backends.entry(service.to_owned()).or_default();
        if after == BackendOverride::default() {
            backends.remove(backend);
        } else {
            backends.insert(backend.to_owned(), after);
        }
        if backends.is_empty() {
            self.backends.remove(service);
        }
        true
    }
}

impl BackendOverride {
    /// In words, as the API shows them: `drain`, `weight 3 (file: 1)`; `in_file` is the backend as the configuration file
    /// has it.
    pub fn describe(&self, in_file: Option<&config::Backend>) -> Vec<String> {
        let mut words = Vec::new();
        if self.added.is_some() {
            words.push(
                if in_file.is_some() {
                    "added (instead of the file's)"
                } else {
                    "added"
                }
                .to_owned(),
            );
        }
        if self.removed {
            words.push("removed".to_owned());
        }
        if self.drained {
            words.push("drain".to_owned());
        }
        if self.disabled {
            words.push("disable".to_owned());
        }
        if let Some(weight) = self.weight {
            let otherwise = match (&self.added, in_file) {
                (Some(added), _) => format!("added with: {}", added.weight),
                (None, Some(in_file)) => format!("file: {}", in_file.weight),
                (None, None) => "not in the file".to_owned(),
            };
            words.push(format!("weight {weight} ({otherwise})"));
        }
        words
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PersistError {
    let path = path.to_owned();
    move |source| PersistError::Io { path, action, source }
}

#[cfg(test)]
mod tests;
