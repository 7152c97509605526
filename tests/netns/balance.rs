//! Shares are exact, clients' addresses arrive, and the counters tell what happened.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::api::types::{Connections, Counters, Service};
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, SITE, VIP, run, wait_for};

use crate::support::connections;
use crate::support::counted::nothing_wrong;
use crate::support::lbctl::{json, lbctl};
use crate::support::{measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("balance/hundred_requests_half_each", hundred_requests_half_each),
        Case::new(
            "balance/thousand_connections_on_all_cpus",
            thousand_connections_on_all_cpus,
        ),
        Case::new("balance/connections_are_listed", connections_are_listed),
        Case::new("balance/metrics_agree", metrics_agree),
    ]
}

fn hundred_requests_half_each() -> Result<()> {
    let lab = site::up("lb-t-half")?;
    site::assert_split(&lab, 100, 50, 50)?;
    for node in Node::WEB {
        // nginx writes its line after the response has gone out.
        wait_for("the access log", Duration::from_secs(2), || logged(&lab, node))?;
    }
    let url = format!("http://{SITE}/somewhere?a=b");
    let head = run(lab.curl(VIP)?.args(["--head", &url]))?;
    ensure!(head.starts_with("HTTP/1.1 301 "), "{head}");
    let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
    ensure!(
        location == Some(&format!("https://{SITE}/somewhere?a=b")),
        "HTTP leads to {location:?}"
    );
    lab.down()
}

/// 50 requests in a web server's access log, all from the client's own address.
fn logged(lab: &Lab, node: Node) -> Result<(), String> {
    let log = fs::read_to_string(lab.web(node).access_log()).map_err(|error| error.to_string())?;
    let requests = log.lines().filter(|line| line.contains("\"GET /request/"));
    let from_client = format!("{} ", Node::Client.address());
    let (own, other): (Vec<_>, Vec<_>) = requests.partition(|line| line.starts_with(&from_client));
    if (own.len(), other.len()) == (50, 0) {
        return Ok(());
    }
    Err(format!(
        "{node} logged {} from the client and {other:?}",
        own.len()
    ))
}

fn thousand_connections_on_all_cpus() -> Result<()> {
    const COUNT: u64 = 1000;
    let lab = site::up("lb-t-exact")?;
    connections::make(&lab, 1000)?;
    let service = wait_for("all connections to end", Duration::from_secs(5), || {
        let service = site::service(&lab, "www-http").map_err(|error| format!("{error:#}"))?;
        match service.traffic.connections {
            0 => Ok(service),
            left => Err(format!("{left} are left")),
        }
    })?;
    let opened: Vec<u64> = service.backends.iter().map(|it| it.traffic.opened).collect();
    measured(&format!("{COUNT} connections: {opened:?}"));
    ensure!(opened == [COUNT / 2, COUNT / 2], "shared {opened:?}");
    assert_plausible(&service, COUNT)?;
    let requests = Node::WEB.map(|node| redirects(&lab, node));
    for redirects in requests {
        let redirects = redirects?;
        ensure!(redirects == 500, "a server redirected {redirects} times");
    }
    nothing_wrong(&lab)?;
    lab.down()
}

/// A connection with a request and an answer is at least SYN, ACK with the request, ACK and FIN, ACK one way, SYN+ACK,
/// the answer, and FIN the other way, each at least 54 bytes.
fn assert_plausible(service: &Service, opened: u64) -> Result<()> {
    let total = service.traffic;
    ensure!(total.opened == opened, "{} opened of {opened}", total.opened);
    let sum = |field: fn(&lb::api::types::Traffic) -> u64| -> u64 {
        service
            .backends
            .iter()
            .map(|backend| field(&backend.traffic))
            .sum()
    };
    ensure!(sum(|it| it.packets_in) == total.packets_in, "{service:?}");
    ensure!(sum(|it| it.bytes_out) == total.bytes_out, "{service:?}");
    for (what, packets, bytes) in [
        ("in", total.packets_in, total.bytes_in),
        ("out", total.packets_out, total.bytes_out),
    ] {
        ensure!(
            (3 * opened..=10 * opened).contains(&packets) && (packets * 54..packets * 600).contains(&bytes),
            "{packets} packets and {bytes} bytes {what} for {opened} connections"
        );
    }
    Ok(())
}

fn redirects(lab: &Lab, node: Node) -> Result<usize> {
    let log = fs::read_to_string(lab.web(node).access_log())?;
    Ok(log
        .lines()
        .filter(|line| line.contains("\"GET / HTTP/1.1\" 301 "))
        .count())
}

