//! The configuration: `written` is the TOML as a person typed it, this module's types are what is left once
//! `validate` has accepted it whole. Nothing past this module ever sees raw TOML.

mod admit;
mod error;
mod host;
pub mod limits;
mod reading;
pub mod rules;
mod section;
mod shape;
mod sharing;
pub mod shown;
mod site;
#[cfg(test)]
mod tests;
mod validate;
mod words;
mod written;

pub use error::{ConfigError, Problem};
pub use host::{Host, ThisHost};
#[cfg(test)]
pub use site::test_site;
pub use site::{Site, SiteScripts, SiteServer, TlsVersion};

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the configuration is, unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/lb/lb.toml";

/// Reads a configuration file.
///
/// # Errors
/// The file cannot be read, or is refused as by [`parse`].
pub fn load(file: &Path, host: &dyn Host) -> Result<Config, ConfigError> {
    parse(&text(file, host)?, file, host)
}

/// Reads the text of a configuration file.
///
/// # Errors
/// The file cannot be read, or is no text.
pub fn text(file: &Path, host: &dyn Host) -> Result<String, ConfigError> {
    let refuse = |what: String| {
        let problem = Problem {
            file: file.to_owned(),
            line: None,
            what,
        };
        ConfigError {
            problems: vec![problem],
        }
    };
    let bytes = host.read(file).map_err(|error| {
        refuse(format!(
            "cannot be read: {}; name the configuration file with --config FILE, or write it after the example lb.toml",
            host::plain(&error)
        ))
    })?;
    String::from_utf8(bytes)
        .map_err(|_| refuse("not UTF-8 text; a configuration is TOML, see the example lb.toml".to_owned()))
}

/// Reads a configuration from its text; `file` stands in messages, and relative paths begin at its directory.
///
/// # Errors
/// Something is wrong with it; all that is wrong is told at once, but for mistakes in TOML itself, which come one by
/// one.
pub fn parse(text: &str, file: &Path, host: &dyn Host) -> Result<Config, ConfigError> {
    validate::validate(text, file, host)
}

impl Service {
    /// What clients connect to; no two services have the same. Port 0 stands for a service of several ports, of which there
    /// is at most one for each VIP and protocol.
    #[must_use]
    pub fn endpoint(&self) -> (IpAddr, u16, Protocol) {
        let port = match &self.ports {
            Ports::One(port) => port.get(),
            Ports::Range(_) => 0,
        };
        (self.vip, port, self.protocol)
    }
}

