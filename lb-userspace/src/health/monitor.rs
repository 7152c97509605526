//! A task for each backend of each service that probes it and keeps its health.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::probe::Probe;
use super::schedule::{self, Rhythm};
use super::state::{Health, Outcome, State, Status};
use crate::config;
use crate::moment::wall_clock;
use crate::task::OwnedTask;

/// A backend of a service. The same server behind two services is probed for each: their checks may differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
}

/// What to probe, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whose health it is.
    pub id: TargetId,
    /// The backend's address and port; `check.port`, where given, replaces the port for probing.
    pub address: SocketAddr,
    /// How it is probed.
    pub check: config::HealthCheck,
}

/// A change of a backend's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose.
    pub id: TargetId,
    /// Its health from now on.
    pub health: Health,
}

/// Probes all targets until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    events: UnboundedSender<Event>,
    probed: HashMap<TargetId, Probed>,
    /// What an earlier daemon knew, until the target is probed.
    known: HashMap<TargetId, (SocketAddr, Health)>,
}

impl Monitor {
    /// `events` gets every change of status; a new target begins as `Checking` without an event.
    pub fn new(events: UnboundedSender<Event>) -> Self {
        Self {
            events,
            probed: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// What was known of a target before this process: it begins with that if it is probed at the same address.
    pub fn knows(&mut self, id: TargetId, address: SocketAddr, health: Health) {
        self.known.insert(id, (address, health));
    }

    /// Makes `targets` the ones that are probed (of two with one id, the last); must be called in a tokio runtime.
    ///
    /// A target that is new, or whose address has changed, starts as `Checking`. One whose check or CA file has changed
    /// keeps its health and is probed by the new rules at once. When this returns, the tasks of targets that are gone
    /// send no more events.
    pub fn set_targets(&mut self, targets: Vec<Target>) {
        let mut files = CaFiles::default();
        let mut before = std::mem::take(&mut self.probed);
        for target in targets {
            let ca = files.read(&target.check.probe);
            let id = target.id.clone();
            let probed = match before.remove(&id) {
                Some(same) if same.target == target && same.ca == ca => same,
                Some(old) if old.target.address == target.address => {
                    let state = old.end();
                    Probed::start(target, ca, state, self.events.clone())
                }
                _ => {
                    let state = match self.known.remove(&id) {
                        Some((address, health)) if address == target.address => State::known(health),
                        _ => State::new(wall_clock()),
                    };
                    Probed::start(target, ca, state, self.events.clone())
                }
            };
            self.probed.insert(id, probed);
        }
        self.known.clear();
    }

    /// What the probes say of a target; `None`: it is none.
    pub fn health(&self, id: &TargetId) -> Option<Health> {
        match self.probed.get(id) {
            Some(probed) => Some(probed.record().state.health().clone()),
            None => self.known.get(id).map(|(_, health)| health.clone()),
        }
    }

    /// All targets, where they are probed and what is known of them; those included that are known but not probed yet.
    pub fn all(&self) -> impl Iterator<Item = (&TargetId, SocketAddr, Health)> {
        let probed = self
            .probed
            .iter()
            .map(|(id, probed)| (id, probed.target.address, probed.record().state.health().clone()));
        let known = self.known.iter();
        probed.chain(known.map(|(id, (address, health))| (id, *address, health.clone())))
    }
}

/// One target and the task that probes it.
#[derive(Debug)]
struct Probed {
    target: Target,
    ca: CaFile,
    record: Arc<Mutex<Record>>,
    _task: OwnedTask,
}

/// What the task and the monitor share.
#[derive(Debug)]
struct Record {
    state: State,
    /// Cleared when the target goes, under the lock, because a task may outlive its abortion for a moment.
    current: bool,
}

impl Probed {
    fn start(target: Target, ca: CaFile, state: State, events: UnboundedSender<Event>) -> Self {
        let record = Arc::new(Mutex::new(Record { state, current: true }));
        let task = OwnedTask::spawn(watch(target.clone(), ca.clone(), record.clone(), events));
        Self {
            target,
            ca,
            record,
            _task: task,
        }
    }

    /// Ends the task; what it has learnt of the status lives on.
    fn end(self) -> State {
        let mut state = self.record().state.clone();
        state.forget_streak();
        state
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.record().current = false;
    }
}

/// The task: probes, takes the outcome in, tells of changes.
async fn watch(target: Target, ca: CaFile, record: Arc<Mutex<Record>>, events: UnboundedSender<Event>) {
    let Target {
        id,
        mut address,
        check,
    } = target;
    if let Some(port) = check.port {
        address.set_port(port.get());
    }
    let probe = Probe::new(&check.probe, &ca);
    let rhythm = Rhythm {
        interval: check.interval,
        jitter: check.jitter,
    };
    let report = |outcome| {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        if !record.current {
            return ControlFlow::Break(());
        }
        if let Some(health) = take_in(&mut record.state, outcome, &id, &check) {
            // Nobody listens any more only when the daemon is going down.
            let _ = events.send(Event {
                id: id.clone(),
                health,
            });
        }
        ControlFlow::Continue(())
    };
    schedule::run(rhythm, || probe.run(address, check.timeout), report).await;
}

/// Gives the new health if the status has changed, and logs that.
fn take_in(
    state: &mut State,
    outcome: Outcome,
    id: &TargetId,
    check: &config::HealthCheck,
) -> Option<Health> {
    let TargetId { service, backend } = id;
    if let Outcome::Unable(reason) = &outcome {
        tracing::warn!(
            service,
            backend,
            reason,
            "cannot probe the backend, its status stays"
        );
    }
    if !state.observe(outcome, wall_clock(), check.rise, check.fall) {
        return None;
    }
    let health = state.health().clone();
    match health.status {
        Status::Up => tracing::info!(service, backend, reason = health.reason, "backend is up"),
        Status::Down | Status::Checking => {
            tracing::warn!(service, backend, reason = health.reason, "backend is down");
        }
    }
    Some(health)
}

/// The content of a CA file, or why it cannot be read.
type CaFile = Arc<Result<Vec<u8>, String>>;

/// The CA files of one set of targets, each read once.
#[derive(Default)]
struct CaFiles(HashMap<PathBuf, CaFile>);

impl CaFiles {
    fn read(&mut self, probe: &config::Probe) -> CaFile {
        let config::Probe::Https { ca, .. } = probe else {
            return Arc::new(Ok(Vec::new()));
        };
        let read = || std::fs::read(ca).map_err(|error| format!("CA file {}: {error}", ca.display()));
        self.0
            .entry(ca.clone())
            .or_insert_with(|| Arc::new(read()))
            .clone()
    }
}

#[cfg(test)]
mod tests;
