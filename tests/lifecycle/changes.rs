//! Changes, many of them, and backends that come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb::api::types::BackendState;
use lb_tests::harness::Case;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{HealthManner, Lab, Node, run};

use crate::row::{row, unnoticed};
use crate::support::lbctl::lbctl;
use crate::support::shared::Shared;
use crate::support::wrk::Wrk;
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
        unnoticed(lab, "a backend's health endpoint is slow", slow),
        unnoticed(lab, "a backend's health endpoint lies every other time", fickle),
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

/// A hundred a second, without waiting for any of them: what is in force at the end is what the file says last.
fn reloads(lab: &mut Lab) -> Result<()> {
    const WEB1: &str = "name = \"web1\"\naddress = \"198.18.1.2\"\n";
    const PACE: Duration = Duration::from_millis(10);
    let many = if is_full() { 3000 } else { 300 };
    let lbd = Pid::from_raw(lab.process("lbd").context("lbd does not run")?);
    let file = lab.file("lb.toml");
    let before = std::fs::read_to_string(&file)?;
    let began = Instant::now();
    let change = || -> Result<()> {
        for number in 1..=many {
            let changed = before.replace(WEB1, &format!("{WEB1}weight = {}\n", 1 + number % 9));
            lb::whole_file::replace(&file, changed.as_bytes(), &file)
                .map_err(|failure| anyhow!("{failure}"))?;
            kill(lbd, Signal::SIGHUP)?;
            std::thread::sleep((PACE * number).saturating_sub(began.elapsed()));
        }
        Ok(())
    };
    let changed = change();
    // Of changes that come faster than they are applied some may be passed over, but not the last one.
    let last = u16::try_from(1 + many % 9)?;
    let in_force = site::wait_for_backend(lab, SERVICE, "web1", Duration::from_secs(5), |it| {
        it.weight == last
    });
    let rate = f64::from(many) / began.elapsed().as_secs_f64();
    std::fs::write(&file, before)?;
    site::reload(lab)?;
    changed?;
    in_force?;
    crate::support::measured(&format!("{many} changes at {rate:.0} a second"));
    Ok(())
}

/// The answer comes, but later than the probe waits: that backend is down, and the other has all requests.
fn slow(lab: &mut Lab) -> Result<()> {
    let load = Wrk::until_told(lab)?;
    lab.set_health_manner(Node::Web1, HealthManner::Slow)?;
    let is_down = |it: &lb::api::types::Backend| it.state == BackendState::Down;
    let seen = site::wait_for_backend(lab, "www", "web1", Duration::from_secs(5), is_down);
    std::thread::sleep(Duration::from_millis(300));
    lab.set_health_manner(Node::Web1, HealthManner::Honest)?;
    let back = lab.wait_until_all_up(Duration::from_secs(10));
    load.stop_without_errors()?;
    seen?;
    back
}

/// One failure is none: the backend stays up.
fn fickle(lab: &mut Lab) -> Result<()> {
    let load = Wrk::until_told(lab)?;
    lab.set_health_manner(Node::Web1, HealthManner::Fickle)?;
    let began = Instant::now();
    let mut watched = Ok(());
    while watched.is_ok() && began.elapsed() < Duration::from_secs(4) {
        std::thread::sleep(Duration::from_millis(100));
        watched = site::backend(lab, "www", "web1").and_then(|it| {
            ensure!(it.state == BackendState::Up, "{it:?}");
            Ok(())
        });
    }
    lab.set_health_manner(Node::Web1, HealthManner::Honest)?;
    load.stop_without_errors()?;
    watched
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
