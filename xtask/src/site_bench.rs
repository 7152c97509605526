//! The whole site under load: requests per second and latency through the balancer, through HAProxy in its place, and to
//! one web server directly.
//!
//! Every path has the same wires, the same TLS and the same offloads (none); `direct` crosses the balancer's host too, as
//! packets that are not the balancer's business. Runs of the paths alternate, so that a slow minute of the machine hits
//! all of them; the median of each path counts. Only ratios mean anything on another machine.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};

use crate::lab::{self, Binaries, Lab, LabOptions, Node, SITE, VIP, wait_for};
use crate::signals;

/// Not the lab of `cargo xtask run`, which may be up.
const PREFIX: &str = "lb-bench";
/// Where HAProxy listens on the balancer's host.
const HAPROXY_PORT: u16 = 8443;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Runs of each measurement.
    pub repeat: u32,
    /// Of one run.
    pub duration: Duration,
    /// Of the client at a time.
    pub connections: u32,
}

/// A way from the client to the web servers.
#[derive(Debug, Clone, Copy)]
struct Route {
    name: &'static str,
    address: Ipv4Addr,
    port: u16,
}

const WARM_UP: Duration = Duration::from_secs(1);

/// One run of `wrk`.
#[derive(Debug, Clone)]
struct Figures {
    requests_per_second: f64,
    /// As `wrk` prints them: `1.23ms`.
    median_latency: String,
    p99_latency: String,
    /// Connections or requests that went wrong.
    errors: u64,
}

/// Brings up a lab of its own, measures, prints the table.
///
/// # Errors
/// When the lab does not come up, or a run gives no figures.
pub fn run(binaries: Binaries, plan: &Plan) -> Result<()> {
    signals::catch()?;
    let mut options = LabOptions::new(PREFIX, binaries);
    // nginx shall not close connections for an operator's drain while we measure.
    options.keepalive_time = Duration::from_secs(3600);
    // One web server alone can use the whole machine, or `direct` would be slower for having one and not two.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    options.nginx_workers = u32::try_from(processors).unwrap_or(1);
    let mut lab = Lab::up(options)?;
    for node in [Node::Client, Node::Lb] {
        lab.namespace(node)
            .sysctl(&[("ipv4/ip_local_port_range", "1024 65535")])?;
    }
    start_haproxy(&mut lab)?;
    let routes = [
        Route {
            name: "direct, one server",
            address: Node::Web1.address(),
            port: 443,
        },
        Route {
            name: "this balancer",
            address: VIP,
            port: 443,
        },
        Route {
            name: "HAProxy (TCP)",
            address: Node::Lb.address(),
            port: HAPROXY_PORT,
        },
    ];
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "requests",
        "path",
        "per second",
        "of direct",
        "median",
        "99 %",
        "errors",
    ]);
    for column in 2..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (name, new_connections) in [("keep-alive", false), ("new connection", true)] {
        let medians = measure(&lab, plan, &routes, new_connections)?;
        let direct = medians.first().map_or(0.0, |figures| figures.requests_per_second);
        for (route, figures) in routes.iter().zip(medians) {
            table.add_row([
                name.to_owned(),
                route.name.to_owned(),
                format!("{:.0}", figures.requests_per_second),
                format!("{:.2}", figures.requests_per_second / direct),
                figures.median_latency,
                figures.p99_latency,
                figures.errors.to_string(),
            ]);
        }
    }
    lab.down()?;
    println!("{}\n", table.trim_fmt());
    println!(
        "HTTPS, {} connections, medians of {} runs of {} s, paths taking turns. Client, balancer and servers share the\n\
         {processors} processors of this machine. `direct` leads to one web server, the other paths to two.",
        plan.connections,
        plan.repeat,
        plan.duration.as_secs(),
    );
    Ok(())
}