fn connections_are_listed() -> Result<()> {
    let lab = site::up("lb-t-list")?;
    let held = (0..4)
        .map(|_| connections::open(&lab))
        .collect::<Result<Vec<_>>>()?;
    let count = |filter: &[&str]| -> Result<(u64, usize)> {
        let listed: Connections = json(&lab, &[&["connection", "list"], filter].concat())?;
        Ok((listed.total, listed.connections.len()))
    };
    let client = Node::Client.address().to_string();
    let expected: [(&[&str], (u64, usize)); 8] = [
        (&[], (4, 4)),
        (&["--limit", "1"], (4, 1)),
        (&["--service", "www-http"], (4, 4)),
        (&["--service", "www"], (0, 0)),
        (&["--backend", "web1"], (2, 2)),
        (&["--client", &client], (4, 4)),
        (&["--client", "198.18.0.99"], (0, 0)),
        (&["--backend", "web2", "--state", "established"], (2, 2)),
    ];
    for (filter, expected) in expected {
        let counted = count(filter)?;
        ensure!(counted == expected, "{filter:?}: {counted:?}, not {expected:?}");
    }
    let ports = held.iter().map(|it| Ok(it.local_addr()?.port().to_string()));
    let page = lbctl(&lab, &["connection", "list"])?;
    for port in ports.collect::<Result<Vec<_>>>()? {
        ensure!(page.out.contains(&format!("{client}:{port}")), "{page:?}");
    }
    for (filter, code) in [
        (["--service", "nobody"], 4),
        (["--backend", "nobody"], 4),
        (["--state", "asleep"], 1),
    ] {
        let said = lbctl(&lab, &["connection", "list", filter[0], filter[1]])?;
        ensure!(said.code == code && said.err.contains(filter[1]), "{said:?}");
    }
    lab.down()
}

fn metrics_agree() -> Result<()> {
    let lab = site::up("lb-t-metrics")?;
    site::assert_split(&lab, 10, 5, 5)?;
    let _held = [
        connections::open(&lab)?,
        connections::open(&lab)?,
        connections::open(&lab)?,
    ];
    lbctl(&lab, &["backend", "drain", "www/web2"])?;
    let status = wait_for("the requests' connections to end", Duration::from_secs(5), || {
        let status = site::status(&lab).map_err(|error| format!("{error:#}"))?;
        match status.connections {
            3 => Ok(status),
            left => Err(format!("{left} connections")),
        }
    })?;
    let metrics = run(lab.command(Node::Lb, "curl")?.args([
        "-sS",
        "--max-time",
        "5",
        "http://127.0.0.1:9100/metrics",
    ]))?;
    let value = |sample: &str| -> Result<f64> {
        let found = metrics
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        Ok(found
            .with_context(|| format!("no {sample} in\n{metrics}"))?
            .parse()?)
    };
    let assert_is = |sample: &str, wanted: u64| -> Result<()> {
        let is = value(sample)?;
        ensure!(is == wanted as f64, "{sample} is {is}, lbctl says {wanted}");
        Ok(())
    };
    assert_is("lb_table_connections", status.connections)?;
    assert_is("lb_table_max_connections", status.max_connections)?;
    for backend in status.services.iter().flat_map(|service| &service.backends) {
        let labels = format!("{{service=\"{}\",backend=\"{}\"", backend.service, backend.name);
        for (name, wanted) in [
            ("lb_backend_connections", backend.traffic.connections),
            ("lb_backend_connections_opened_total", backend.traffic.opened),
            ("lb_backend_eligible", u64::from(backend.eligible)),
            ("lb_backend_weight", u64::from(backend.weight)),
        ] {
            let sample = metrics
                .lines()
                .find(|line| line.starts_with(&format!("{name}{labels}")));
            let sample = sample.with_context(|| format!("no {name}{labels} in\n{metrics}"))?;
            let (sample, _) = sample.rsplit_once(' ').context("a sample without value")?;
            assert_is(sample, wanted)?;
        }
    }
    let counters: Counters = json(&lab, &["counters"])?;
    for outcome in counters
        .outcomes
        .iter()
        .filter(|it| it.action == "drop" || it.name == "to_backend")
    {
        assert_is(
            &format!(
                "lb_packets_total{{outcome=\"{}\",action=\"{}\"}}",
                outcome.name, outcome.action
            ),
            outcome.packets,
        )?;
    }
    lab.down()
}
