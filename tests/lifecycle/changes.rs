//! Changes, many of them, and backends that come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb::api::types::BackendState;
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, run};

use crate::row::{row, unnoticed};
use crate::support::lbctl::lbctl;
use crate::support::shared::Shared;
use crate::support::{is_full, site};

/// The service that the clients use.
const SERVICE: &str = "transfer-tcp";

/// The rows.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    vec![
        unnoticed(lab, "configuration changed again and again", reloads),
        unnoticed(lab, "weights and drains changed again and again", by_hand),
        unnoticed(lab, "a backend's probes fail and succeed in turn", |lab| {
            flapping(lab, SERVICE, &[Node::Web1], "")
        }),
        // The handshake comes about, and then nothing: what is longer is lost.
        unnoticed(lab, "a backend's health endpoint hangs", |lab| {
            flapping(lab, "www", &[Node::Web1], "ip length > 100")
        }),
        unnoticed(lab, "a backend removed and added again", removed),
        row(
            lab,
            "all backends' probes fail, and succeed again",
            |lab| flapping(lab, SERVICE, &[Node::Web1, Node::Web2], ""),
            |verdict| {
                ensure!(
                    verdict.downloads.failures.is_empty(),
                    "{:?}",
                    verdict.downloads.failures
                );
                ensure!(verdict.idle.failures.is_empty(), "{:?}", verdict.idle.failures);
                let other: Vec<_> = verdict
                    .requests
                    .failures
                    .iter()
                    .filter(|why| !why.contains("efused"))
                    .collect();
                ensure!(other.is_empty(), "not refused but failed: {other:?}");
                ensure!(!verdict.requests.failures.is_empty(), "nobody was down");
                Ok(
                    "new connections refused while nobody could take them (when_all_down), old ones went on"
                        .to_owned(),
                )
            },
        ),
    ]
}

/// As fast as they are taken: at least a hundred a second, or every second one of those that this machine can.
fn reloads(lab: &mut Lab) -> Result<()> {
    const WEB1: &str = "name = \"web1\"\naddress = \"198.18.1.2\"\n";
    let many = if is_full() { 1000 } else { 100 };
    let weighted = format!("{WEB1}weight = 3\n");
    let began = Instant::now();
    for _ in 0..many / 2 {
        for (from, to) in [(WEB1, &*weighted), (&*weighted, WEB1)] {
            site::edit(lab, from, to)?;
            site::reload(lab)?;
        }
    }
    crate::support::measured(&format!(
        "{many} reloads at {:.0} a second",
        f64::from(many) / began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn by_hand(lab: &mut Lab) -> Result<()> {
    let web1 = format!("{SERVICE}/web1");
    for _ in 0..20 {
        for arguments in [
            &["backend", "weight", &web1, "7"][..],
            &["backend", "drain", &web1],
            &["backend", "weight", &web1, "--reset"],
            &["backend", "undrain", &web1],
        ] {
            let said = lbctl(lab, arguments)?;
            ensure!(said.code == 0, "{said:?}");
        }
    }
    Ok(())
}

fn removed(lab: &mut Lab) -> Result<()> {
    let file = lab.file("lb.toml");
    let before = std::fs::read_to_string(&file)?;
    let service = format!("name = \"{SERVICE}\"");
    let at = before.find(&service).context("no such service in lb.toml")?;
    let (head, tail) = before.split_at(at);
    let web1 = tail
        .find("[[service.backend]]\nname = \"web1\"")
        .context("no web1")?;
    let length = tail[web1..].find("\n\n").context("nothing after web1")?;
    let without = format!("{head}{}{}", &tail[..web1], &tail[web1 + length..]);
    for _ in 0..3 {
        std::fs::write(&file, &without)?;
        site::reload(lab)?;
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(&file, &before)?;
        site::reload(lab)?;
        lab.wait_until_all_up(Duration::from_secs(5))?;
    }
    Ok(())
}

/// What `lbd` sends to these servers from its own address is lost for a while; what it forwards is not.
fn flapping(lab: &mut Lab, service: &str, nodes: &[Node], which: &str) -> Result<()> {
    let rounds = if is_full() { 10 } else { 2 };
    for _ in 0..rounds {
        for node in nodes {
            let rules = format!(
                "table inet probes\ndelete table inet probes\ntable inet probes {{
                   chain input {{
                     type filter hook input priority 0;
                     ip saddr {{ 198.18.1.1, 198.18.2.1 }} {which} drop;
                     ip6 saddr {{ 2001:db8:1::1, 2001:db8:2::1 }} {which6} drop;
                   }}
                 }}\n",
                which6 = if which.is_empty() { "" } else { "ip6 length > 80" }
            );
            nft(lab, *node, &rules)?;
        }
        let down = |lab: &Lab| -> Result<()> {
            for node in nodes {
                let is_down = |it: &lb::api::types::Backend| it.state == BackendState::Down;
                site::wait_for_backend(lab, service, node.name(), Duration::from_secs(5), is_down)?;
            }
            Ok(())
        };
        let seen = down(lab);
        std::thread::sleep(Duration::from_millis(300));
        for node in nodes {
            nft(lab, *node, "table inet probes\ndelete table inet probes\n")?;
        }
        seen?;
        lab.wait_until_all_up(Duration::from_secs(10))?;
    }
    Ok(())
}

fn nft(lab: &Lab, node: Node, rules: &str) -> Result<()> {
    let file = lab.file("probes.nft");
    std::fs::write(&file, rules)?;
    run(lab.command(node, "nft")?.arg("-f").arg(&file)).map(drop)
}
