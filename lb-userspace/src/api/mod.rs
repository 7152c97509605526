//! The control API: HTTP and JSON over a Unix socket.

pub mod client;
pub mod explain;
pub(crate) mod http;
pub mod server;
pub mod socket;
pub mod trace;
pub mod types;

use std::future::Future;

use crate::plan::Plan;
use explain::{Answer, Question};
use trace::{TraceRequest, Traced};
use types::{
    AddBackend, Applied, ApplyRequest, Backend, ChangeBackend, Changed, Confirmed, ConnectionFilter,
    Connections, Counters, PlanRequest, Reloaded, RolledBack, Service, SiteApplied, SiteRender, SiteStatus,
    Status,
};

/// What the API can ask of the daemon. The engine's handle implements it; tests of the server use a fake.
pub trait Control: Clone + Send + Sync + 'static {
    /// Everything at a glance.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;
    /// Every service with its backends.
    fn services(&self) -> impl Future<Output = Result<Vec<Service>, Refusal>> + Send;
    /// Every backend of every service.
    fn backends(&self) -> impl Future<Output = Result<Vec<Backend>, Refusal>> + Send;
    /// Adds a backend until it is removed; survives a restart as an override.
    fn add_backend(&self, request: AddBackend) -> impl Future<Output = Result<Changed, Refusal>> + Send;
    /// Changes a backend; survives a restart as an override.
    fn change_backend(&self, request: ChangeBackend)
    -> impl Future<Output = Result<Changed, Refusal>> + Send;
    /// Connections in the table.
    fn connections(
        &self,
        filter: ConnectionFilter,
    ) -> impl Future<Output = Result<Connections, Refusal>> + Send;
    /// Packets by decision.
    fn counters(&self) -> impl Future<Output = Result<Counters, Refusal>> + Send;
    /// What would become of a packet, and why; changes nothing.
    fn why(&self, question: Question) -> impl Future<Output = Result<Answer, Refusal>> + Send;
    /// What is decided about packets that come.
    fn trace(&self, request: TraceRequest) -> impl Future<Output = Result<Traced, Refusal>> + Send;
    /// Reads the file again and applies it whole, or not at all.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, Refusal>> + Send;
    /// What a configuration would change.
    fn plan(&self, request: PlanRequest) -> impl Future<Output = Result<Plan, Refusal>> + Send;
    /// Replaces the configuration file and puts it in force, whole or not at all.
    fn apply(&self, request: ApplyRequest) -> impl Future<Output = Result<Applied, Refusal>> + Send;
    /// Keeps the applied configuration that waits for it.
    fn confirm(&self) -> impl Future<Output = Result<Confirmed, Refusal>> + Send;
    /// Takes the applied configuration back that waits to be confirmed.
    fn rollback(&self) -> impl Future<Output = Result<RolledBack, Refusal>> + Send;
    /// The nginx configuration of each web server.
    fn site_render(&self) -> impl Future<Output = Result<SiteRender, Refusal>> + Send;
    /// Hands the site to the web servers, one by one.
    fn site_apply(&self) -> impl Future<Output = Result<SiteApplied, Refusal>> + Send;
    /// What the web servers serve.
    fn site_status(&self) -> impl Future<Output = Result<SiteStatus, Refusal>> + Send;
}

/// Why a request was refused; nothing was changed. Each message says what is wrong, what is allowed and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense (400).
    #[error("{0}")]
    Invalid(String),
    /// There is nothing of that name (404).
    #[error("{0}")]
    Unknown(String),
    /// Not in the present state (409).
    #[error("{0}")]
    Conflict(String),
    /// The configuration is refused (422).
    #[error("{0}")]
    Configuration(String),
    /// The daemon or the kernel failed (500).
    #[error("{0}")]
    Failed(String),
}
