//! wrk: as many requests as go through, and how long each took.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::candidate::{Candidate, Scheme};
use crate::bench::names::row;
use crate::lab::{Lab, Node, SITE, Topology};
use crate::process::shown;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Workload {
    /// Whether each request has a connection of its own.
    pub(super) new_connections: bool,
    /// Bytes of each answer's body.
    pub(super) body: usize,
    /// With TLS or without.
    pub(super) scheme: Scheme,
}

impl Workload {
    /// As in the report.
    pub(super) fn name(self) -> String {
        let body = match self.body {
            size if size >= 1 << 20 => format!("{} MB", size >> 20),
            size => format!("{} KB", size >> 10),
        };
        row::site(self.scheme == Scheme::Https, !self.new_connections, &body)
    }
}

/// What a run gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    /// Answers per second.
    pub(super) rate: f64,
    /// µs, of 50, 99 and 99.9 in a hundred answers at most.
    pub(super) latency: [f64; 3],
    /// Connections and requests that went wrong.
    pub(super) errors: f64,
}

/// A thread for each of the two addresses.
const THREADS: &str = "2";
/// Connections at a time.
pub(super) const CONNECTIONS: u32 = 50;

/// Each thread has one address, in turn: with two addresses half of the connections go to each. wrk is told by a script,
/// and about ports, too, for which bare systems have no /etc/services.
const SCRIPT: &str = r#"local ports = { http = "80", https = "443" }
local number = 0
function wrk.resolve(host, service)
  wrk.addrs = {}
  for _, address in ipairs({ ADDRESSES }) do
    for _, found in ipairs(wrk.lookup(address, ports[service] or service)) do
      table.insert(wrk.addrs, found)
    end
  end
end
function setup(thread)
  thread.addr = wrk.addrs[number % #wrk.addrs + 1]
  number = number + 1
end
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("FIGURES %d %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// Runs wrk on the client.
pub(super) fn run(
    lab: &Lab,
    topology: Topology,
    candidate: Candidate,
    workload: Workload,
    duration: Duration,
) -> Result<Figures> {
    let script = lab.file("wrk.lua");
    let addresses = candidate
        .addresses(topology)
        .map(|address| format!("\"{address}\""));
    fs::write(&script, SCRIPT.replace("ADDRESSES", &addresses.join(", ")))
        .context("cannot write a script for wrk")?;
    let mut command = lab.command(Node::Client, "wrk")?;
    command.arg("--script").arg(&script);
    command.args(["--threads", THREADS, "--latency", "--timeout", "5s"]);
    command.arg("--connections").arg(CONNECTIONS.to_string());
    command.args(["--duration", "60s"]);
    if workload.new_connections {
        command.args(["--header", "Connection: close"]);
    }
    let (scheme, port) = (workload.scheme.name(), candidate.port(workload.scheme));
    command.arg(format!("{scheme}://{SITE}:{port}/{}", workload.body));
    let printed = run_for(&mut command, duration)?;
    read(&printed).with_context(|| format!("cannot read what wrk printed:\n{printed}"))
}

/// Lets it end with a SIGINT, of which it makes no more than the end of its time: that can be no part of a second otherwise.
fn run_for(command: &mut Command, duration: Duration) -> Result<String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.with_context(|| format!("cannot start {}", shown(command)))?;
    thread::sleep(duration);
    // It is not reaped before `wait_with_output`, so that the number is still its own.
    let interrupted = kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT);
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {}", shown(command)))?;
    interrupted.context("cannot end wrk")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} failed ({}): {printed}{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

fn read(printed: &str) -> Option<Figures> {
    let line = printed.lines().find_map(|line| line.strip_prefix("FIGURES "))?;
    let numbers: Vec<f64> = line
        .split(' ')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let &[requests, microseconds, p50, p99, p999, errors] = numbers.as_slice() else {
        return None;
    };
    Some(Figures {
        rate: requests * 1e6 / microseconds,
        latency: [p50, p99, p999],
        errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let printed = "Requests/sec:   9.00\nFIGURES 2000 500000 120 450 900 3\n";
        let figures = Figures {
            rate: 4000.0,
            latency: [120.0, 450.0, 900.0],
            errors: 3.0,
        };
        assert_eq!(read(printed), Some(figures));
        assert_eq!(read("FIGURES 2000 500000 120 450 900\n"), None);
        assert_eq!(read("Requests/sec: 9.00\n"), None);
    }

    #[test]
    fn workloads_have_names() {
        let workload = Workload {
            new_connections: true,
            body: 1 << 20,
            scheme: Scheme::Https,
        };
        assert_eq!(workload.name(), "HTTPS, connection per request, 1 MB");
    }
}
