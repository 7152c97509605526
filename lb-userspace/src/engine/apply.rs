//! Configurations that are put in force: the file as it is (reload), another one in its place (apply), and the one from before
//! (rollback). Whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fresh::{Fresh, forced};
use super::planning::{Force, Planned};
use super::{Engine, leaving_vips, targets};
use crate::api::Refusal;
use crate::api::types::{Applied, ApplyRequest, Confirmed, Reloaded, RolledBack};
use crate::config::{self, ThisHost, limits};
use crate::failpoint::{self, Failpoint};
use crate::pending::{Pending, exchange_applied};
use crate::plan::Plan;
use crate::whole_file;

/// Files that are changed together with what is in force.
struct Files {
    /// The configuration file, no symbolic link.
    file: PathBuf,
    /// What was in it.
    before: Vec<u8>,
    /// What is to be in it.
    text: String,
    /// What there will be to confirm.
    pending: Option<Pending>,
}

impl Engine {
    /// Reads the file again; applies it whole or not at all.
    pub(super) async fn reload(&mut self) -> Result<Reloaded, Refusal> {
        let reloaded = self.try_reload().await;
        if let Err(refusal) = &reloaded {
            tracing::error!("reload refused, the running configuration stays: {refusal}");
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<Reloaded, Refusal> {
        let fresh = self.read()?;
        if let Some(pending) = self.ledger.pending()
            && pending.applied != fresh.text
        {
            return Err(self.waits("and the file is not what was applied"));
        }
        let planned = self.plan_for(&fresh, Force::Nobody)?;
        let (plan, _) = self.take_over(planned, None, "reload").await?;
        self.ledger.text = Some(fresh.text);
        if plan.is_empty() {
            tracing::info!("reload: nothing changed");
        }
        let changes = plan.lines();
        Ok(Reloaded { changes, plan })
    }

    /// Replaces the configuration file and puts it in force.
    pub(super) async fn apply(&mut self, request: &ApplyRequest) -> Result<Applied, Refusal> {
        let applied = self.try_apply(request).await;
        if let Err(refusal) = &applied {
            tracing::error!("apply refused, the running configuration stays: {refusal}");
        }
        applied
    }

    async fn try_apply(&mut self, request: &ApplyRequest) -> Result<Applied, Refusal> {
        if self.ledger.pending().is_some() {
            return Err(self.waits("so nothing else can be applied"));
        }
        let confirm = request.confirm_seconds.map(Duration::from_secs);
        if let Some(time) = confirm
            && !(limits::CONFIRM.least..=limits::CONFIRM.most).contains(&time)
        {
            return Err(Refusal::Invalid(format!(
                "confirm_seconds {}: the time to confirm is {}",
                time.as_secs(),
                limits::CONFIRM.words
            )));
        }
        let fresh = self.parse(&request.text)?;
        let planned = self.plan_for(&fresh, forced(request.force))?;
        let (file, before) = self.present_file()?;
        let pending = confirm.map(|time| {
            // What was in force, also if the file has been edited in its place.
            let running = self.ledger.text.clone();
            let running = running.unwrap_or_else(|| String::from_utf8_lossy(&before).into_owned());
            let until = self.ledger.now().after(time);
            Pending::new(file.clone(), running, fresh.text.clone(), until)
                .with_overrides(&self.overrides, &planned.next.overrides)
        });
        let files = Files {
            file: file.clone(),
            before,
            text: fresh.text.clone(),
            pending: pending.clone(),
        };
        let (plan, kept) = self.take_over(planned, Some(files), "apply").await?;
        self.ledger.text = Some(fresh.text);
        self.ledger.set_pending(pending);
        let unconfirmed = self.ledger.unconfirmed();
        if let Some(time) = confirm {
            let time = humantime::format_duration(time);
            tracing::info!(
                "apply: unless it is confirmed within {time}, the configuration from before comes back"
            );
        }
        Ok(Applied {
            plan,
            file: file.display().to_string(),
            kept: kept.map(|kept| kept.display().to_string()),
            unconfirmed,
        })
    }

    /// Keeps what waits to be confirmed.
    pub(super) fn confirm(&mut self) -> Result<Confirmed, Refusal> {
        let Some(pending) = self.ledger.pending() else {
            return Err(Refusal::Conflict(
                "there is nothing to confirm: what was applied, if anything, was not to be confirmed, was confirmed, or was \
                 taken back (see the log)"
                    .to_owned(),
            ));
        };
        let file = pending.file.display().to_string();
        Pending::forget(&self.file.daemon.state_directory)
            .map_err(|error| Refusal::Failed(format!("not confirmed: {error}")))?;
        self.ledger.set_pending(None);
        tracing::info!("confirmed: {file} stays as it was applied");
        Ok(Confirmed { file })
    }

    /// Takes back what waits to be confirmed.
    pub(super) async fn rollback(&mut self) -> Result<RolledBack, Refusal> {
        let Some(pending) = self.ledger.pending().cloned() else {
            return Err(Refusal::Conflict(format!(
                "there is nothing to roll back: nothing that was applied waits to be confirmed; the file from before the last \
                 apply is kept as {}.previous, and can be applied as any other",
                self.file.file.display()
            )));
        };
        let unusable = |why: &dyn std::fmt::Display| {
            Refusal::Failed(format!("cannot go back to the configuration from before: {why}"))
        };
        let config =
            config::parse(&pending.before, &self.file.file, &ThisHost).map_err(|error| unusable(&error))?;
        let fresh = Fresh {
            name: pending.file.clone(),
            config,
            text: pending.before.clone(),
        };
        let overrides = pending.overrides_before(&self.overrides);
        let planned = match self.plan_with(&fresh, &overrides, Force::Nobody) {
            Ok(planned) => planned,
            Err(error) => {
                // Going back must not depend on what was done by hand meanwhile.
                tracing::error!(%error, "backends that were added by hand do not go together with what was before: forgotten");
                self.plan_with(&fresh, &overrides.without_added(), Force::Nobody)
                    .map_err(|error| unusable(&error))?
            }
        };
        // What clients get matters more than what the file says: that can be made up for.
        let restored = pending.restore();
        let (plan, _) = self.take_over(planned, None, "rollback").await?;
        self.ledger.text = Some(fresh.text);
        let directory = &self.file.daemon.state_directory;
        let kept = restored
            .and_then(|kept| Pending::forget(directory).map(|()| kept))
            .map_err(|error| {
                Refusal::Failed(format!(
                    "the configuration from before is in force again, but not in the file, which lbd goes on trying: {error}"
                ))
            })?;
        self.ledger.set_pending(None);
        Ok(RolledBack {
            plan,
            file: pending.file.display().to_string(),
            kept: kept.map(|kept| kept.display().to_string()),
        })
    }

    /// Takes back by itself what nobody has confirmed.
    pub(super) async fn take_back(&mut self) {
        tracing::warn!(
            "what was applied was not confirmed in time: going back to the configuration from before"
        );
        match self.rollback().await {
            Ok(back) => {
                let kept = back.kept.unwrap_or_default();
                tracing::warn!(file = back.file, kept, "the configuration from before is back");
            }
            Err(error) => {
                self.ledger.try_again_later();
                tracing::error!(%error, "tried again in a moment");
            }
        }
    }

    fn waits(&self, so: &str) -> Refusal {
        let left = self.ledger.unconfirmed().map_or(0, |it| it.seconds_left);
        Refusal::Conflict(format!(
            "an applied configuration waits to be confirmed, for {left} s yet, {so}: first `lbctl confirm` it, or `lbctl \
             rollback`"
        ))
    }

    /// The configuration file, whatever links lead to it, with its bytes.
    fn present_file(&self) -> Result<(PathBuf, Vec<u8>), Refusal> {
        let named = &self.file.file;
        let file = fs::canonicalize(named).and_then(|file| Ok((fs::read(&file)?, file)));
        file.map(|(bytes, file)| (file, bytes)).map_err(|error| {
            Refusal::Failed(format!(
                "{}: cannot be read, so that it could not be put back: {error}; nothing was changed",
                named.display()
            ))
        })
    }

    /// VIPs, files, one flip of the tables, probes: in this order, and back again if one of the first two fails. Returns where
    /// the text is kept that was in the configuration file.
    async fn take_over(
        &mut self,
        planned: Planned,
        files: Option<Files>,
        why: &str,
    ) -> Result<(Plan, Option<PathBuf>), Refusal> {
        let nothing =
            |error: &dyn std::fmt::Display| Refusal::Failed(format!("nothing was changed: {error}"));
        let next = &planned.next;
        failpoint::reach(Failpoint::ReloadComputed);
        let leaving = leaving_vips(&next.identities);
        self.vips
            .set(&next.file.services, &leaving)
            .await
            .map_err(|error| nothing(&error))?;
        failpoint::reach(Failpoint::ReloadVipsSet);
        let directory = self.file.daemon.state_directory.clone();
        let save = || match next.overrides == self.overrides {
            true => Ok(()),
            false => next.overrides.save(&directory).map_err(|error| error.to_string()),
        };
        let written = match &files {
            Some(files) => files.write(&directory, save),
            None => save().map(|()| None),
        };
        let kept = match written {
            Ok(kept) => kept,
            Err(error) => {
                let leaving = leaving_vips(&self.identities);
                if let Err(error) = self.vips.set(&self.file.services, &leaving).await {
                    tracing::error!(%error, "cannot put the VIPs back as they were");
                }
                return Err(nothing(&error));
            }
        };
        failpoint::reach(Failpoint::ReloadSaved);
        let plan = self.put_in_force(planned, why);
        failpoint::reach(Failpoint::ReloadDone);
        // A file that the configuration only names, such as a CA's, may have changed as well.
        self.monitor.set_targets(targets(&self.effective));
        self.resolve().await;
        self.reconcile();
        Ok((plan, kept))
    }
}

impl Files {
    /// Writes down what there is to confirm, then the file, then the rest; undoes it if anything fails.
    fn write(
        &self,
        directory: &Path,
        rest: impl FnOnce() -> Result<(), String>,
    ) -> Result<Option<PathBuf>, String> {
        let forget = || {
            if self.pending.is_some()
                && let Err(error) = Pending::forget(directory)
            {
                tracing::error!(%error, "what was not applied still waits to be confirmed; the next start forgets it");
            }
        };
        if let Some(pending) = &self.pending {
            pending.save(directory).map_err(|error| error.to_string())?;
        }
        let kept = exchange_applied(&self.file, &self.text).map_err(|error| {
            forget();
            error.to_string()
        })?;
        rest().inspect_err(
            |_| match whole_file::replace(&self.file, &self.before, &self.file) {
                Ok(()) => forget(),
                Err(error) => tracing::error!(%error, "cannot put the configuration file back as it was"),
            },
        )?;
        Ok(kept)
    }
}
