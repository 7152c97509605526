//! What the API speaks: requests and answers, used by the server and by `lbctl` alike, so that they cannot differ.
//! Every field is part of the API; `--json` prints these as they are.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config;
use crate::plan::Plan;

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The configuration file.
    pub config_file: String,
    /// Interfaces with the mode that the program is attached in.
    pub interfaces: Vec<Interface>,
    /// Connections now, all that are remembered.
    pub connections: u64,
    /// Those of them over IPv6 or to services of several ports, which have a table of their own.
    pub wide_connections: u64,
    /// Other connections that there is room for.
    pub max_connections: u64,
    /// Connections over IPv6 or to services of several ports that there is room for.
    pub max_wide_connections: u64,
    /// Memory of both tables and of that of the `full-nat` ports, in bytes.
    pub table_bytes: u64,
    /// Every service with its backends.
    pub services: Vec<Service>,
    /// What will not work, in words, as found at start and after each reload.
    pub warnings: Vec<String>,
    /// The applied configuration that waits to be confirmed; `None`: none does.
    pub unconfirmed: Option<Unconfirmed>,
}

/// An applied configuration that waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// The configuration file that it is in.
    pub file: String,
    /// Seconds until the one before comes back by itself.
    pub seconds_left: u64,
}

/// An interface that the program is attached to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
}

/// `GET /v1/services`, `GET /v1/services/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The address that clients connect to.
    pub vip: IpAddr,
    /// The port that clients connect to, or the first and the last one of several.
    pub ports: config::Ports,
    /// The transport protocol.
    pub protocol: config::Protocol,
    /// How packets get to the backend.
    pub mode: config::Mode,
    /// How a new connection's backend is chosen.
    pub scheduler: config::Scheduler,
    /// Whether no connection is remembered.
    pub stateless: bool,
    /// The address that `full-nat` connections and `ipip` tunnels to the backends come from; `None` in other modes.
    pub source_address: Option<IpAddr>,
    /// The first and the last port that `full-nat` connections come from; `None` in other modes.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Whether pings to the VIP are answered without asking the kernel.
    pub answer_ping: bool,
    /// In so many seconds a recovered backend's share grows to the whole; 0: at once.
    pub slow_start_seconds: u64,
    /// What happens to new connections when no backend can take them.
    pub when_all_down: config::WhenAllDown,
    /// What happens to the connections of a backend that fails.
    pub on_down: config::OnDown,
    /// So many seconds after a backend was drained or removed what is left of its connections is reset; `None`: never.
    pub drain_timeout_seconds: Option<u64>,
    /// Sums over the backends, those that have left included.
    pub traffic: Traffic,
    /// In the file's order, added ones last.
    pub backends: Vec<Backend>,
}

/// `GET /v1/backends`: one backend of one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backend {
    /// The service's name.
    pub service: String,
    /// The backend's name, unique within the service.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port; `None`: that of the packet, for services of several ports.
    pub port: Option<NonZeroU16>,
    /// The weight in force.
    pub weight: u16,
    /// Whether it stands in for the others only.
    pub backup: bool,
    /// While its share grows after a recovery: how much of its weight it has, in percent; `None`: all of it.
    pub slow_start_percent: Option<u8>,
    /// What it is doing.
    pub state: BackendState,
    /// Whether new connections may be sent to it.
    pub eligible: bool,
    /// What its probes say.
    pub health: Health,
    /// While it is draining or leaving: the seconds until what is left of its connections is reset, 0 from then on; `None`:
    /// they may go on until they end.
    pub reset_in_seconds: Option<u64>,
    /// What was changed at run time, in words (`drain`, `disable`, `weight 3 (file: 1)`, `added`); empty: as in the file.
    pub overrides: Vec<String>,
    /// The MAC address and interface that its packets are sent to; `None`: unknown, the kernel resolves it.
    pub next_hop: Option<String>,
    /// What went to it and came from it.
    pub traffic: Traffic,
}

