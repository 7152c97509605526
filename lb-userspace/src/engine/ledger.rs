//! What the engine remembers about changes: the text that is in force, and what waits to be confirmed.

use std::fs;
use std::time::Duration;

use crate::api::types::Unconfirmed;
use crate::config::Config;
use crate::moment::{Clock, HostClock, Moment};
use crate::pending::{Pending, PendingError};

/// Until the next attempt to take back what could not be taken back.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// The time, the text, and what waits.
pub(super) struct Ledger {
    clock: Box<dyn Clock>,
    /// The text of the configuration file that is in force; `None`: it could not be read a second time at the start.
    pub(super) text: Option<String>,
    pending: Option<Pending>,
    not_before: Option<Moment>,
}

impl Ledger {
    /// That of a configuration that has just been read.
    pub(super) fn open(file: &Config) -> Result<Self, PendingError> {
        let path = fs::canonicalize(&file.file).ok();
        let (pending, others) = match Pending::load(&file.daemon.state_directory)? {
            Some(pending) if Some(&pending.file) != path.as_ref() => (None, Some(pending.file)),
            pending => (pending, None),
        };
        if let Some(other) = others {
            tracing::warn!(
                "{} was applied and waits to be confirmed, but lbd was started with {}: nothing is taken back",
                other.display(),
                file.file.display()
            );
        }
        Ok(Self {
            clock: Box::new(HostClock::new()),
            text: fs::read_to_string(&file.file).ok(),
            pending,
            not_before: None,
        })
    }

    /// The time.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// What waits to be confirmed.
    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// From now on this waits, or nothing does.
    pub(super) fn set_pending(&mut self, pending: Option<Pending>) {
        (self.pending, self.not_before) = (pending, None);
    }

    /// Whether it is time to take back what waits.
    pub(super) fn is_over(&self) -> bool {
        let now = self.now();
        let over = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.until.is_past(now));
        over && self.not_before.is_none_or(|not_before| not_before.is_past(now))
    }

    /// It could not be taken back now.
    pub(super) fn try_again_later(&mut self) {
        self.not_before = Some(self.now().after(TRY_AGAIN));
    }

    /// What waits, as it is shown.
    pub(super) fn unconfirmed(&self) -> Option<Unconfirmed> {
        let pending = self.pending.as_ref()?;
        Some(Unconfirmed {
            file: pending.file.display().to_string(),
            seconds_left: pending.until.left(self.now()).as_secs_f64().ceil() as u64,
        })
    }
}
