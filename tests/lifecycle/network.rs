//! Interfaces and neighbours that change.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, run, wait_for};

use crate::row::unnoticed;
use crate::support::shared::Shared;
use crate::support::{link, site};

/// The rows.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    vec![
        unnoticed(lab, "a web server's interface down and up", |lab| {
            ip(lab, Node::Web1, &["link", "set", "dev", "eth0", "down"])?;
            std::thread::sleep(Duration::from_millis(300));
            ip(lab, Node::Web1, &["link", "set", "dev", "eth0", "up"])?;
            // What went with the interface: the routes by it, and with IPv6 the addresses.
            lab.restore_network(Node::Web1)?;
            lab.wait_until_all_up(Duration::from_secs(10))
        }),
        unnoticed(lab, "the balancer's own interface down and up", |lab| {
            ip(lab, Node::Lb, &["link", "set", "dev", "uplink", "down"])?;
            std::thread::sleep(Duration::from_millis(300));
            ip(lab, Node::Lb, &["link", "set", "dev", "uplink", "up"])?;
            lab.restore_network(Node::Lb)?;
            lab.wait_until_all_up(Duration::from_secs(10))
        }),
        unnoticed(lab, "a web server's MAC address changes", |lab| {
            let before = link::mac(lab, Node::Web1, "eth0")?;
            for mac in ["02:00:00:00:00:77", &before] {
                ip(lab, Node::Web1, &["link", "set", "dev", "eth0", "address", mac])?;
                // As a server that takes over an address does.
                for (family, address) in [
                    ("-4", lab.address(Node::Web1).to_string()),
                    ("-6", lab.address6(Node::Web1).to_string()),
                ] {
                    ip(
                        lab,
                        Node::Lb,
                        &[
                            family,
                            "neighbour",
                            "replace",
                            &address,
                            "dev",
                            "web1",
                            "lladdr",
                            mac,
                            "nud",
                            "reachable",
                        ],
                    )?;
                }
                wait_for("the new next hop", Duration::from_secs(5), || {
                    let backend =
                        site::backend(lab, "transfer-tcp", "web1").map_err(|error| format!("{error:#}"))?;
                    match backend.next_hop {
                        Some(hop) if hop.contains(mac) => Ok(()),
                        other => Err(format!("it is {other:?}")),
                    }
                })?;
            }
            Ok(())
        }),
    ]
}

fn ip(lab: &Lab, node: Node, arguments: &[&str]) -> Result<()> {
    let said = run(lab.command(node, "ip")?.args(arguments))?;
    ensure!(said.is_empty(), "ip {arguments:?}: {said}");
    Ok(())
}