/// What a backend is doing, the most telling word of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// Gets new connections.
    Up,
    /// No probe has succeeded yet.
    Checking,
    /// Its probes fail.
    Down,
    /// Gets no new connections, keeps those it has.
    Draining,
    /// Taken out by hand; the connections it has are treated as if it had failed (`on_down`).
    Disabled,
    /// Removed from the configuration; keeps those connections that it still has, then goes.
    Leaving,
}

/// What a backend's probes say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// `up`, `down`, `checking` or `unchecked`.
    pub status: String,
    /// Seconds since the status last changed.
    pub since_seconds: u64,
    /// Why, as told by the last probe that mattered: `HTTP 200 in 3 ms`, `connection refused`, …
    pub reason: String,
}

/// Counters of a service or a backend. They only grow, but for `connections`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections in the table now.
    pub connections: u64,
    /// Connections opened.
    pub opened: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, Ethernet header included.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, Ethernet header included.
    pub bytes_out: u64,
}

/// `GET /v1/connections`: query parameters, all optional.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Only this service's.
    pub service: Option<String>,
    /// Only this backend's.
    pub backend: Option<String>,
    /// Only this client's.
    pub client: Option<IpAddr>,
    /// Only those in this state.
    pub state: Option<String>,
    /// At most so many; default 1,000.
    pub limit: Option<usize>,
}

/// `GET /v1/connections`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connections {
    /// How many match the filter.
    pub total: u64,
    /// The first of them, in no order.
    pub connections: Vec<Connection>,
}

/// One connection. Of a million that are listed, all that is the same is there once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connection {
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The address that it connects to.
    pub vip: IpAddr,
    /// The port that it connects to.
    pub vip_port: u16,
    /// The transport protocol.
    pub protocol: config::Protocol,
    /// The service's name.
    pub service: Arc<str>,
    /// The backend's name.
    pub backend: Arc<str>,
    /// The balancer's own port towards the backend, of a `full-nat` connection.
    pub own_port: Option<NonZeroU16>,
    /// The state of the connection as the balancer saw it: `established`, …; UDP has `unconfirmed` and `established`.
    pub state: Cow<'static, str>,
    /// Seconds until it is forgotten if nothing more is seen.
    pub expires_seconds: u64,
}

/// `GET /v1/counters`: one for each decision that the program can come to, in the program's order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counters {
    /// Packets by decision.
    pub outcomes: Vec<Outcome>,
}

/// How many packets came to one decision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// `to_backend`, `not_ours`, …
    pub name: String,
    /// `pass`, `drop`, `transmit` or `redirect`.
    pub action: String,
    /// What it means, in a sentence.
    pub meaning: String,
    /// Packets, all CPUs.
    pub packets: u64,
}

/// `POST /v1/backends`: add a backend at run time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// The service to add it to.
    pub service: String,
    /// The backend.
    pub backend: config::Backend,
    /// Only to say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/backends/change`: change one backend, or all of this name in every service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeBackend {
    /// Only in this service; `None`: in every service that has a backend of this name.
    pub service: Option<String>,
    /// The backend's name.
    pub name: String,
    /// What to do.
    pub change: BackendChange,
    /// Only to say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What to do with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendChange {
    /// No new connections; it keeps those it has.
    Drain {
        /// After so many seconds, 1 to 86,400, what is left is reset; `None`: as the service's `drain_timeout` says, or, if
        /// it is draining already, as it was.
        deadline_seconds: Option<u64>,
    },
    /// Undo `drain`.
    Undrain,
    /// As if it had failed.
    Disable,
    /// Undo `disable`.
    Enable,
    /// This share of new connections; `None`: the file's.
    Weight(Option<u16>),
    /// Take it out for good; it keeps the connections it has until they end, or as long as the service's `drain_timeout` says.
    Remove {
        /// Whether they are reset at once instead, also those of a backend that is leaving already.
        force: bool,
    },
}

/// The answer to a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changed {
    /// The backends that were changed, as they are now.
    pub backends: Vec<Backend>,
    /// What was done, a line each: `www/web1: draining, 3 connections left`.
    pub messages: Vec<String>,
    /// The change that was made, or that would be.
    pub plan: Plan,
}

