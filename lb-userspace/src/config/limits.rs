//! Ranges of what can be configured, in one place; `config/lb.toml` tells them to the operator.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Services in one file.
pub const SERVICES: usize = 1024;
/// Backends in one file, all services together.
pub const BACKENDS: usize = 4096;
/// Services that may share one backend endpoint: the data path tries so many for a reply.
pub const SERVICES_PER_ENDPOINT: usize = 8;
/// Entries of a connection table, and elements of the table of the balancer's own ports.
pub const MAX_CONNECTIONS: RangeInclusive<i64> = 1024..=16_777_216;
/// A backend's share of new connections.
pub const WEIGHT: RangeInclusive<i64> = 0..=256;
/// `selection_seed`: what is not negative in TOML.
pub const SEED: RangeInclusive<i64> = 0..=i64::MAX;
/// Probes in a row that change a backend's health.
pub const PROBES_IN_A_ROW: RangeInclusive<i64> = 1..=100;
/// HTTP statuses.
pub const STATUS: RangeInclusive<i64> = 100..=599;
/// A path of a Unix socket: `sun_path` is 108 bytes with the final zero (unix(7)).
pub const SOCKET_PATH: usize = 107;

/// A range of times, with the words that tell it.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
    /// `5s to 24h`.
    pub words: &'static str,
}

/// Slots that all services may need together, as [`scheduling::room`](crate::scheduling::room) reckons them. The kernel
/// program deals connections out by them.
pub const SLOTS: usize = (lb_common::abi::SLOT_LINES * lb_common::abi::SLOTS_PER_LINE) as usize;
/// Idle timeouts of connections.
pub const CONNECTION_TIMEOUT: Times = Times {
    least: Duration::from_secs(5),
    most: Duration::from_secs(86_400),
    words: "5s to 24h",
};
/// How long connections of a backend that is drained or removed have to end.
pub const BACKEND_DRAIN: Times = Times {
    least: Duration::from_secs(1),
    most: Duration::from_secs(86_400),
    words: "1s to 24h",
};
/// How long an applied configuration may wait to be confirmed.
pub const CONFIRM: Times = Times {
    least: Duration::from_secs(1),
    most: Duration::from_secs(86_400),
    words: "1s to 24h",
};
/// How long a recovered backend's share grows.
pub const SLOW_START: Times = Times {
    least: Duration::ZERO,
    most: Duration::from_secs(3600),
    words: "0s to 1h",
};
/// Interval and timeout of probes.
pub const PROBE: Times = Times {
    least: Duration::from_millis(10),
    most: Duration::from_secs(3600),
    words: "10ms to 1h",
};
/// Jitter of probes; at most the interval, too.
pub const JITTER: Times = Times {
    least: Duration::ZERO,
    most: Duration::from_secs(3600),
    words: "0s to 1h",
};
/// Keep-alive and drain times of the site.
pub const SITE_TIME: Times = Times {
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    words: "1s to 1h",
};
/// `max-age` of Strict-Transport-Security; 0 makes browsers forget it (RFC 6797, 6.1.1).
pub const HSTS: Times = Times {
    least: Duration::ZERO,
    most: Duration::from_secs(3650 * 86_400),
    words: "0s to 3650d",
};
