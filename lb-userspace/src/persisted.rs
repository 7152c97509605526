//! What was changed at run time and survives a restart of the daemon: drains, weights, backends added and removed. One
//! small JSON file in the state directory, replaced atomically; a broken one stops the daemon rather than being
//! forgotten, since a forgotten drain sends clients to a server that somebody is working on.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::types::BackendChange;
use crate::config;

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
    /// As if it had failed.
    pub disabled: bool,
    /// Instead of the file's, 0 to 256.
    pub weight: Option<u16>,
    /// Not from the file, or instead of the file's.
    pub added: Option<config::Backend>,
    /// In the file, but taken out.
    pub removed: bool,
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
        let temporary = directory.join(format!("{FILE}.new"));
        let written = Written {
            version: VERSION,
            backends: &self.backends,
        };
        let mut text =
            serde_json::to_vec_pretty(&written).map_err(|error| failed(&path, "encode it")(error.into()))?;
        text.push(b'\n');

        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed(directory, "make the directory"))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary);
        file.and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .map_err(failed(&temporary, "write it"))?;
        fs::rename(&temporary, &path).map_err(failed(&path, "replace it"))?;
        // The rename is on the disk only once the directory is.
        File::open(directory)
            .and_then(|file| file.sync_all())
            .map_err(failed(directory, "sync the directory"))
    }

    /// What was changed of a backend; `None`: nothing.
    pub fn get(&self, service: &str, backend: &str) -> Option<&BackendOverride> {
        self.backends.get(service)?.get(backend)
    }

    /// Changes one backend, which `in_file` says is in the configuration file or not. Whether that makes sense (the
    /// backend exists, is not removed already) is the caller's to judge. Returns whether anything is different now.
    pub fn apply_change(
        &mut self,
        service: &str,
        backend: &str,
        change: BackendChange,
        in_file: bool,
    ) -> bool {
        self.edit(service, backend, |entry| match change {
            BackendChange::Drain => entry.drained = true,
            BackendChange::Undrain => entry.drained = false,
            BackendChange::Disable => entry.disabled = true,
            BackendChange::Enable => entry.disabled = false,
            BackendChange::Weight(weight) => entry.weight = weight,
            BackendChange::Remove => {
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn backend(name: &str, weight: u16) -> config::Backend {
        config::Backend {
            name: name.to_owned(),
            address: "198.18.1.2".parse().unwrap(),
            port: 443.try_into().unwrap(),
            weight,
        }
    }

    fn many() -> Overrides {
        let mut overrides = Overrides::default();
        overrides.apply_change("www", "web1", BackendChange::Drain, true);
        overrides.apply_change("www", "web2", BackendChange::Weight(Some(256)), true);
        overrides.apply_change("www", "web3", BackendChange::Remove, true);
        overrides.apply_change("api", "web1", BackendChange::Disable, true);
        overrides.apply_add("api", &backend("web9", 7), None);
        overrides
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("var/lib/lb");
        assert_eq!(Overrides::load(&state).unwrap(), Overrides::default());
        for overrides in [many(), Overrides::default(), many()] {
            overrides.save(&state).unwrap();
            assert_eq!(Overrides::load(&state).unwrap(), overrides);
        }
        let names: Vec<_> = fs::read_dir(&state)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [FILE], "nothing is left behind");
        assert_eq!(
            fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_crash_in_the_middle_of_a_save_leaves_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        many().save(directory.path()).unwrap();
        fs::write(directory.path().join("overrides.json.new"), "{\"vers").unwrap();
        assert_eq!(Overrides::load(directory.path()).unwrap(), many());
        Overrides::default().save(directory.path()).unwrap();
        assert_eq!(Overrides::load(directory.path()).unwrap(), Overrides::default());
    }

    #[test]
    fn every_truncation_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        many().save(directory.path()).unwrap();
        let whole = fs::read(&file).unwrap();
        // Without the final newline it is still whole.
        for length in 0..whole.len() - 1 {
            fs::write(&file, &whole[..length]).unwrap();
            let error = Overrides::load(directory.path()).unwrap_err();
            assert!(
                matches!(error, PersistError::Broken { .. }),
                "{length} bytes: {error}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        let cases = [
            ("", "EOF"),
            ("\0\0\0\0", "expected value"),
            ("{}", "missing field `version`"),
            (r#"{"version":1}"#, "missing field `backends`"),
            (
                r#"{"version":2,"backends":[1]}"#,
                "version 2 and this lbd writes version 1",
            ),
            (
                r#"{"version":1,"backends":{"www":{"web1":{"draind":true}}}}"#,
                "unknown field `draind`",
            ),
            (
                r#"{"version":1,"backends":{"www":{"web1":{"weight":70000}}}}"#,
                "70000",
            ),
            (r#"{"version":1,"backends":{}}{}"#, "trailing characters"),
        ];
        for (text, problem) in cases {
            fs::write(&file, text).unwrap();
            let message = Overrides::load(directory.path()).unwrap_err().to_string();
            assert!(message.contains(problem), "{text}: {message}");
            assert!(
                message.contains(file.to_str().unwrap()) && message.contains("move it away"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_save_that_fails_says_where_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        many().save(directory.path()).unwrap();
        fs::create_dir(directory.path().join("overrides.json.new")).unwrap();
        let error = Overrides::default().save(directory.path()).unwrap_err();
        assert!(
            error.to_string().contains("overrides.json.new: cannot write it"),
            "{error}"
        );
        assert_eq!(Overrides::load(directory.path()).unwrap(), many());
    }

    #[test]
    fn changes() {
        use BackendChange::{Disable, Drain, Enable, Remove, Undrain, Weight};
        let none = BackendOverride::default;
        let drained = || BackendOverride {
            drained: true,
            ..none()
        };
        let added = || BackendOverride {
            added: Some(backend("web1", 1)),
            ..none()
        };
        let removed = || BackendOverride {
            removed: true,
            ..none()
        };
        let weight = |weight| BackendOverride {
            weight: Some(weight),
            ..none()
        };
        let both = || BackendOverride {
            drained: true,
            disabled: true,
            ..none()
        };
        // (purpose, before, change, in the file, after)
        let cases = [
            ("drain", none(), Drain, true, drained()),
            ("drain again", drained(), Drain, true, drained()),
            ("undrain", drained(), Undrain, true, none()),
            ("undrain what is not drained", none(), Undrain, true, none()),
            ("disable keeps the drain", drained(), Disable, true, both()),
            ("enable keeps the drain", both(), Enable, true, drained()),
            ("weight", none(), Weight(Some(3)), true, weight(3)),
            (
                "weight 0 is an override as well",
                none(),
                Weight(Some(0)),
                true,
                weight(0),
            ),
            ("another weight", weight(3), Weight(Some(4)), true, weight(4)),
            ("the file's weight", weight(3), Weight(None), true, none()),
            ("remove one of the file's", both(), Remove, true, removed()),
            ("remove an added one", added(), Remove, false, none()),
            (
                "remove an added one that the file has too",
                added(),
                Remove,
                true,
                removed(),
            ),
        ];
        for (purpose, before, change, in_file, after) in cases {
            let mut overrides = Overrides::default();
            overrides.edit("www", "web1", |entry| *entry = before.clone());
            let changed = overrides.apply_change("www", "web1", change, in_file);
            assert_eq!(changed, before != after, "{purpose}");
            assert_eq!(
                overrides.get("www", "web1").cloned().unwrap_or_default(),
                after,
                "{purpose}"
            );
            assert_eq!(
                overrides.backends.is_empty(),
                after == none(),
                "{purpose}: no empty entry stays"
            );
        }
    }

    #[test]
    fn additions() {
        let file = backend("web1", 1);
        let other = backend("web1", 2);
        let mut overrides = Overrides::default();
        assert!(overrides.apply_add("www", &other, None));
        assert!(!overrides.apply_add("www", &other, None), "nothing new");
        overrides.apply_change("www", "web1", BackendChange::Drain, false);
        assert!(overrides.apply_add("www", &other, None), "afresh");
        assert!(!overrides.get("www", "web1").unwrap().drained);

        overrides.apply_change("www", "web1", BackendChange::Remove, true);
        assert!(
            overrides.apply_add("www", &file, Some(&file)),
            "the file's own comes back"
        );
        assert_eq!(overrides, Overrides::default());
    }

    #[test]
    fn in_words() {
        let file = backend("web1", 1);
        let mut entry = BackendOverride {
            drained: true,
            disabled: true,
            weight: Some(3),
            ..BackendOverride::default()
        };
        assert_eq!(
            entry.describe(Some(&file)),
            ["drain", "disable", "weight 3 (file: 1)"]
        );
        entry = BackendOverride {
            added: Some(file.clone()),
            weight: Some(3),
            ..BackendOverride::default()
        };
        assert_eq!(entry.describe(None), ["added", "weight 3 (added with: 1)"]);
        assert_eq!(entry.describe(Some(&file))[0], "added (instead of the file's)");
        assert!(BackendOverride::default().describe(Some(&file)).is_empty());
    }
}
