//! The control plane's outside: the API over a real socket, the metrics over real TCP, and `lbctl` as a real process,
//! all against a daemon that is only made up.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

mod api;
mod fake;
mod lbctl;
mod metrics;
