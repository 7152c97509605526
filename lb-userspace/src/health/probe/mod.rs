//! One probe of one backend, whatever its kind: `Probe::run` asks once and tells what came of it.

mod http;
mod https;
mod tcp;

use std::fmt;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::state::Outcome;
use crate::config;

/// A probe made ready: what it needs from files has been read.
pub(super) enum Probe {
    Tcp,
    Http(config::HttpProbe),
    Https {
        http: config::HttpProbe,
        tls: Result<https::Tls, String>,
    },
}

impl Probe {
    /// `ca`: the content of the CA file of an HTTPS probe, or why there is none.
    pub(super) fn new(probe: &config::Probe, ca: &Result<Vec<u8>, String>) -> Self {
        match probe {
            config::Probe::Tcp => Self::Tcp,
            config::Probe::Http(http) => Self::Http(http.clone()),
            config::Probe::Https {
                http,
                ca: file,
                server_name,
            } => {
                let tls = ca
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|pem| https::Tls::new(pem, file, server_name));
                Self::Https {
                    http: http.clone(),
                    tls,
                }
            }
        }
    }

    /// Asks `address` once; takes no longer than `timeout`.
    pub(super) async fn run(&self, address: SocketAddr, timeout: Duration) -> Outcome {
        let deadline = Deadline::after(timeout);
        let result = match self {
            Self::Tcp => tcp::probe(address, &deadline).await,
            Self::Http(request) => http::probe(request, address, &deadline).await,
            Self::Https { http, tls } => https::probe(http, tls, address, &deadline).await,
        };
        match result {
            Ok(what) => Outcome::Success(format!("{what} in {}", Milliseconds(deadline.elapsed()))),
            Err(Failed::Backend(reason)) => Outcome::Failure(reason),
            Err(Failed::Here(reason)) => Outcome::Unable(reason),
        }
    }
}

/// Why a probe did not succeed.
#[derive(Debug)]
enum Failed {
    /// The backend's doing.
    Backend(String),
    /// This host's.
    Here(String),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Backend(reason)
    }
}

/// By when a probe must be done.
struct Deadline {
    start: Instant,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self {
            start: Instant::now(),
            timeout,
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for a step, at most until the deadline; `doing` names the step to the operator.
    async fn during<F: Future>(&self, doing: &str, step: F) -> Result<F::Output, Failed> {
        timeout_at(self.start + self.timeout, step).await.map_err(|_| {
            let timeout = humantime::format_duration(self.timeout);
            Failed::Backend(format!("timed out after {timeout} ({doing})"))
        })
    }
}

/// `0.4 ms`, `3 ms`, `1200 ms`: as exact as anybody cares.
struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_secs_f64() * 1e3;
        if milliseconds < 1.0 {
            write!(f, "{milliseconds:.1} ms")
        } else {
            write!(f, "{milliseconds:.0} ms")
        }
    }
}

/// A socket error in an operator's words.
fn in_words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "connection closed early".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable (no answer to ARP, or a router said so)".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable (no route)".to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub(super) mod testing;
