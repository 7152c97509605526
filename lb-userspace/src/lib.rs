//! The control plane: everything that `lbd` and `lbctl` do.
//!
//! Pure modules decide (`config`, `desired_state`, `scheduling`, `reconcile`, `health::state`); thin ones do
//! (`dataplane`, `neighbours`, `vip`, `health::probe`, `handoff`, `api`). `engine` is the one task that owns the running
//! state and the only one that changes it.

pub mod api;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod desired_state;
pub mod engine;
pub mod explain;
pub mod handoff;
pub mod health;
pub mod host_checks;
pub mod metrics;
pub mod neighbours;
mod netlink;
pub mod observed_state;
pub mod persisted;
pub mod reconcile;
pub mod scheduling;
mod task;
#[cfg(test)]
mod testing;
pub mod vip;