/// The median run of each route.
fn measure(lab: &Lab, plan: &Plan, routes: &[Route], new_connections: bool) -> Result<Vec<Figures>> {
    for route in routes {
        wrk(lab, plan, route, new_connections, WARM_UP)?;
    }
    let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); routes.len()];
    for _ in 0..plan.repeat {
        for (route, runs) in routes.iter().zip(&mut runs) {
            if signals::interrupted() {
                bail!("interrupted");
            }
            runs.push(wrk(lab, plan, route, new_connections, plan.duration)?);
        }
    }
    let medians = runs.into_iter().map(|mut runs| {
        runs.sort_by(|one, other| one.requests_per_second.total_cmp(&other.requests_per_second));
        let middle = runs.len() / 2;
        runs.into_iter().nth(middle).context("there was no run")
    });
    medians.collect()
}

/// Runs `wrk` on the client.
fn wrk(lab: &Lab, plan: &Plan, route: &Route, new_connections: bool, duration: Duration) -> Result<Figures> {
    let mut command = lab.wrk(route.address)?;
    command.args(["--threads", "2", "--latency", "--timeout", "5s"]);
    command
        .arg("--connections")
        .arg(plan.connections.max(2).to_string());
    command.arg("--duration").arg(format!("{}s", duration.as_secs()));
    if new_connections {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("https://{SITE}:{}/bench", route.port));
    let printed = lab::run(&mut command)?;
    let figures = read_figures(&printed)
        .with_context(|| format!("{}: cannot read what wrk printed:\n{printed}", route.name))?;
    if figures.requests_per_second <= 0.0 {
        bail!("{}: not one request was answered:\n{printed}", route.name);
    }
    Ok(figures)
}

fn read_figures(printed: &str) -> Option<Figures> {
    let after = |label: &str| {
        let mut lines = printed.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix(label)).map(str::trim)
    };
    let numbers = |text: &str| -> u64 {
        text.split([' ', ','])
            .filter_map(|word| word.parse::<u64>().ok())
            .sum()
    };
    let errors =
        after("Socket errors:").map_or(0, numbers) + after("Non-2xx or 3xx responses:").map_or(0, numbers);
    Some(Figures {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        median_latency: after("50%")?.to_owned(),
        p99_latency: after("99%")?.to_owned(),
        errors,
    })
}

/// HAProxy on the balancer's host, in TCP mode, in front of the same web servers.
fn start_haproxy(lab: &mut Lab) -> Result<()> {
    let address = Node::Lb.address();
    let mut text = format!(
        "global\n    maxconn 6000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
         listen site\n    bind {address}:{HAPROXY_PORT}\n    balance roundrobin\n"
    );
    for node in Node::WEB {
        writeln!(text, "    server {node} {}:443", node.address())?;
    }
    let file = lab.file("haproxy.cfg");
    fs::write(&file, text).context("cannot write HAProxy's configuration")?;
    let mut command: Command = lab.command(Node::Lb, "haproxy")?;
    lab.start_process("haproxy", command.arg("-db").arg("-f").arg(&file), "haproxy.log")?;
    let target = format!("{address}:{HAPROXY_PORT}");
    wait_for("HAProxy", Duration::from_secs(5), || {
        lab.can_connect(Node::Client, &target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let printed = "Running 5s test @ https://www.foobar.com:443/bench\n  2 threads and 50 connections\n  \
            Latency Distribution\n     50%    1.23ms\n     75%    2.00ms\n     90%    3.00ms\n     99%    4.56ms\n  \
            1000 requests in 5.00s, 1.00MB read\n  Socket errors: connect 1, read 2, write 0, timeout 4\n  \
            Non-2xx or 3xx responses: 3\nRequests/sec:  12345.67\nTransfer/sec:  1.00MB\n";
        let figures = read_figures(printed).unwrap();
        assert_eq!(figures.requests_per_second, 12345.67);
        assert_eq!(
            (figures.median_latency.as_str(), figures.p99_latency.as_str()),
            ("1.23ms", "4.56ms")
        );
        assert_eq!(figures.errors, 10);
    }
}
