//! What can be typed. Doc comments are the help.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Parser, Subcommand};
use clap_complete::Shell;

use super::failure::EXIT_STATUSES;
use crate::api::socket::DEFAULT_SOCKET;
use crate::config::limits;

/// Looks at and steers lbd, the load balancer.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, after_help = EXIT_STATUSES)]
pub(super) struct Args {
    /// The socket on which lbd listens (daemon.socket in its configuration)
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// Print what the API says, exact and complete, as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything at a glance
    #[command(after_help = "Example:\n  lbctl status")]
    Status,
    /// Look at services
    #[command(
        subcommand,
        after_help = "Examples:\n  lbctl service list\n  lbctl service show www"
    )]
    Service(ServiceCommand),
    /// Look at backends and change them
    #[command(
        subcommand,
        after_help = "web1 means the backends of that name in every service, www/web1 the one in www.\n\n\
                      Examples:\n  lbctl backend list\n  lbctl backend drain web1 --wait\n  lbctl backend undrain web1"
    )]
    Backend(BackendCommand),
    /// Look at connections
    #[command(
        subcommand,
        after_help = "Example:\n  lbctl connection list --client 198.18.0.2"
    )]
    Connection(ConnectionCommand),
    /// Packets by the decision that was made about them
    #[command(after_help = "Example:\n  lbctl counters --all")]
    Counters {
        /// Those that are zero as well
        #[arg(long)]
        all: bool,
    },
    /// Show what a configuration would change, and what would become of live connections; changes nothing
    #[command(
        after_help = "Without FILE: what `lbctl reload` would change. Connections are counted as they are now. For services that \
                      hash (maglev, source-hash) it also says how many of them would go to another backend if this balancer \
                      did not remember them, as after the loss of its state or on another balancer. Daemon settings cannot \
                      change without a restart: a file that changes them is refused (exit status 5).\n\n\
                      Examples:\n  lbctl plan new.toml\n  lbctl --json plan new.toml | jq .impact"
    )]
    Plan {
        /// The file; lbd need not be able to read it
        file: Option<PathBuf>,
        /// As apply --force would do it
        #[arg(long, requires = "file")]
        force: bool,
    },
    /// Make a file the configuration, whole or not at all
    #[command(
        after_help = "The file's text replaces that of lbd's own configuration file (lbctl status names it), so that a later reload \
                      or restart does not go back to what was before; relative paths in it begin at the directory of that \
                      one. What was there is kept beside it as FILE.previous.\n\n\
                      With --confirm the configuration from before comes back by itself, file and all, unless lbctl confirm \
                      says in time that all is well: also if lbd is restarted or killed meanwhile, and after a restart of the \
                      machine. What was taken back is kept as FILE.rolled-back. Until then nothing else can be applied, and a \
                      file that was edited meanwhile is not reloaded.\n\n\
                      Examples:\n  lbctl plan new.toml && lbctl apply --confirm 60s new.toml\n  lbctl confirm"
    )]
    Apply {
        /// The file; lbd need not be able to read it
        file: PathBuf,
        /// Go back by itself unless confirmed within this time, 1s to 24h
        #[arg(long, value_name = "TIME", value_parser = confirm_time)]
        confirm: Option<Duration>,
        /// Reset the connections of what is removed, instead of letting them end
        #[arg(long)]
        force: bool,
    },
    /// Keep what was applied with --confirm
    #[command(after_help = "Example:\n  lbctl confirm")]
    Confirm,
    /// Take back what was applied with --confirm, now
    #[command(
        after_help = "After it was confirmed, or without --confirm, the configuration from before is still there, beside lbd's own \
                      file, and can be applied: lbctl apply /etc/lb/lb.toml.previous\n\nExample:\n  lbctl rollback"
    )]
    Rollback,
    /// What would become of a packet now, and why; changes nothing
    #[command(
        after_help = "The kernel program itself is asked, by a second instance of it that writes nothing. The first question after lbd's\n\
                      start takes a second. A TCP packet is an ACK of a connection that there is, else a SYN, unless flags are given.\n\n\
                      Examples:\n  lbctl why tcp 198.18.0.2:40000 203.0.113.10:443\n  \
                      lbctl why tcp 198.18.0.2:40000 203.0.113.10:443 --fin --ack\n  \
                      lbctl why udp '[2001:db8::2]:40000' '[2001:db8:ffff::10]:53' --from-backend dns1"
    )]
    Why(super::why::WhyArgs),
    /// What is decided about packets as they come
    #[command(
        after_help = "While this runs, a second instance of the kernel program decides in the first one's stead, by the same tables, and\n\
                      tells; packets do not notice but by some hundred nanoseconds. One trace at a time.\n\n\
                      Examples:\n  lbctl trace --filter 'tcp host 198.18.0.2 port 443' --verbose\n  \
                      lbctl trace --filter 'outcome refused_no_backend outcome table_full'\n  \
                      lbctl trace --count 1000 --rate 1000 --pcapng trace.pcapng"
    )]
    Trace(super::trace::TraceArgs),
    /// Make lbd read its configuration again and apply it whole, or not at all
    #[command(after_help = "lbctl plan shows what it will do.\n\nExample:\n  lbctl plan && lbctl reload")]
    Reload,
    /// Check configuration files
    #[command(subcommand, after_help = "Example:\n  lbctl config check /etc/lb/lb.toml")]
    Config(ConfigCommand),
    /// Look for whatever on this host will keep traffic from flowing, or make it slow, and say what mends it
    #[command(
        after_help = "Looks at the kernel, bpffs, memory, the interfaces' drivers, MTUs, offloads and queues, forwarding, reverse path \
                      filters, VIPs, ARP, neighbours, ports, the clock and the site's certificate, for the configuration that lbd \
                      runs with or, if it does not run, the file. As root it sees most. With errors or warnings the exit status is 7; notes may be as they \
                      should be.\n\nExamples:\n  lbctl doctor\n  lbctl doctor --config new.toml"
    )]
    Doctor {
        /// The configuration file; default: that of the running lbd, else /etc/lb/lb.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Hand the TLS site to the web servers
    #[command(
        subcommand,
        after_help = "What the web servers need: lbctl site apply --help\n\n\
                      Examples:\n  lbctl site render\n  lbctl site apply\n  lbctl site status"
    )]
    Site(SiteCommand),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  lbctl completions bash > /etc/bash_completion.d/lbctl")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory, for packages
    #[command(hide = true)]
    ManualPages {
        /// The directory
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Every service, a line each
    #[command(after_help = "Example:\n  lbctl service list")]
    List,
    /// One service with its backends
    #[command(after_help = "Example:\n  lbctl service show www")]
    Show {
        /// The service's name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Every backend, a line each
    #[command(after_help = "Example:\n  lbctl backend list --service www")]
    List {
        /// Only this service's
        #[arg(long)]
        service: Option<String>,
    },
    /// Add a backend; it stays, over restarts too, until it is removed
    #[command(
        after_help = "Examples:\n  lbctl backend add www/web3 198.18.1.4:443 --weight 2\n  \
                      lbctl backend add www/web4 '[2001:db8::4]:443' --backup"
    )]
    Add {
        /// Service and new name: www/web3
        #[arg(value_name = "SERVICE/NAME")]
        name: QualifiedName,
        /// Where it listens: 198.18.1.4:443, [2001:db8::4]:443; without a port: on the service's
        #[arg(value_name = "ADDRESS[:PORT]")]
        endpoint: Endpoint,
        /// Share of new connections relative to the others, 0 to 256
        #[arg(long, default_value_t = 1, value_parser = weight)]
        weight: u16,
        /// Give it new connections only while none of the others can take any
        #[arg(long)]
        backup: bool,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Take a backend out for good; it keeps the connections it has until they end
    #[command(
        after_help = "What is removed drains first: it gets no new connections, and goes when the last one has ended, or \
                      has been reset after the service's drain_timeout. A client's connection is reset when it next sends \
                      something. --force resets them at once, also of a backend that is leaving already.\n\n\
                      Examples:\n  lbctl backend remove www/web3 --dry-run\n  lbctl backend remove www/web3"
    )]
    Remove {
        /// The backend: web1 (in every service) or www/web1
        name: BackendName,
        /// Reset its connections instead of letting them end
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Send no new connections to a backend; it keeps those it has
    #[command(
        after_help = "After the deadline, if there is one (or the service has a drain_timeout), what is left is reset: a client's \
                      connection when it next sends something. The deadline counts from now, over restarts too; without \
                      --deadline a drain that goes on keeps the one it has.\n\n\
                      Examples:\n  lbctl backend drain web1\n  lbctl backend drain www/web1 --wait --timeout 10m\n  \
                      lbctl backend drain web1 --deadline 1h --wait --timeout 2h"
    )]
    Drain {
        /// The backend: web1 (in every service) or www/web1
        name: BackendName,
        /// Wait until it has no connections left
        #[arg(long, conflicts_with = "only")]
        wait: bool,
        /// How long to wait; the drain stays when this is over (exit status 6)
        #[arg(long, requires = "wait", default_value = "5m", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Reset what is left after this time, 1s to 24h
        #[arg(long, value_name = "TIME", value_parser = drain_time)]
        deadline: Option<Duration>,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Undo drain
    #[command(after_help = "Example:\n  lbctl backend undrain web1")]
    Undrain {
        /// The backend: web1 (in every service) or www/web1
        name: BackendName,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Treat a backend as if it had failed
    #[command(
        after_help = "Its connections are kept or reset, as the service's on_down says; drain always keeps them.\n\nExample:\n  lbctl backend disable www/web1"
    )]
    Disable {
        /// The backend: web1 (in every service) or www/web1
        name: BackendName,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Undo disable
    #[command(after_help = "Example:\n  lbctl backend enable www/web1")]
    Enable {
        /// The backend: web1 (in every service) or www/web1
        name: BackendName,
        #[command(flatten)]
        dry: DryRun,
    },
    /// Set a backend's share of new connections
    #[command(
        group = ArgGroup::new("to").required(true).args(["weight", "reset"]),
        after_help = "Examples:\n  lbctl backend weight web1 3\n  lbctl backend weight web1 --reset"
    )]
    Weight {
        /// The backend: web1 (in every service) or www/web1
        name: BackendName,
        /// Relative to the others, 0 to 256
        #[arg(value_parser = weight)]
        weight: Option<u16>,
        /// Back to what the configuration file says
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        dry: DryRun,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConnectionCommand {
    /// Connections in the table, a line each
    #[command(after_help = "Example:\n  lbctl connection list --backend web1 --state established")]
    List {
        /// Only this service's
        #[arg(long)]
        service: Option<String>,
        /// Only this backend's
        #[arg(long)]
        backend: Option<String>,
        /// Only those of the client with this address
        #[arg(long, value_name = "ADDRESS", value_parser = address)]
        client: Option<IpAddr>,
        /// Only those in this state, such as established
        #[arg(long)]
        state: Option<String>,
        /// At most so many; lbd's default is 1,000
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration file for use on this host, without asking or telling lbd
    #[command(after_help = "Example:\n  lbctl config check /etc/lb/lb.toml")]
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SiteCommand {
    /// Show the nginx configuration that a hand-off would put in place
    #[command(after_help = "Example:\n  lbctl site render --server web1")]
    Render {
        /// Only this web server's
        #[arg(long, value_name = "NAME")]
        server: Option<String>,
    },
    /// Hand the site to the web servers, one by one, each drained first
    #[command(
        after_help = "Once on each web server, nginx.conf must include what is handed over, inside http {}:\n  \
                      include /etc/nginx/lb/current/site.conf*;\n\n\
                      A server that does not serve the new certificate afterwards is put back as it was, and the rest\n\
                      are left alone (exit status 1).\n\nExample:\n  lbctl site apply"
    )]
    Apply,
    /// Which certificate the web servers serve
    #[command(after_help = "Example:\n  lbctl site status")]
    Status,
}

/// For everything that changes a backend.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct DryRun {
    /// Only show what would change, and what would become of live connections
    #[arg(long = "dry-run")]
    pub(super) only: bool,
}

