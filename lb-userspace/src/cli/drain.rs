//! `backend drain --wait`: watches connections end.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::screen::Screen;
use super::units::{clean, plural};
use crate::api::client::Client;
use crate::api::types::{Backend, BackendState, Changed};

const POLL: Duration = Duration::from_millis(500);

/// So long after the deadline whoever has not sent anything counts as silent: its connection is reset when it does.
const SILENCE: Duration = Duration::from_secs(5);

/// What became of the connections; `--json` prints it.
#[derive(Debug, Serialize)]
struct Drained {
    /// The backends as they are now; one that is gone is not among them.
    backends: Vec<Backend>,
    /// Connections when the waiting began.
    began_with: u64,
    /// Those that ended by themselves, before the deadline if there was one.
    ended: u64,
    /// Those that were left at the deadline; `None`: it did not come to that.
    left_at_deadline: Option<u64>,
    /// Those that have been reset since then, or ended.
    reset: u64,
    /// Those that are left.
    left: u64,
}

/// How the waiting ended.
enum End {
    /// None is left, or those that are left are reset when they next send something.
    Done,
    TimedOut,
    /// The backend of this name gets new connections again.
    Undone(String),
}

/// Waits until the backends in `changed` have no connections left, at most for `timeout`.
pub(super) async fn wait(
    lbd: &Client,
    screen: &Screen,
    changed: Changed,
    timeout: Duration,
) -> Result<(), Failure> {
    let give_up = Instant::now() + timeout;
    let mut deadline = None;
    let mut drained = Drained::new(changed.backends);
    let mut progress = Progress { screen, shown: None };
    let end = loop {
        progress.show(&drained.backends, drained.left)?;
        if drained.left == 0 {
            break End::Done;
        }
        let mut backends = drained.backends.iter();
        if let Some(back) = backends.find(|backend| backend.state == BackendState::Up) {
            break End::Undone(name(back));
        }
        if drained.left_at_deadline.is_some()
            && deadline.get_or_insert_with(Instant::now).elapsed() >= SILENCE
        {
            break End::Done;
        }
        if Instant::now() >= give_up {
            break End::TimedOut;
        }
        sleep(POLL.min(give_up - Instant::now())).await;
        let now = lbd.backends().await?;
        drained.see(now);
    };
    progress.end()?;
    if screen.json() {
        screen.show(&drained, |_| String::new())?;
    }
    match end {
        End::Done if screen.json() => Ok(()),
        End::Done => screen.print(&format!("drained: {}\n", drained.summary())),
        End::TimedOut => Err(Failure::GaveUp(format!(
            "gave up after {}: {}; the drain goes on (lbctl backend undrain undoes it)",
            humantime::format_duration(timeout),
            drained.summary()
        ))),
        End::Undone(name) => Err(Failure::Failed(format!(
            "{name} gets new connections again: somebody undid the drain while this waited"
        ))),
    }
}

impl Drained {
    fn new(backends: Vec<Backend>) -> Self {
        let left = connections(&backends);
        Self {
            backends,
            began_with: left,
            ended: 0,
            left_at_deadline: None,
            reset: 0,
            left,
        }
    }

    /// Takes in what the backends are now. One that is gone has no connections left.
    fn see(&mut self, now: Vec<Backend>) {
        let known = std::mem::take(&mut self.backends);
        self.backends = now
            .into_iter()
            .filter(|now| known.iter().any(|was| same(was, now)))
            .collect();
        let left = connections(&self.backends);
        let gone = self.left.saturating_sub(left);
        match self.left_at_deadline {
            Some(_) => self.reset += gone,
            None => self.ended += gone,
        }
        self.left = left;
        let mut waiting = self.backends.iter().filter(|it| it.traffic.connections > 0);
        if left > 0 && self.left_at_deadline.is_none() && waiting.all(|it| it.reset_in_seconds == Some(0)) {
            self.left_at_deadline = Some(left);
        }
    }

    /// How many are left, and what became of the others.
    fn summary(&self) -> String {
        let ended = match self.ended {
            1 => "1 ended by itself".to_owned(),
            ended => format!("{ended} ended by themselves"),
        };
        match (self.left_at_deadline, self.left) {
            (None, 0) => format!("no connections left, {ended}"),
            (None, left) => format!(
                "{} left, which still may end, {ended}",
                plural(left, "connection")
            ),
            (Some(at_deadline), left) => {
                let silent = match left {
                    0 => "none is left".to_owned(),
                    left => format!("{left} silent, to be reset when the client sends something"),
                };
                format!(
                    "{} left at the deadline, {} reset since, {silent}; {ended} before",
                    plural(at_deadline, "connection"),
                    self.reset
                )
            }
        }
    }
}

/// The lines about how far it is.
struct Progress<'a> {
    screen: &'a Screen,
    shown: Option<u64>,
}

impl Progress<'_> {
    /// Shows what is left, if that is not what was shown last: over the last line on a terminal, else below it.
    fn show(&mut self, backends: &[Backend], left: u64) -> Result<(), Failure> {
        if self.screen.json() || self.shown.replace(left) == Some(left) {
            return Ok(());
        }
        let each: Vec<_> = backends
            .iter()
            .map(|backend| {
                format!(
                    "{} {}",
                    name(backend),
                    plural(backend.traffic.connections, "connection")
                )
            })
            .collect();
        let line = format!(
            "draining: {}",
            if each.is_empty() {
                "gone".to_owned()
            } else {
                each.join(", ")
            }
        );
        self.screen.print(&if self.screen.terminal() {
            format!("\r\x1b[K{line}")
        } else {
            line + "\n"
        })
    }

    /// Leaves the rewritten line.
    fn end(&self) -> Result<(), Failure> {
        if self.screen.terminal() && self.shown.is_some() {
            self.screen.print("\n")
        } else {
            Ok(())
        }
    }
}

fn connections(backends: &[Backend]) -> u64 {
    backends.iter().map(|backend| backend.traffic.connections).sum()
}

fn same(one: &Backend, other: &Backend) -> bool {
    (&one.service, &one.name) == (&other.service, &other.name)
}

fn name(backend: &Backend) -> String {
    clean(&format!("{}/{}", backend.service, backend.name))
}