/// A configuration that has passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it came from, as named on the command line.
    pub file: PathBuf,
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[[service]]`, in the file's order; names and VIP endpoints are unique.
    pub services: Vec<Service>,
    /// `[site]`.
    pub site: Option<Site>,
}

/// What the daemon itself needs; none of it can change without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// The interfaces that the program is attached to, at least one, each existing when the file was read.
    pub interfaces: Vec<String>,
    /// How the program is attached.
    pub xdp_mode: XdpMode,
    /// Size of the table of IPv4 connections to services of one port, 1,024 to 16,777,216.
    pub max_connections: u32,
    /// Size of the table of IPv6 connections and of those to services of several ports, 1,024 to 16,777,216. Default:
    /// an eighth of `max_connections`, at least 1,024.
    pub max_wide_connections: u32,
    /// Room for ports of the balancer's own that all `full-nat` backends together can have, 1,024 to 16,777,216; each
    /// backend takes as many as its service's `source_ports`. Default 262,144 (8 MiB) if a service is `full-nat`, else 0.
    pub full_nat_ports: u32,
    /// Seed of the choice of backends by hashing: the same on every balancer of a fleet. Default 0.
    pub selection_seed: u64,
    /// The control API's Unix socket.
    pub socket: PathBuf,
    /// The number of the group that may use the socket as well; `None`: the group of the user that `lbd` runs as.
    pub socket_group: Option<u32>,
    /// Where overrides are kept over a restart.
    pub state_directory: PathBuf,
    /// Where the program and its tables outlive the daemon: a directory of its own in a bpf filesystem.
    pub pin_directory: PathBuf,
    /// Where Prometheus metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

impl Daemon {
    /// The default of `pin_directory`.
    pub const PIN_DIRECTORY: &str = "/sys/fs/bpf/lb";
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    Auto,
    /// Native, or refuse to start.
    Native,
    /// Generic: works everywhere, slowly.
    Generic,
}

/// One virtual service: connections to `vip:port` are shared among `backends`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// The address that clients connect to.
    pub vip: IpAddr,
    /// The ports that clients connect to.
    pub ports: Ports,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How packets get to the backend.
    pub mode: Mode,
    /// How a new connection's backend is chosen.
    pub scheduler: Scheduler,
    /// Whether no connection is remembered: each packet's backend is chosen by hashing alone. UDP with `maglev` or
    /// `source-hash` only; not with `full-nat`. Default false.
    pub stateless: bool,
    /// The address of this host that `full-nat` connections and `ipip` tunnels to the backends come from; of the backends'
    /// family. `None` (the default) is allowed with the other modes only.
    pub source_address: Option<IpAddr>,
    /// The ports that `full-nat` connections to the backends come from. Default 10240 to 26623.
    pub source_ports: RangeInclusive<u16>,
    /// Whether an echo request (ping) to the VIP is answered by the program, whatever the backends do; else it is passed to
    /// the kernel. The same in all services of a VIP. Default true.
    pub answer_ping: bool,
    /// After a backend has recovered, its share grows from a tenth to the whole in this time; zero: at once. Default zero.
    pub slow_start: Duration,
    /// The interface on which `lbd` puts the VIP; `None`: somebody else does.
    pub manage_vip: Option<String>,
    /// What happens to new connections when no backend can take them.
    pub when_all_down: WhenAllDown,
    /// What happens to the connections of a backend that fails.
    pub on_down: OnDown,
    /// How long connections of a backend that is drained or removed have to end before they are reset; whole seconds, 1 s to
    /// 24 h. `None` (the default): as long as they want.
    pub drain_timeout: Option<Duration>,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// How backends are probed; `None` (`type = "none"`, and the default of UDP and of services of several ports): they
    /// count as up.
    pub health: Option<HealthCheck>,
    /// In the file's order; names are unique within a service, and so are endpoints.
    pub backends: Vec<Backend>,
}

/// The transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The ports of a VIP that a service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ports {
    /// One; backends may listen on another one in the NAT modes.
    One(NonZeroU16),
    /// Several in a row, 1 to 65,535 at most, unless another service has exactly that port; backends listen on the same
    /// ports.
    Range(RangeInclusive<u16>),
}

/// How packets get to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Destination NAT; the backend's route to clients leads through the balancer.
    Nat,
    /// Destination and source NAT; the backend needs no route to clients, and does not see their addresses.
    FullNat,
    /// Direct server return: only MAC addresses are rewritten; the backend is on the same segment, has the VIP, and
    /// answers clients itself. Ports cannot be mapped.
    Dsr,
    /// The packet is put into another one to the backend, which unpacks it, has the VIP, and answers clients itself. Ports
    /// cannot be mapped.
    Ipip,
}

impl Mode {
    /// Whether backends may listen on another port than the service.
    #[must_use]
    pub fn maps_ports(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }
}

/// How a new connection's backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Exact round robin by weight, smoothly interleaved.
    RoundRobin,
    /// The backend with the fewest connections relative to its weight, of two candidates.
    LeastConnections,
    /// Maglev consistent hashing of the client's address and port.
    Maglev,
    /// Maglev consistent hashing of the client's address alone: a client stays with a server, also across the services of
    /// a VIP that have the same servers.
    SourceHash,
    /// At random by weight.
    Random,
}

impl Scheduler {
    /// Whether the choice is made by hashing what a packet says, so that it is the same each time.
    #[must_use]
    pub fn hashes(self) -> bool {
        matches!(self, Self::Maglev | Self::SourceHash)
    }
}

/// What happens to new connections when no backend can take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenAllDown {
    /// They are answered: TCP with a RST, UDP with an ICMP port unreachable.
    Refuse,
    /// They are dropped silently.
    Drop,
    /// They are shared among all enabled backends as if these were up.
    KeepSending,
}

/// What happens to the connections of a backend that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// They stay with it: it may come back.
    Keep,
    /// The client's next packet is answered with a RST, so that it can connect anew at once.
    Reset,
}

/// The ports that `full-nat` connections come from unless the service says otherwise: 16,384 of them, below the range
/// that the kernel takes its own from (`net.ipv4.ip_local_port_range`).
pub const DEFAULT_SOURCE_PORTS: RangeInclusive<u16> = 10240..=26623;

/// Idle timeouts of a service's connections; each 5 s to 24 h. The table counts in ticks of about 4 s and rounds up;
/// an established connection may be remembered for up to a sixteenth longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the handshake is complete. Default 30 s.
    pub half_open: Duration,
    /// After the handshake. Default 2 h 4 min (RFC 5382 REQ-5).
    pub established: Duration,
    /// After a FIN or a RST. Default 2 min; data in either direction starts it anew.
    pub closing: Duration,
    /// UDP, once the client has gone on after the backend's answer (or, where its answers are not seen, once it has gone on
    /// for some seconds or datagrams); before that it is `half_open`. Default 5 min (RFC 4787 REQ-5).
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            half_open: Duration::from_secs(30),
            established: Duration::from_secs(7440),
            closing: Duration::from_secs(120),
            udp: Duration::from_secs(300),
        }
    }
}

/// A server behind a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Unique within its service.
    pub name: String,
    /// Of the VIP's family; with `ipip` an IPv4 VIP may have IPv6 backends.
    pub address: IpAddr,
    /// The server's port; `None`: that of the packet, for services of several ports.
    pub port: Option<NonZeroU16>,
    /// Share of new connections relative to the others, 0 to 256; 0: none.
    pub weight: u16,
    /// Gets new connections only while no backend that is not a backup can take any.
    #[serde(default)]
    pub backup: bool,
}

impl Backend {
    /// Address and port; port 0 stands for that of the packet.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port.map_or(0, NonZeroU16::get))
    }
}

/// How the backends of a service are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What counts as a success.
    pub probe: Probe,
    /// From the start of one probe to the start of the next; not less than `timeout`.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// A random time up to this is added to each interval, so that probes do not march in step.
    pub jitter: Duration,
    /// So many successes in a row and a backend that was down is up; a new one needs a single success.
    pub rise: u32,
    /// So many failures in a row and a backend that was up is down.
    pub fall: u32,
    /// Another port than the backend's own; always given where a backend has none of its own that speaks TCP: UDP, and
    /// services of several ports.
    pub port: Option<NonZeroU16>,
}

/// What counts as a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection is accepted.
    Tcp,
    /// An HTTP request gets one of the expected statuses.
    Http(HttpProbe),
    /// The same over TLS, the certificate verified.
    Https {
        /// The request.
        http: HttpProbe,
        /// PEM file with the certificate authorities that may have signed; it existed and parsed when the file was read.
        ca: PathBuf,
        /// The name that the certificate must carry, also sent as SNI.
        server_name: String,
    },
}

/// The request of an HTTP probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// Begins with `/`. Default `/`.
    pub path: String,
    /// The Host header; default: the server name (HTTPS) or the backend's address.
    pub host: Option<String>,
    /// Any of these is a success, each 100 to 599. Default 200.
    pub expect_status: Vec<u16>,
}

/// A service `www` with `web1` and `web2`, for tests of other modules.
#[cfg(test)]
pub(crate) fn test_config() -> Config {
    let backend = |name: &str, address: &str| Backend {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        port: NonZeroU16::new(443),
        weight: 1,
        backup: false,
    };
    Config {
        file: PathBuf::from("lb.toml"),
        daemon: Daemon {
            interfaces: vec!["lo".to_owned()],
            xdp_mode: XdpMode::Auto,
            max_connections: 1_000_000,
            max_wide_connections: 125_000,
            full_nat_ports: 1024,
            selection_seed: 0,
            socket: PathBuf::from("/run/lb/lbd.sock"),
            pin_directory: "/sys/fs/bpf/lb".into(),
            socket_group: None,
            state_directory: PathBuf::from("/var/lib/lb"),
            metrics: None,
        },
        services: vec![Service {
            name: "www".to_owned(),
            vip: "203.0.113.10".parse().unwrap(),
            ports: Ports::One(NonZeroU16::new(443).unwrap()),
            protocol: Protocol::Tcp,
            mode: Mode::Nat,
            scheduler: Scheduler::RoundRobin,
            stateless: false,
            source_address: None,
            source_ports: DEFAULT_SOURCE_PORTS,
            answer_ping: true,
            slow_start: Duration::ZERO,
            manage_vip: None,
            when_all_down: WhenAllDown::Refuse,
            on_down: OnDown::Keep,
            drain_timeout: None,
            timeouts: Timeouts::default(),
            health: Some(HealthCheck {
                probe: Probe::Tcp,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                jitter: Duration::from_millis(200),
                rise: 2,
                fall: 3,
                port: None,
            }),
            backends: vec![backend("web1", "198.18.1.2"), backend("web2", "198.18.2.2")],
        }],
        site: None,
    }
}
