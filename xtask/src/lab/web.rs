//! The web servers of a lab: starting, stopping, asking.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::command::run;
use super::nginx::WebServer;
use super::{Lab, Node, transfers};
use crate::app::HealthManner;

/// Where an application server listens, as seen from its web server.
pub(super) const APP: &str = "127.0.0.1:8080";

/// What an application server says about itself.
#[derive(Debug, Clone, Deserialize)]
pub struct AppStats {
    /// Its name.
    pub server: String,
    /// Requests but for health probes.
    pub requests: u64,
    /// Health probes.
    pub health: u64,
}

impl Lab {
    /// The files of a web server.
    pub fn web(&self, node: Node) -> WebServer {
        WebServer::in_directory(self.file(node.name()))
    }

    /// Starts a web server: the application server and nginx. What already runs stays.
    pub fn start_web(&mut self, node: Node) -> anyhow::Result<()> {
        self.start_app(node)?;
        self.start_nginx(node)
    }

    /// Stops a web server, all of it: its port refuses connections, existing ones are closed.
    pub fn stop_web(&mut self, node: Node) -> anyhow::Result<()> {
        self.processes.stop(&format!("{node}-nginx"))?;
        self.processes.stop(&format!("{node}-app"))?;
        Ok(())
    }

    /// Starts the application server of a web server.
    pub fn start_app(&mut self, node: Node) -> anyhow::Result<()> {
        let name = format!("{node}-app");
        if self.processes.running(&name).is_some() {
            return Ok(());
        }
        let mut command = self.command(node, &self.options.binaries.xtask)?;
        command.args(["lab-app", "--name", node.name(), "--listen", APP]);
        for address in transfers::addresses(&self.options, node) {
            command.arg("--transfer").arg(address.to_string());
        }
        let log = self.web(node).app_log();
        self.processes
            .start(&name, &mut command, &log, !self.options.keep)?;
        self.wait_for_process(&name, &log, |lab| lab.can_connect(node, APP))
    }

    /// Stops the application server only: nginx answers 502.
    pub fn stop_app(&mut self, node: Node) -> anyhow::Result<()> {
        self.processes.stop(&format!("{node}-app")).map(drop)
    }

    /// Starts nginx on a web server.
    pub fn start_nginx(&mut self, node: Node) -> anyhow::Result<()> {
        let (name, web) = (format!("{node}-nginx"), self.web(node));
        if self.processes.running(&name).is_some() {
            return Ok(());
        }
        let pid_file = web.pid_file();
        // A killed one left it; its being there is the sign that the new one is ready.
        let _ = fs::remove_file(&pid_file);
        let line = web.command_line();
        let (program, arguments) = line.split_first().context("the nginx command is empty")?;
        let mut command = self.command(node, program)?;
        command.args(arguments);
        self.processes
            .start(&name, &mut command, &web.error_log(), !self.options.keep)?;
        self.wait_for_process(&name, &web.error_log(), |_| match fs::metadata(&pid_file) {
            Ok(file) if file.len() > 0 => Ok(()),
            _ => Err(format!("it has not written {}", pid_file.display())),
        })
    }

    /// Stops nginx only.
    pub fn stop_nginx(&mut self, node: Node) -> anyhow::Result<()> {
        self.processes.stop(&format!("{node}-nginx")).map(drop)
    }

    /// What a web server's application server says about itself.
    pub fn app_stats(&self, node: Node) -> anyhow::Result<AppStats> {
        let url = format!("http://{APP}/stats");
        let stats = run(self.command(node, "curl")?.args(["-sS", "--max-time", "1", &url]))?;
        serde_json::from_str(&stats).with_context(|| format!("cannot read the statistics of {node}"))
    }

    /// Has a web server's application answer its health probes in another manner.
    pub fn set_health_manner(&self, node: Node, manner: HealthManner) -> anyhow::Result<()> {
        let url = format!("http://{APP}/health/{}", manner.name());
        run(self
            .command(node, "curl")?
            .args(["-sSf", "--max-time", "2", &url]))
        .map(drop)
    }

    /// Whether a TCP connection from a node to an address is accepted; if not, why.
    pub fn can_connect(&self, node: Node, address: &str) -> Result<(), String> {
        let connected = self.namespace(node).run(|| {
            let address: SocketAddr = address.parse()?;
            Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1))?)
        });
        connected
            .map(drop)
            .map_err(|error| format!("{address} from {node}: {error:#}"))
    }
}
