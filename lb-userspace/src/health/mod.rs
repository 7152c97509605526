//! Health checks: is a backend fit to get connections?
//!
//! `state` decides (rise, fall; no clock, no I/O), `probe` asks a backend once, `schedule` says when to ask, and
//! `monitor` ties the three together, a task for each backend of each service.

mod monitor;
mod probe;
mod schedule;
mod state;

pub use monitor::{Event, Monitor, Target, TargetId};
pub use state::{Health, Status};
