//! The lab: a whole small site in network namespaces of this machine, with real servers and real programs.
//!
//! ```text
//! client ──────── router ──────── lb ──┬── web1   nginx (TLS for www.foobar.com) + application server
//! 198.18.0.2                 lbd here  └── web2   nginx (TLS for www.foobar.com) + application server
//!                      VIP 203.0.113.10
//! ```
//!
//! That is the default [`Topology`]; the other one has router, balancer and web servers on one layer-2 segment. Every wire
//! carries IPv4 and IPv6. What a test can ask for ([`LabOptions`]) and do:
//!
//! | for | use |
//! |---|---|
//! | one segment, a one-armed balancer | `options.topology = Topology::L2` |
//! | `nat`, `full-nat`, `dsr`, `ipip` | `options.mode`: web servers are prepared for it (VIPs on `lo`, unpacking, their way to clients), and the site's services have it |
//! | more services | [`LabOptions::add_service`] with a [`ServiceText`], [`LabOptions::add_transfer_services`], or TOML in `options.more_services` |
//! | more VIPs | `options.vips`: routed to the balancer, and on the web servers in `dsr` and `ipip` |
//! | HTTPS | [`Lab::https_requests`], IPv4 and IPv6 |
//! | bytes, both ways, TCP and UDP, checked | [`Lab::transfer`]; connection by connection: [`transfer::client`](crate::transfer::client) inside [`Namespace::run`] |
//! | fragments | [`Datagrams::transfer`](crate::transfer::client::Datagrams::transfer) with blocks of more than 1,400 bytes |
//! | loss | [`Lab::lose`] |
//! | a round trip time, reordering | `options.wan = Some(Wan { .. })` |
//! | path MTU discovery | `options.client_mtu = 1280` |
//! | many answers a second, of a size | `options.bodies`: nginx has them itself, on [`BODY_PORTS`] |
//! | backends that answer nothing | [`Backends::Sinks`], [`Topology::sink`] |
//!
//! In the tests' crate there are besides: `lb_tests::frame_generator` (floods of spoofed frames), and in
//! `tests/netns/support` `capture` (what goes over a wire), `held` (thousands of open connections) and `tunnel`.
//!
//! Everything of a lab carries its prefix: the namespaces `PREFIX-client` …, the directory `/run/PREFIX` (not under
//! `target/`, which belongs to an ordinary user; and short enough for a socket's name) and the lock `/run/PREFIX.lock`.
//! [`Lab::up`] first removes what a run with this prefix left that was killed. Nothing outside is touched.

mod balancer;
mod bpf_filesystem;
mod certificates;
mod command;
mod impairment;
mod leftovers;
mod namespace;
mod network;
mod nginx;
mod node;
mod options;
mod processes;
mod requests;
mod services;
mod topology;
mod transfers;
mod wan;
mod web;

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

pub use balancer::{Backend, Health, Service, Status, Traffic};
pub use certificates::{CertificateAuthority, CertificateFiles};
pub use command::{run, wait_for};
pub use namespace::Namespace;
pub use nginx::{BODY_PORTS, WebServer};
pub use node::{NOBODY, NOBODY6, Node, SITE, VIP, VIP6};
pub use options::{Binaries, LabOptions, Mode, Wan};
pub use requests::{Answer, Requests};
pub use services::{Backends, ServiceText};
pub use topology::{LB_INTERFACES, Topology};
pub use transfers::{TRANSFER_PORT, TRANSFER_PORTS};
pub use web::AppStats;

pub use crate::app::HealthManner;

use leftovers::Lock;
use processes::Processes;

/// The lab of `cargo xtask run` and `cargo xtask lab`.
pub const DEFAULT_PREFIX: &str = "lb-lab";
/// How long all backends may take to be up once the site has been handed over.
const ALL_UP: Duration = Duration::from_secs(20);

/// A lab that is up, or (after [`Lab::open`]) one that somebody else keeps up.
#[derive(Debug)]
pub struct Lab {
    options: LabOptions,
    directory: PathBuf,
    processes: Processes,
    /// Held as long as the lab is ours.
    lock: Option<Lock>,
    /// Whether dropping it takes it down.
    goes_with_us: bool,
}

