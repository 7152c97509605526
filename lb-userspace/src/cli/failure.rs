//! How a command fails, and the exit status of each way.

use std::io;

use axum::http::StatusCode;

use crate::api::client::ClientError;
use crate::config::ConfigError;

/// The end of `lbctl --help`; keep it the same as [`Failure::exit_status`].
pub(super) const EXIT_STATUSES: &str = "\
Exit status:
  0  success
  1  lbd refused or failed
  2  bad usage
  3  lbd is not running, does not answer, or there is no permission to talk to it
  4  there is nothing of that name
  5  the configuration is refused; what is running was left as it is (reload, plan, apply, config check)
  6  gave up waiting (backend drain --wait)
  7  something on this host is to be mended (doctor)

Examples:
  lbctl status
  lbctl backend drain web1 --wait
  lbctl --json connection list --service www | jq .total";

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The daemon refused or did not answer.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// `config check` found something.
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    /// There is nothing of that name.
    #[error("{0}")]
    Unknown(String),
    /// The command was carried out, but what it was for was not reached.
    #[error("{0}")]
    Failed(String),
    /// What was waited for did not happen in time.
    #[error("{0}")]
    GaveUp(String),
    /// `doctor` found something.
    #[error("{0}")]
    Unwell(String),
    /// This process failed, most likely at printing.
    #[error("cannot write the output: {0}")]
    Io(#[from] io::Error),
}

impl Failure {
    /// The one place that decides it.
    pub(super) fn exit_status(&self) -> u8 {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Daemon(
                ClientError::NotRunning { .. } | ClientError::Denied { .. } | ClientError::Silent { .. },
            ) => 3,
            Self::Daemon(ClientError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            })
            | Self::Unknown(_) => 4,
            Self::Daemon(ClientError::Refused {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                ..
            })
            | Self::Configuration(_) => 5,
            Self::GaveUp(_) => 6,
            Self::Unwell(_) => 7,
            Self::Daemon(_) | Self::Failed(_) | Self::Io(_) => 1,
        }
    }

    /// Whoever reads our output has had enough (`| head`): no failure.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
