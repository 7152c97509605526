//! Draining a web server before nginx is reloaded on it: what the hand-off asks of the engine.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two looks at how many connections are left.
const PAUSE: Duration = Duration::from_millis(200);

/// The load balancer, as far as a hand-off needs it. A web server's backends are those of its name, in every
/// service whose connections its nginx [serves](crate::config::Site::serves).
///
/// A hand-off's drain should not be kept over a restart of the daemon: if that dies half-way nobody would undo it.
pub trait Drainer: Send + Sync {
    /// Stops new connections to the server, unless that would leave a service without any backend that takes them.
    /// An error is a failure of the load balancer; `undrain` is called after it all the same.
    fn drain(&self, server: &str) -> impl Future<Output = Result<DrainOutcome, String>> + Send;

    /// How many connections to the server may still carry a request: those that are closed or closing do not count.
    fn connections(&self, server: &str) -> impl Future<Output = Result<u64, String>> + Send;

    /// Takes the hand-off's drain back. Nothing happens if there is none, and an operator's own drain stays.
    fn undrain(&self, server: &str) -> impl Future<Output = Result<(), String>> + Send;

    /// The same without waiting for it, for a hand-off that is dropped half-way. It must not block.
    fn undrain_later(&self, server: &str);
}

/// What came of a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainOutcome {
    /// The server gets no new connections.
    Draining,
    /// It got none before, which is left as it is: an operator drained or disabled it, its weight is 0, or its probes do
    /// not succeed.
    AlreadyDrained,
    /// Nothing was changed: no backend has the server's name.
    NoBackend,
    /// Nothing was changed: no other backend of this service could take its connections.
    LastOne {
        /// The service's name.
        service: String,
    },
    /// Likewise, but there are others, whose probes may succeed again.
    OthersDown {
        /// The service's name.
        service: String,
    },
}

/// One server's drain, taken back at the latest when this is dropped.
pub(super) struct Drain<'a, D: Drainer> {
    drainer: &'a D,
    server: &'a str,
    active: bool,
}

impl<'a, D: Drainer> Drain<'a, D> {
    /// Not begun yet.
    pub(super) fn new(drainer: &'a D, server: &'a str) -> Self {
        Self {
            drainer,
            server,
            active: false,
        }
    }

    /// Drains and waits until no connection is left, or for `limit`. Returns what was done, in words.
    pub(super) async fn begin(&mut self, limit: Duration) -> Result<String, String> {
        let begun = Instant::now();
        self.active = true;
        let outcome = loop {
            match self.drainer.drain(self.server).await? {
                DrainOutcome::OthersDown { .. } if begun.elapsed() < limit => sleep(PAUSE.min(limit)).await,
                outcome => break outcome,
            }
        };
        self.active = outcome == DrainOutcome::Draining;
        match outcome {
            DrainOutcome::Draining => self.wait(begun, limit).await,
            DrainOutcome::AlreadyDrained => Ok(format!(
                "it got no new connections anyway; {}",
                self.wait(begun, limit).await?
            )),
            DrainOutcome::OthersDown { service } => Ok(format!(
                "not drained: the other backends of service {service} are down, for {} now; nginx reloads gracefully",
                humantime::format_duration(limit)
            )),
            DrainOutcome::NoBackend => Ok(format!("not drained: no backend is named {}", self.server)),
            DrainOutcome::LastOne { service } => Ok(format!(
                "not drained: no other backend of service {service} could take its connections; nginx reloads gracefully"
            )),
        }
    }

    /// Whether there is something to take back.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Takes it back.
    pub(super) async fn end(&mut self) -> Result<String, String> {
        self.drainer.undrain(self.server).await?;
        self.active = false;
        Ok("gets new connections again".to_owned())
    }

    async fn wait(&self, begun: Instant, limit: Duration) -> Result<String, String> {
        loop {
            let left = self.drainer.connections(self.server).await?;
            if left == 0 {
                return Ok("no connections left".to_owned());
            }
            if begun.elapsed() >= limit {
                let limit = humantime::format_duration(limit);
                return Ok(format!(
                    "{left} connections left after {limit}; nginx reloads gracefully"
                ));
            }
            sleep(PAUSE.min(limit)).await;
        }
    }
}

impl<D: Drainer> Drop for Drain<'_, D> {
    fn drop(&mut self) {
        if self.active {
            self.drainer.undrain_later(self.server);
        }
    }
}
