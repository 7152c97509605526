//! What a guest is to do.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A harness and what it needs. Paths are those of the host.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) harness: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// Programs that it starts.
    pub(super) tools: Vec<PathBuf>,
    /// The directory of the kernel crate's objects.
    pub(super) objects: PathBuf,
}

/// What stands in the guest's file [`TASK`]: what its first process does.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
}

/// Where the guest finds its [`Task`], as JSON.
pub(super) const TASK: &str = "/task.json";
/// Where it finds the harness.
pub(super) const HARNESS: &str = "/bin/harness";
/// The directory of kernel modules, to be loaded in the order of their names.
pub(super) const MODULES: &str = "/modules";
/// What the guest's last line begins with; the harness's exit code follows. Exit codes do not survive a machine.
pub(super) const ENDED: &str = "guest: the harness ended with ";
