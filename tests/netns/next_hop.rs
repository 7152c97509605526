//! Where a backend's packets go, when the neighbour changes or is not known yet.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use lb::api::types::Counters;
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, run};

use crate::support::lbctl::json;
use crate::support::wrk::Wrk;
use crate::support::{connections, measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("next_hop/backend_gets_another_mac", backend_gets_another_mac),
        Case::new("next_hop/unknown_at_start", unknown_at_start),
    ]
}

const NEW_MAC: &str = "02:00:00:00:aa:01";

fn backend_gets_another_mac() -> Result<()> {
    let lab = site::up("lb-t-mac")?;
    let load = Wrk::start(&lab, 6)?;
    thread::sleep(Duration::from_secs(1));
    let old = site::backend(&lab, "www", "web1")?.next_hop;
    run(lab
        .command(Node::Web1, "ip")?
        .args(["link", "set", "eth0", "address", NEW_MAC]))?;
    run(lab
        .command(Node::Lb, "ip")?
        .args(["neighbour", "delete", "198.18.1.2", "dev", "web1"]))?;
    let new = site::wait_for_backend(&lab, "www", "web1", Duration::from_secs(3), |backend| {
        backend.next_hop == Some(format!("{NEW_MAC} on web1"))
    })?;
    ensure!(old != new.next_hop, "the MAC address was {NEW_MAC} before");
    let before = site::answered(&lab, Node::Web1)?;
    let figures = load.end_without_errors()?;
    measured(&format!(
        "wrk over a change of MAC address: {} requests, no error",
        figures.requests
    ));
    ensure!(
        site::answered(&lab, Node::Web1)? > before + 100,
        "web1 got next to nothing afterwards"
    );
    lab.wait_until_all_up(Duration::from_secs(5))?;
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

/// The first packets come while the neighbours do not answer yet. Without probes, nobody else asks for them.
fn unknown_at_start() -> Result<()> {
    let mut lab = site::up("lb-t-unknown")?;
    ensure!(lab.stop_lbd()?, "lbd was not running");
    let tcp_probe =
        "type = \"tcp\"\ninterval = \"500ms\"\ntimeout = \"300ms\"\njitter = \"50ms\"\nrise = 2\nfall = 2\n";
    site::edit(&lab, tcp_probe, "type = \"none\"\n")?;
    answer_arp(&lab, false)?;
    for interface in ["web1", "web2", "uplink"] {
        run(lab
            .command(Node::Lb, "ip")?
            .args(["neighbour", "flush", "dev", interface]))?;
    }
    lab.start_lbd()?;
    let backend = site::backend(&lab, "www-http", "web1")?;
    ensure!(backend.eligible && backend.next_hop.is_none(), "{backend:?}");
    thread::scope(|scope| {
        let connecting = scope.spawn(|| connections::make(&lab, 2));
        thread::sleep(Duration::from_millis(300));
        answer_arp(&lab, true)?;
        connecting.join().map_err(|_| anyhow!("a thread panicked"))?
    })?;
    let counters: Counters = json(&lab, &["counters"])?;
    let packets = |name: &str| {
        let outcome = counters.outcomes.iter().find(|outcome| outcome.name == name);
        outcome.map_or(0, |outcome| outcome.packets)
    };
    let by_kernel = packets("to_backend_by_kernel");
    let by_program = packets("to_backend");
    measured(&format!(
        "to backends: {by_kernel} packets by the kernel, then {by_program} by the program"
    ));
    ensure!(
        by_kernel >= 2 && by_program > 0,
        "{by_kernel} by the kernel, {by_program} by the program"
    );

    // And with the very first packet after an entry is gone.
    for interface in ["web1", "web2"] {
        run(lab
            .command(Node::Lb, "ip")?
            .args(["neighbour", "flush", "dev", interface]))?;
        connections::make(&lab, 2)?;
    }
    let service = site::service(&lab, "www-http")?;
    ensure!(
        service.backends.iter().all(|it| it.traffic.opened == 3),
        "{service:?}"
    );
    lab.down()
}

fn answer_arp(lab: &Lab, answer: bool) -> Result<()> {
    for node in Node::WEB {
        let arp = if answer { "on" } else { "off" };
        run(lab.command(node, "ip")?.args(["link", "set", "eth0", "arp", arp]))?;
    }
    Ok(())
}