impl Lab {
    /// Brings a lab up, all of it: afterwards every backend is up. Root only. On failure nothing is left.
    pub fn up(options: LabOptions) -> anyhow::Result<Self> {
        options.check()?;
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root: it makes network namespaces");
        }
        let lock = Lock::take(&options.prefix)?;
        let mut lab = Self::with(options, Some(lock));
        leftovers::remove(&lab.options.prefix, &mut lab.processes)?;
        lab.goes_with_us = true;
        lab.fill()?;
        lab.goes_with_us = !lab.options.keep;
        Ok(lab)
    }

    /// The lab of this prefix that somebody else brought up, to look at it or to stop and start servers in it. It stays up
    /// when this is dropped.
    pub fn open(prefix: &str) -> anyhow::Result<Self> {
        options::check_prefix(prefix)?;
        let file = leftovers::directory_of(prefix).join("lab.json");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("there is no lab {prefix:?}; `cargo xtask lab up` makes one"))?;
        let mut options: LabOptions =
            serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
        options.keep = true;
        Ok(Self::with(options, None))
    }

    /// Takes the lab of this prefix down, if there is one.
    pub fn remove(prefix: &str) -> anyhow::Result<()> {
        options::check_prefix(prefix)?;
        let _lock = Lock::take(prefix)?;
        let mut processes = Processes::in_directory(leftovers::directory_of(prefix).join("processes"));
        leftovers::remove(prefix, &mut processes)
    }

    /// Takes it down: processes, namespaces, files.
    pub fn down(mut self) -> anyhow::Result<()> {
        self.goes_with_us = false;
        if self.lock.is_none() {
            self.lock = Some(Lock::take(&self.options.prefix)?);
        }
        leftovers::remove(&self.options.prefix, &mut self.processes)
    }

    fn with(options: LabOptions, lock: Option<Lock>) -> Self {
        let directory = leftovers::directory_of(&options.prefix);
        let processes = Processes::in_directory(directory.join("processes"));
        Self {
            options,
            directory,
            processes,
            lock,
            goes_with_us: false,
        }
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        for directory in ["processes", "state"] {
            let directory = self.file(directory);
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        self.write("lab.json", &serde_json::to_string_pretty(&self.options)?)?;
        bpf_filesystem::mount(&self.directory)?;
        network::make_wires(&self.options)?;
        self.start_relay()?;
        network::configure(&self.options, &self.directory)?;
        let authority = CertificateAuthority::create(&self.directory)?;
        let site = authority.issue("site", &[SITE])?;
        for node in Node::WEB {
            let web = self.web(node);
            web.configure(self.options.nginx_workers)?;
            if !self.options.balancer {
                web.write_static_site(&site, network::has_ipv6())?;
            }
            if !self.options.bodies.is_empty() {
                web.write_bodies(&site, &self.options.bodies)?;
            }
            self.start_web(node)?;
        }
        if self.options.balancer {
            self.write(
                "lb.toml",
                &balancer::configuration(&self.directory, &self.options),
            )?;
            self.start_lbd()?;
            let served = self.apply_site().and_then(|()| self.wait_until_all_up(ALL_UP));
            served.map_err(|error| with_log_end(&format!("{error:#}"), &self.file("lbd.log")))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let file = self.file(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// How it was made.
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// Where everything is that it wrote.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file in [`directory`](Self::directory): `lb.toml`, `lbd.log`, `lbd.sock`, `ca.pem`, `site.pem`, `site.key`, …
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The lab's certificate authority.
    pub fn authority(&self) -> anyhow::Result<CertificateAuthority> {
        CertificateAuthority::open(&self.directory)
    }

    /// A node's own IPv4 address, the one that others reach it at.
    pub fn address(&self, node: Node) -> Ipv4Addr {
        self.options.topology.address(node)
    }

    /// A node's own IPv6 address.
    pub fn address6(&self, node: Node) -> Ipv6Addr {
        self.options.topology.address6(node)
    }

    /// The balancer's interfaces, which the program is attached to.
    pub fn lb_interfaces(&self) -> &'static [&'static str] {
        self.options.topology.lb_interfaces()
    }

    /// A node's network namespace.
    pub fn namespace(&self, node: Node) -> Namespace {
        network::namespace(&self.options.prefix, node)
    }

    /// Gives a node the addresses and routes that it has lost with an interface that was down.
    pub fn restore_network(&self, node: Node) -> anyhow::Result<()> {
        network::restore(&self.options, node)
    }

    /// A command that will run on a node: only its network is the node's.
    pub fn command(&self, node: Node, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        self.namespace(node).command(program)
    }

    /// Starts a command in the background of the lab: it ends with the lab, its output goes to `LOG` in the lab's
    /// directory, and [`stop_process`](Self::stop_process) ends it before that.
    pub fn start_process(&mut self, name: &str, command: &mut Command, log: &str) -> anyhow::Result<i32> {
        let log = self.file(log);
        self.processes.start(name, command, &log, !self.options.keep)
    }

    /// Ends a process of the lab, with SIGTERM first. Whether it was running.
    pub fn stop_process(&mut self, name: &str) -> anyhow::Result<bool> {
        self.processes.stop(name)
    }

    /// Ends a process of the lab with SIGKILL, as a crash would. Whether it was running.
    pub fn kill_process(&mut self, name: &str) -> anyhow::Result<bool> {
        self.processes.stop_with(name, nix::sys::signal::Signal::SIGKILL)
    }

    /// The pid of a process of the lab (`lbd`, `web1-nginx`, `web1-app`, …) that runs.
    pub fn process(&mut self, name: &str) -> Option<i32> {
        self.processes.running(name)
    }

    /// Waits until a process that was just started is of use; fails at once, with its log's end, when it ends instead.
    fn wait_for_process(
        &mut self,
        name: &str,
        log: &Path,
        ready: impl Fn(&Self) -> Result<(), String>,
    ) -> anyhow::Result<()> {
        let outcome = wait_for(name, Duration::from_secs(10), || match ready(self) {
            Err(_) if self.processes.running(name).is_none() => Ok(false),
            Err(reason) => Err(reason),
            Ok(()) => Ok(true),
        });
        let problem = match outcome {
            Ok(true) => return Ok(()),
            Ok(false) => format!("{name} ended at once"),
            Err(error) => format!("{error:#}"),
        };
        Err(with_log_end(&problem, log))
    }
}

/// A problem with the end of the log that may explain it: the log itself goes with the lab.
fn with_log_end(problem: &str, log: &Path) -> anyhow::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().saturating_sub(15) {
        _ if lines.is_empty() => anyhow!("{problem} (nothing was logged)"),
        skipped => anyhow!("{problem}; the end of its log:\n{}", lines[skipped..].join("\n")),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.goes_with_us
            && let Err(error) = leftovers::remove(&self.options.prefix, &mut self.processes)
        {
            eprintln!(
                "warning: the lab {} was not taken down whole: {error:#}",
                self.options.prefix
            );
        }
    }
}