/// `POST /v1/reload`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// What changed, a line each; empty: nothing.
    pub changes: Vec<String>,
    /// The same as a value.
    pub plan: Plan,
}

/// A configuration's text, as a person has it in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The file's name, for messages about it. Relative paths in the text begin at the directory of the daemon's
    /// configuration file, wherever this one is.
    pub name: String,
    /// TOML, at most 4 MiB.
    pub toml: String,
}

/// `POST /v1/plan`: what would change; changes nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// With this configuration; `None`: with the daemon's configuration file as it is now, as by a reload.
    pub text: Option<Text>,
    /// Whether the connections of what is removed are reset at once.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/apply`: replaces the daemon's configuration file and puts it in force, whole or not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The configuration.
    pub text: Text,
    /// Unless it is confirmed within so many seconds, 1 to 86,400, the one before comes back; `None`: it stays.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
    /// Whether the connections of what is removed are reset at once.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/apply`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// What changed.
    pub plan: Plan,
    /// The daemon's configuration file, which has the new text now.
    pub file: String,
    /// The file that has the text that was in it before; `None`: it was the same.
    pub kept: Option<String>,
    /// What there is to confirm.
    pub unconfirmed: Option<Unconfirmed>,
}

/// `POST /v1/confirm`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Confirmed {
    /// The daemon's configuration file.
    pub file: String,
}

/// `POST /v1/rollback`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolledBack {
    /// What changed.
    pub plan: Plan,
    /// The daemon's configuration file, which has the text from before again.
    pub file: String,
    /// The file that has the text that was taken back; `None`: it was the same.
    pub kept: Option<String>,
}

/// `GET /v1/site/render`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteRender {
    /// One for each web server.
    pub servers: Vec<RenderedServer>,
}

/// The nginx configuration of one web server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenderedServer {
    /// The web server's name.
    pub server: String,
    /// The configuration's text; the private key is never part of it.
    pub nginx_conf: String,
}

/// `POST /v1/site/apply`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteApplied {
    /// Whether every server now serves the new configuration.
    pub ok: bool,
    /// One for each web server, in the order in which they were done.
    pub servers: Vec<AppliedServer>,
}

/// What became of one web server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppliedServer {
    /// The web server's name.
    pub server: String,
    /// Whether it now serves the new configuration.
    pub ok: bool,
    /// Each step with what came of it; the last is the one that failed, or the restoring after it.
    pub steps: Vec<SiteStep>,
}

/// One step of a hand-off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteStep {
    /// `stage`, `test`, `drain`, `swap`, `reload`, `verify`, `undrain` or `restore`.
    pub step: String,
    /// Whether it succeeded.
    pub ok: bool,
    /// What was done or what went wrong, in words.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
}

/// `GET /v1/site/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The certificate in the balancer's files.
    pub wanted: Certificate,
    /// What each web server serves.
    pub servers: Vec<SiteServerStatus>,
}

/// What one web server serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteServerStatus {
    /// The web server's name.
    pub server: String,
    /// The certificate that it served over a TLS handshake just now.
    pub served: Option<Certificate>,
    /// Whether that is the wanted one.
    pub current: bool,
    /// Why there is none, in words.
    pub error: Option<String>,
}

/// A certificate, as much of it as an operator looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of its DER, in hex.
    pub fingerprint: String,
    /// Its subject.
    pub subject: String,
    /// The names that it is valid for.
    pub names: Vec<String>,
    /// End of validity, RFC 3339.
    pub not_after: String,
    /// Seconds until then; negative: over.
    pub expires_in_seconds: i64,
}

/// Every answer but 2xx: status 400 (the request makes no sense), 404 (unknown name), 409 (not in this state), 422 (bad
/// configuration), 500 (the daemon or the kernel failed).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    /// What is wrong, what is allowed, what to do.
    pub error: String,
}

/// The name of an enum's variant, the same in the configuration file, in the API and in everything that is shown.
pub fn word(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
