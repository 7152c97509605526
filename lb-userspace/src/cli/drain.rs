//! `backend drain --wait`: watches connections end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::screen::Screen;
use super::units::{clean, plural};
use crate::api::client::Client;
use crate::api::types::{Backend, BackendState, Changed};

const POLL: Duration = Duration::from_millis(500);

/// Waits until the backends in `changed` have no connections left, at most for `timeout`.
pub(super) async fn wait(
    lbd: &Client,
    screen: &Screen,
    mut changed: Changed,
    timeout: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut progress = Progress { screen, shown: None };
    let outcome = loop {
        let left = connections(&changed.backends);
        progress.show(&changed.backends, left)?;
        if left == 0 {
            break Ok(());
        }
        if let Some(back) = changed
            .backends
            .iter()
            .find(|backend| backend.state == BackendState::Up)
        {
            let name = name(back);
            break Err(Failure::Failed(format!(
                "{name} gets new connections again: somebody undid the drain while this waited"
            )));
        }
        if Instant::now() >= deadline {
            break Err(Failure::GaveUp(format!(
                "gave up after {}: {} left; the drain goes on (lbctl backend undrain undoes it)",
                humantime::format_duration(timeout),
                plural(left, "connection")
            )));
        }
        sleep(POLL.min(deadline - Instant::now())).await;
        let now = lbd.backends().await?;
        // One that is gone has none left.
        changed.backends = now
            .into_iter()
            .filter(|now| changed.backends.iter().any(|was| same(was, now)))
            .collect();
    };
    progress.end()?;
    if screen.json() {
        screen.show(&changed, |_| String::new())?;
    } else if outcome.is_ok() {
        screen.print("drained: no connections left\n")?;
    }
    outcome
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