/// A backend as typed: `web1`, in every service, or `www/web1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendName {
    pub(super) service: Option<String>,
    pub(super) name: String,
}

impl FromStr for BackendName {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let (service, name) = match typed.split_once('/') {
            Some((service, name)) => (Some(service), name),
            None => (None, typed),
        };
        if name.is_empty() || name.contains('/') || service == Some("") {
            return Err(
                "expected NAME (in every service) or SERVICE/NAME, such as web1 or www/web1".to_owned(),
            );
        }
        Ok(Self {
            service: service.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

/// A backend of one service: `www/web1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QualifiedName {
    pub(super) service: String,
    pub(super) name: String,
}

impl FromStr for QualifiedName {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        match typed.parse() {
            Ok(BackendName {
                service: Some(service),
                name,
            }) => Ok(Self { service, name }),
            _ => Err("expected SERVICE/NAME, such as www/web3".to_owned()),
        }
    }
}

/// Where a backend listens; no port: the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: Option<NonZeroU16>,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        if typed.parse::<Ipv6Addr>().is_ok() {
            return Err(format!(
                "is that a port at the end? write an IPv6 address in brackets: [{typed}], or [2001:db8::4]:443 with a port"
            ));
        }
        if let Ok(address) = address(typed) {
            return Ok(Self { address, port: None });
        }
        let socket: SocketAddr = typed.parse().map_err(|_| {
            "expected ADDRESS or ADDRESS:PORT, such as 198.18.1.4:443 or [2001:db8::4]:443".to_owned()
        })?;
        let port = NonZeroU16::new(socket.port()).ok_or_else(|| "the port must be 1 to 65535".to_owned())?;
        Ok(Self {
            address: socket.ip(),
            port: Some(port),
        })
    }
}

