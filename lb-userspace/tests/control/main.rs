//! The control plane's outside: the API over a real socket, the metrics over real TCP, and `lbctl` as a real process,
//! all against a daemon that is only made up.

mod api;
mod fake;
mod lbctl;
mod metrics;
