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
pub mod failpoint;
pub mod handoff;
pub mod health;
pub mod host_checks;
pub mod listing;
pub mod manual;
pub mod metrics;
pub mod moment;
pub mod neighbours;
mod netlink;
mod numbers;
pub mod observed_state;
pub mod pending;
pub mod persisted;
pub mod plan;
pub mod privileges;
pub mod reconcile;
pub mod scheduling;
pub mod service_manager;
mod task;
#[cfg(test)]
mod testing;
pub mod vip;
pub mod whole_file;
