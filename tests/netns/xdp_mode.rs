//! Native XDP where the driver has it, generic where it has not, and balancing all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, run};

use crate::support::lbctl::run as run_to_end;
use crate::support::{connections, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("xdp_mode/generic_balances", generic_balances),
        Case::new("xdp_mode/auto_falls_back", auto_falls_back),
    ]
}

const INTERFACES: &str = "interfaces = [\"uplink\", \"web1\", \"web2\"]\n";

fn modes(lab: &Lab) -> Result<Vec<String>> {
    let interfaces = site::status(lab)?.interfaces;
    Ok(interfaces
        .into_iter()
        .map(|it| format!("{} {}", it.name, it.mode))
        .collect())
}

fn generic_balances() -> Result<()> {
    let mut lab = site::up("lb-t-generic")?;
    ensure!(
        modes(&lab)? == ["uplink native", "web1 native", "web2 native"],
        "{:?}",
        modes(&lab)?
    );
    ensure!(lab.stop_lbd()?, "lbd was not running");
    site::edit(&lab, INTERFACES, &format!("{INTERFACES}xdp_mode = \"generic\"\n"))?;
    // What is attached stays as it is, since packets would pass by it meanwhile.
    lab.start_lbd()?;
    ensure!(
        modes(&lab)? == ["uplink native", "web1 native", "web2 native"]
            && site::log(&lab)?.contains("lbd --cleanup"),
        "{:?}",
        modes(&lab)?
    );
    site::assert_split(&lab, 10, 5, 5)?;
    ensure!(lab.stop_lbd()?, "lbd was not running");
    lab.clean_up()?;
    lab.start_lbd()?;
    lab.wait_until_all_up(Duration::from_secs(5))?;
    ensure!(
        modes(&lab)? == ["uplink generic", "web1 generic", "web2 generic"],
        "{:?}",
        modes(&lab)?
    );
    site::assert_split(&lab, 100, 50, 50)?;
    connections::make(&lab, 100)?;
    let opened: Vec<_> = site::service(&lab, "www-http")?
        .backends
        .iter()
        .map(|it| it.traffic.opened)
        .collect();
    ensure!(opened == [50, 50], "{opened:?}");
    ensure!(lab.stop_lbd()?, "lbd was not running");
    lab.clean_up()?;
    let links = run(lab.command(Node::Lb, "ip")?.args(["link", "show"]))?;
    ensure!(!links.contains("prog/xdp"), "{links}");
    lab.down()
}

/// An ifb has no native XDP. The others have, but what the driver of one redirects into an interface without native XDP is
/// lost, so all of them fall back.
fn auto_falls_back() -> Result<()> {
    let mut lab = site::up("lb-t-auto")?;
    ensure!(lab.stop_lbd()?, "lbd was not running");
    lab.clean_up()?;
    run(lab
        .command(Node::Lb, "ip")?
        .args(["link", "add", "plain", "type", "ifb"]))?;
    run(lab.command(Node::Lb, "ip")?.args(["link", "set", "plain", "up"]))?;
    let with_plain = "interfaces = [\"uplink\", \"web1\", \"web2\", \"plain\"]\n";
    site::edit(&lab, INTERFACES, &format!("{with_plain}xdp_mode = \"native\"\n"))?;
    let mut lbd = lab.command(Node::Lb, lb_tests::programs::lbd()?)?;
    let said = run_to_end(lbd.arg("--config").arg(lab.file("lb.toml")))?;
    ensure!(
        said.code == 1 && said.err.contains("plain") && said.err.contains("native"),
        "{said:?}"
    );
    let links = run(lab.command(Node::Lb, "ip")?.args(["link", "show"]))?;
    ensure!(!links.contains("prog/xdp"), "it left a program behind: {links}");

    site::edit(&lab, "xdp_mode = \"native\"", "xdp_mode = \"auto\"")?;
    lab.start_lbd()?;
    lab.wait_until_all_up(Duration::from_secs(5))?;
    let modes = modes(&lab)?;
    ensure!(
        modes == ["uplink generic", "web1 generic", "web2 generic", "plain generic"],
        "{modes:?}"
    );
    let log = site::log(&lab)?;
    ensure!(
        log.contains("no native XDP here, falling back to generic")
            && log.contains("not all interfaces can have native XDP"),
        "{log}"
    );
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}
