//! The daemon ends and starts again: what was changed by hand stays, and connections go on meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{LB_INTERFACES, Lab, Node, VIP, run, wait_for};

use crate::support::lbctl::lbctl;
use crate::support::{connections, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("restart/changes_by_hand_survive", changes_by_hand_survive),
        Case::new("restart/up_means_up", up_means_up),
        Case::new("restart/traffic_goes_on_without_lbd", traffic_goes_on_without_lbd),
    ]
}

fn changes_by_hand_survive() -> Result<()> {
    let mut lab = site::up("lb-t-restart")?;
    // A second address of web2, where the same nginx listens, is a third backend.
    run(lab
        .command(Node::Web2, "ip")?
        .args(["address", "add", "198.18.2.3/24", "dev", "eth0"]))?;
    for arguments in [
        &["backend", "add", "www/web3", "198.18.2.3:443", "--weight", "2"][..],
        &["backend", "weight", "www/web2", "3"],
        &["backend", "drain", "www/web1"],
        &["backend", "disable", "www-http/web2"],
    ] {
        let said = lbctl(&lab, arguments)?;
        ensure!(said.code == 0, "{said:?}");
    }
    assert_changed_by_hand(&lab)?;
    let page = lbctl(&lab, &["status"])?.out;
    for shown in [
        "CHANGED BY HAND",
        "added",
        "weight 3 (file: 1)",
        "drain",
        "disable",
    ] {
        ensure!(page.contains(shown), "no {shown:?} in\n{page}");
    }
    ensure!(lab.stop_lbd()?, "lbd was not running");
    lab.start_lbd()?;
    assert_changed_by_hand(&lab)?;
    // A crash loses nothing either.
    ensure!(lab.kill_process("lbd")?, "lbd was not running");
    lab.start_lbd()?;
    assert_changed_by_hand(&lab)?;

    for arguments in [
        &["backend", "remove", "www/web3"][..],
        &["backend", "weight", "www/web2", "--reset"],
        &["backend", "undrain", "www/web1"],
        &["backend", "enable", "www-http/web2"],
    ] {
        let said = lbctl(&lab, arguments)?;
        ensure!(said.code == 0, "{said:?}");
    }
    lab.wait_until_all_up(Duration::from_secs(5))?;
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

/// What `lbctl` calls up gets connections, and not only a moment later.
fn up_means_up() -> Result<()> {
    let mut lab = site::up("lb-t-up")?;
    for _ in 0..8 {
        ensure!(lab.stop_lbd()?, "lbd was not running");
        lab.start_lbd()?;
        lab.wait_until_all_up(Duration::from_secs(5))?;
        connections::make(&lab, 2)?;
    }
    lab.down()
}

fn assert_changed_by_hand(lab: &Lab) -> Result<()> {
    for (service, name, overrides) in [
        ("www", "web1", &["drain"][..]),
        ("www", "web2", &["weight 3 (file: 1)"]),
        ("www", "web3", &["added"]),
        ("www-http", "web1", &[]),
        ("www-http", "web2", &["disable"]),
    ] {
        let backend = site::backend(lab, service, name)?;
        ensure!(backend.overrides == overrides, "{backend:?}");
    }
    let is_up = |backend: &lb::api::types::Backend| backend.eligible;
    for name in ["web2", "web3"] {
        site::wait_for_backend(lab, "www", name, Duration::from_secs(5), is_up)?;
    }
    // web3 is web2 to the application.
    site::assert_split(lab, 10, 0, 10)?;
    let before = site::service(lab, "www")?.backends;
    site::assert_split(lab, 50, 0, 50)?;
    let after = site::service(lab, "www")?.backends;
    let opened: Vec<_> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.traffic.opened - before.traffic.opened)
        .collect();
    ensure!(opened == [0, 30, 20], "shared {opened:?}");
    Ok(())
}

