//! `lbctl doctor` on a host that is well, and on one that is not.

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use serde_json::Value;
use xtask::lab::{Lab, Node, run};

use crate::support::site;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("doctor/well", well),
        Case::new("doctor/finds_what_is_wrong", finds_what_is_wrong),
    ]
}

/// Check, severity and text of everything that is worse than a note; where this machine's processors are more than the
/// lab's queues, that is none of the lab's faults.
fn found(lab: &Lab, arguments: &[&str]) -> Result<Vec<[String; 3]>> {
    let mut lbctl = lab.command(Node::Lb, &lab.options().binaries.lbctl)?;
    lbctl
        .arg("--socket")
        .arg(lab.file("lbd.sock"))
        .args(["--json", "doctor"]);
    let output = lbctl.args(arguments).output()?;
    let examination: Value = serde_json::from_slice(&output.stdout).context("lbctl --json doctor")?;
    let checks = examination["checks"].as_array().context("no checks")?;
    let findings: Vec<_> = checks
        .iter()
        .filter_map(|check| check["findings"].as_array())
        .flatten()
        .filter(|finding| finding["severity"] != "note")
        .map(|finding| {
            ["check", "severity", "what"].map(|key| finding[key].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    let status = if findings.is_empty() { 0 } else { 7 };
    ensure!(output.status.code() == Some(status), "{output:?}");
    Ok(findings
        .into_iter()
        .filter(|[check, ..]| check != "queues")
        .collect())
}

fn well() -> Result<()> {
    let mut lab = site::up("lb-t-well")?;
    // What the lab leaves out, since its neighbours are always known.
    let mends = "echo 1 > /proc/sys/net/ipv4/conf/all/accept_local";
    run(lab.command(Node::Lb, "sh")?.args(["-euc", mends]))?;
    let findings = found(&lab, &[])?;
    ensure!(findings.is_empty(), "with lbd running: {findings:#?}");
    ensure!(lab.stop_lbd()?, "lbd was not running");
    let file = lab.file("lb.toml").display().to_string();
    let findings = found(&lab, &["--config", &file])?;
    ensure!(findings.is_empty(), "without lbd: {findings:#?}");
    lab.down()
}

fn finds_what_is_wrong() -> Result<()> {
    let lab = site::up("lb-t-unwell")?;
    let breaks = format!(
        "echo 0 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter
        echo 0 > /proc/sys/net/ipv4/conf/all/accept_local
        echo 8 > /proc/sys/net/ipv4/conf/all/arp_ignore
        ip route add unreachable {web}/32",
        web = lab.address(Node::Web1)
    );
    run(lab.command(Node::Lb, "sh")?.args(["-euc", &breaks]))?;
    run(lab
        .command(Node::Web2, "ip")?
        .args(["link", "set", "eth0", "xdp", "off"]))?;
    run(lab
        .command(Node::Web2, "ethtool")?
        .args(["-K", "eth0", "gro", "off"]))?;
    let findings = found(&lab, &[])?;
    for (check, severity, words) in [
        ("forwarding", "warning", "does not forward IPv4"),
        ("forged", "warning", "filters strictly by reverse path"),
        (
            "forged",
            "warning",
            "takes no packet from an address of this host",
        ),
        ("addresses", "warning", "nobody answers ARP for VIP"),
        ("neighbours", "warning", "no route to it"),
        (
            "driver",
            "error",
            "does not take frames that are redirected to it",
        ),
    ] {
        ensure!(
            findings
                .iter()
                .any(|[a, b, text]| (a.as_str(), b.as_str()) == (check, severity) && text.contains(words)),
            "{check}: {words:?} is not among {findings:#?}"
        );
    }
    lab.down()
}