/// An address alone, IPv6 also in the brackets that it is shown with.
fn address(typed: &str) -> Result<IpAddr, String> {
    let bare = typed.strip_prefix('[').and_then(|typed| typed.strip_suffix(']'));
    let address = match bare {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => typed.parse().ok(),
    };
    address.ok_or_else(|| "expected an address, such as 198.18.0.2 or 2001:db8::2".to_owned())
}

/// In whole seconds, as the API has it.
fn confirm_time(typed: &str) -> Result<Duration, String> {
    time(typed, limits::CONFIRM)
}

fn drain_time(typed: &str) -> Result<Duration, String> {
    time(typed, limits::BACKEND_DRAIN)
}

fn time(typed: &str, allowed: limits::Times) -> Result<Duration, String> {
    match humantime::parse_duration(typed) {
        Ok(time) if (allowed.least..=allowed.most).contains(&time) && time.subsec_nanos() == 0 => Ok(time),
        _ => Err(format!(
            "a time in whole seconds, {}, such as 90s or 5m",
            allowed.words
        )),
    }
}

fn weight(typed: &str) -> Result<u16, String> {
    match typed.parse() {
        Ok(weight @ 0..=256) => Ok(weight),
        _ => Err("a weight is a whole number from 0 to 256".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn names() {
        let name = |service: Option<&str>, name: &str| {
            Ok(BackendName {
                service: service.map(str::to_owned),
                name: name.to_owned(),
            })
        };
        assert_eq!("web1".parse(), name(None, "web1"));
        assert_eq!("www/web1".parse(), name(Some("www"), "web1"));
        for typed in ["", "/", "www/", "/web1", "a/b/c"] {
            assert!(typed.parse::<BackendName>().is_err(), "{typed}");
        }
        assert!("web1".parse::<QualifiedName>().is_err());
    }

    #[test]
    fn endpoints() {
        for (typed, address, port) in [
            ("[2001:db8::4]:443", "2001:db8::4", NonZeroU16::new(443)),
            ("[2001:db8::4]", "2001:db8::4", None),
            ("198.18.1.4:443", "198.18.1.4", NonZeroU16::new(443)),
            ("198.18.1.4", "198.18.1.4", None),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(typed.parse(), Ok(Endpoint { address, port }), "{typed}");
        }
        for typed in [
            "198.18.1.4:0",
            "[198.18.1.4]",
            "[198.18.1.4]:443",
            "198.18.1.4:",
            "2001:db8::4",
            "2001:db8::4:443",
            "[2001:db8::4",
            "web1:443",
            "198.18.1.4:65536",
        ] {
            assert!(typed.parse::<Endpoint>().is_err(), "{typed}");
        }
    }
}