/// What `lbd` leaves behind balances on, and goes when it is told to.
fn traffic_goes_on_without_lbd() -> Result<()> {
    let mut lab = site::up("lb-t-vip")?;
    assert_present(&lab, true)?;
    site::assert_split(&lab, 20, 10, 10)?;
    let before = site::service(&lab, "www")?;
    for ends in [Lab::stop_lbd, |lab: &mut Lab| lab.kill_process("lbd")] {
        ensure!(ends(&mut lab)?, "lbd was not running");
        assert_present(&lab, true)?;
        ensure!(lbctl(&lab, &["status"])?.code == 3, "lbd answers");
        split_without_lbd(&lab)?;
        lab.start_lbd()?;
        for backend in site::service(&lab, "www")?.backends {
            ensure!(backend.eligible, "probed from zero: {backend:?}");
        }
        site::assert_split(&lab, 20, 10, 10)?;
    }
    let after = site::service(&lab, "www")?;
    for (before, after) in before.backends.iter().zip(&after.backends) {
        let more = after.traffic.opened - before.traffic.opened;
        ensure!(
            (40..=45).contains(&more),
            "{more} connections were counted, of 40 and a few probes"
        );
    }

    ensure!(lab.clean_up().is_err(), "cleaned up while lbd was running");
    assert_present(&lab, true)?;
    ensure!(lab.stop_lbd()?, "lbd was not running");
    lab.clean_up()?;
    assert_present(&lab, false)?;
    ensure!(!pins(&lab).exists(), "pins are left");
    let requests = lab.vip_requests(1)?;
    ensure!(requests.answers.is_empty(), "the VIP answers without lbd");

    // Makes the router remember whoever announces an address: ip-sysctl.rst, arp_accept.
    lab.namespace(Node::Router)
        .sysctl(&[("ipv4/conf/lb/arp_accept", "1")])?;
    ensure!(
        announced(&lab)?.is_empty(),
        "announced by nobody: {}",
        announced(&lab)?
    );
    lab.start_lbd()?;
    assert_present(&lab, true)?;
    let link = run(lab
        .command(Node::Lb, "ip")?
        .args(["-brief", "link", "show", "uplink"]))?;
    let mac = link
        .split_whitespace()
        .nth(2)
        .unwrap_or("no MAC address")
        .to_owned();
    wait_for("the announcement", Duration::from_secs(2), || {
        let neighbour = announced(&lab).map_err(|error| format!("{error:#}"))?;
        if neighbour.contains(&format!("lladdr {mac}")) {
            Ok(())
        } else {
            Err(format!("the router knows {neighbour:?}, not {mac}"))
        }
    })?;
    lab.wait_until_all_up(Duration::from_secs(5))?;
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

/// Twenty requests, and who answered: nobody counts them but the servers.
fn split_without_lbd(lab: &Lab) -> Result<()> {
    let requests = lab.vip_requests(20)?;
    ensure!(requests.failures.is_empty(), "{:?}", requests.failures);
    let web1 = requests
        .answers
        .iter()
        .filter(|answer| answer.server == "web1")
        .count();
    ensure!(
        (requests.answers.len(), web1) == (20, 10),
        "{} of {}",
        web1,
        requests.answers.len()
    );
    Ok(())
}

fn pins(lab: &Lab) -> std::path::PathBuf {
    lab.file("bpf/lb")
}

/// What the router knows of the VIP on its wire to the balancer.
fn announced(lab: &Lab) -> Result<String> {
    run(lab
        .command(Node::Router, "ip")?
        .args(["neighbour", "show", &VIP.to_string(), "dev", "lb"]))
}

/// The VIP on `uplink`, and a program on every interface; or neither.
fn assert_present(lab: &Lab, wanted: bool) -> Result<()> {
    let addresses = run(lab.command(Node::Lb, "ip")?.args(["address", "show"]))?;
    ensure!(
        addresses.contains(&VIP.to_string()) == wanted,
        "wanted {wanted}: {addresses}"
    );
    for interface in LB_INTERFACES {
        let link = run(lab
            .command(Node::Lb, "ip")?
            .args(["-details", "link", "show", "dev", interface]))?;
        ensure!(link.contains("prog/xdp") == wanted, "wanted {wanted}: {link}");
    }
    Ok(())
}
