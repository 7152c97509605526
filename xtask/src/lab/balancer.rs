//! `lbd` in the lab: its configuration, and what `lbctl` says.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::bpf_filesystem;
use super::command::{run, wait_for};
use super::network;
use super::nginx::WebServer;
use super::node::{Node, SITE, VIP};
use super::services::{PACE, ServiceText};
use super::{Lab, LabOptions};
use crate::transfer::Protocol;

/// What `lbctl --json status` prints, as much of it as the lab looks at.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Every service with its backends.
    pub services: Vec<Service>,
    /// What will not work, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Status {
    /// Every backend with its service's name.
    pub fn backends(&self) -> impl Iterator<Item = (&str, &Backend)> {
        self.services
            .iter()
            .flat_map(|service| service.backends.iter().map(|it| (service.name.as_str(), it)))
    }
}

/// A service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// In the file's order.
    pub backends: Vec<Backend>,
}

/// A backend of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// `up`, `checking`, `down`, …
    pub state: String,
    /// What its probes say.
    pub health: Health,
    /// What went to it and came from it.
    pub traffic: Traffic,
}

/// What a backend's probes say.
#[derive(Debug, Clone, Deserialize)]
pub struct Health {
    /// Why, in words.
    pub reason: String,
}

/// Counters of a backend.
#[derive(Debug, Clone, Deserialize)]
pub struct Traffic {
    /// Connections in the table now.
    pub connections: u64,
    /// Connections opened.
    pub opened: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl Lab {
    /// Starts `lbd` in the background of the balancer's host, and waits until it answers.
    pub fn start_lbd(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(Node::Lb, &self.options.binaries.lbd)?;
        command.arg("--config").arg(self.file("lb.toml"));
        self.start_process("lbd", &mut command, "lbd.log")?;
        self.wait_for_process("lbd", &self.file("lbd.log"), |lab| {
            lab.status().map(drop).map_err(|error| format!("{error:#}"))
        })
    }

    /// Takes away what a stopped `lbd` has left running: what it says.
    pub fn clean_up(&self) -> anyhow::Result<String> {
        let mut command = self.command(Node::Lb, &self.options.binaries.lbd)?;
        command.arg("--cleanup").arg("--config").arg(self.file("lb.toml"));
        run(&mut command)
    }

    /// Ends `lbd` with SIGTERM and waits until it is gone; packets go their way all the same. Whether it was running.
    pub fn stop_lbd(&mut self) -> anyhow::Result<bool> {
        self.processes.stop("lbd")
    }

    /// Runs `lbctl` with this lab's socket: what it prints.
    pub fn lbctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.lbctl_command().args(arguments))
    }

    /// `lbctl` with this lab's socket; arguments follow.
    pub fn lbctl_command(&self) -> Command {
        let mut command = Command::new(&self.options.binaries.lbctl);
        command.arg("--socket").arg(self.file("lbd.sock"));
        command
    }

    /// How somebody types `lbctl` for this lab in another terminal.
    pub fn lbctl_for_humans(&self) -> String {
        let lbctl = self.options.binaries.lbctl.display();
        format!("sudo {lbctl} --socket {}", self.file("lbd.sock").display())
    }

    /// What `lbd` says about itself.
    pub fn status(&self) -> anyhow::Result<Status> {
        let status = self.lbctl(&["--json", "status"])?;
        serde_json::from_str(&status).context("cannot read what `lbctl --json status` prints")
    }

    /// Lets `lbd` hand the site to the web servers.
    pub fn apply_site(&self) -> anyhow::Result<()> {
        self.lbctl(&["site", "apply"])
            .map(drop)
            .context("the site could not be handed to the web servers")
    }

    /// Waits until every backend of every service is up, but for those that have been removed.
    pub fn wait_until_all_up(&self, timeout: Duration) -> anyhow::Result<()> {
        wait_for("all backends up", timeout, || {
            let status = self.status().map_err(|error| format!("{error:#}"))?;
            let missing: Vec<String> = status
                .backends()
                .filter(|(_, it)| !matches!(it.state.as_str(), "up" | "leaving"))
                .map(|(service, it)| format!("{service}/{} is {}: {}", it.name, it.state, it.health.reason))
                .collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(missing.join("; "))
            }
        })
    }
}

/// `lb.toml` of the lab.
pub(super) fn configuration(directory: &Path, options: &LabOptions) -> String {
    let topology = options.topology;
    let directory_name = directory.display();
    let interfaces: Vec<_> = topology
        .lb_interfaces()
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    let interfaces = interfaces.join(", ");
    let https = format!(
        "type = \"https\"\npath = \"/health\"\nca = \"{directory_name}/ca.pem\"\nserver_name = \"{SITE}\"\n{PACE}"
    );
    let www = ServiceText::new("www", VIP, 443, Protocol::Tcp, options.mode).toml(topology, &https);
    let www_http = ServiceText::new("www-http", VIP, 80, Protocol::Tcp, options.mode)
        .toml(topology, &format!("type = \"tcp\"\n{PACE}"));
    let servers: String = Node::WEB
        .iter()
        .map(|&node| site_server(directory, options, node))
        .collect();
    let (keepalive, drain) = (options.keepalive_time.as_secs(), options.drain_timeout.as_secs());
    let pins = bpf_filesystem::pin_directory(directory);
    let pins = pins.display();
    let (max_connections, more_services) = (options.max_connections, &options.more_services);
    format!(
        r#"# Written by `cargo xtask lab`.
[daemon]
interfaces = [{interfaces}]
max_connections = {max_connections}
socket = "{directory_name}/lbd.sock"
state_directory = "{directory_name}/state"
pin_directory = "{pins}"
metrics = "127.0.0.1:9100"

{www}{www_http}{more_services}[site]
server_names = ["{SITE}"]
certificate = "{directory_name}/site.pem"
key = "{directory_name}/site.key"
upstream = ["127.0.0.1:8080"]
keepalive_time = "{keepalive}s"
drain_timeout = "{drain}s"
{servers}"#
    )
}

/// `[[site.server]]`. Where there is IPv6, `lbd` reaches the web server by it, and so lets nginx listen on both.
fn site_server(directory: &Path, options: &LabOptions, node: Node) -> String {
    let (prefix, topology) = (&options.prefix, options.topology);
    let web = WebServer::in_directory(directory.join(node.name()));
    let (owned, nginx) = (web.handed_over(), web.command_line().join(" "));
    let owned = owned.display();
    let address: SocketAddr = if network::has_ipv6() {
        (topology.address6(node), 443).into()
    } else {
        (topology.address(node), 443).into()
    };
    format!(
        r#"
[[site.server]]
name = "{node}"
address = "{address}"
via = ["nsenter", "--net=/run/netns/{prefix}-{node}", "sh", "-c"]
directory = "{owned}"
nginx = "{nginx}"
"#
    )
}
