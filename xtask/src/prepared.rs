//! What the lab's commands need before they can do anything: programs, built as the user, and root.

use std::env;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lab::Binaries;
use crate::setup::Needs;
use crate::{ebpf, setup, sudo, userspace};

/// An option of every command that builds as the user and then starts itself again as root.
#[derive(Debug, clap::Args)]
pub struct Prepared {
    /// What has been built, as JSON: how the command tells itself when it starts itself again as root
    #[arg(long, hide = true, value_name = "JSON")]
    binaries: Option<String>,
}

impl Prepared {
    /// The programs, with this process being root. Where it is not, they are built and this process is replaced by `sudo`
    /// running the same command: building never happens as root unless one began as root.
    ///
    /// # Errors
    /// When something does not build, or there is no way to become root.
    pub fn binaries(&self) -> Result<Binaries> {
        self.built_by(build)
    }

    /// The same for a command that needs other programs: what `build` builds.
    ///
    /// # Errors
    /// Likewise.
    pub fn built_by<T: Serialize + DeserializeOwned>(&self, build: impl FnOnce() -> Result<T>) -> Result<T> {
        let binaries = match &self.binaries {
            Some(built) => serde_json::from_str(built).context("--binaries is not for use by hand")?,
            None => build()?,
        };
        if !sudo::is_root() {
            let mut again = sudo::as_root(env::current_exe()?, &[])?;
            again.args(env::args_os().skip(1));
            if self.binaries.is_none() {
                again.arg("--binaries").arg(serde_json::to_string(&binaries)?);
            }
            return Err(again.exec()).context("cannot run sudo");
        }
        Ok(binaries)
    }
}

/// Makes this process root, for a command that needs nothing built. Where it is not root, it is replaced by `sudo` running
/// the same command.
///
/// # Errors
/// When there is no way to become root.
pub fn become_root() -> Result<()> {
    if sudo::is_root() {
        return Ok(());
    }
    let mut again = sudo::as_root(env::current_exe()?, &[])?;
    Err(again.args(env::args_os().skip(1)).exec()).context("cannot run sudo")
}

/// Builds everything, and first installs what building and the lab need.
pub(crate) fn build() -> Result<Binaries> {
    setup::ensure(Needs::Lab)?;
    let options = ebpf::Options::default();
    let kernel = ebpf::build(&options)?;
    let programs = userspace::build(&options)?;
    Ok(Binaries {
        lbd: programs.lbd,
        lbctl: programs.lbctl,
        xtask: env::current_exe().context("cannot tell which file this program is")?,
        veth_pass: kernel.directory.join("veth_pass"),
        decapsulate: kernel.directory.join("decapsulate"),
    })
}
