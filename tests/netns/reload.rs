//! The configuration is read again: whole or not at all, and clients do not notice.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::api::types::BackendState;
use lb_tests::harness::Case;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{Lab, Node, wait_for};

use crate::support::download::Download;
use crate::support::lbctl::lbctl;
use crate::support::site;
use crate::support::wrk::Wrk;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("reload/under_load", under_load),
        Case::new(
            "reload/removed_backend_keeps_its_download",
            removed_backend_keeps_its_download,
        ),
        Case::new("reload/bad_file_changes_nothing", bad_file_changes_nothing),
    ]
}

const WEB1: &str = "name = \"web1\"\naddress = \"198.18.1.2\"\n";

fn under_load() -> Result<()> {
    let mut lab = site::up("lb-t-reload")?;
    let load = Wrk::start(&lab, 8)?;

    site::edit(&lab, WEB1, &format!("{WEB1}weight = 3\n"))?;
    let changes = site::reload(&lab)?;
    ensure!(
        changes.contains("backend www/web1: weight 1 becomes 3"),
        "{changes}"
    );
    let again = site::reload(&lab)?;
    ensure!(again == "nothing changed\n", "{again}");

    let removed = format!("[[service.backend]]\n{WEB1}weight = 3\n");
    site::edit(&lab, &removed, "# nobody\n")?;
    hang_up(&mut lab)?;
    wait_for(
        "web1 to leave",
        Duration::from_secs(2),
        || match site::find_backend(&lab, "www", "web1").map_err(|error| format!("{error:#}"))? {
            Some(backend) if backend.state != BackendState::Leaving => Err(format!("{backend:?}")),
            _ => Ok(()),
        },
    )?;
    site::assert_split(&lab, 10, 0, 10)?;

    site::edit(&lab, "# nobody\n", &removed)?;
    hang_up(&mut lab)?;
    lab.wait_until_all_up(Duration::from_secs(5))?;
    load.end_without_errors()?;
    quiet(&lab)?;
    site::assert_split(&lab, 100, 75, 25)?;
    lab.down()
}

/// Waits until what is left of a load on its way has arrived: nobody opens connections any more.
fn quiet(lab: &Lab) -> Result<()> {
    let mut before = None;
    wait_for("the load's last connections", Duration::from_secs(5), || {
        let service = site::service(lab, "www").map_err(|error| format!("{error:#}"))?;
        let opened = Some(service.traffic.opened);
        let was = std::mem::replace(&mut before, opened);
        std::thread::sleep(Duration::from_millis(200));
        if was == opened {
            Ok(())
        } else {
            Err(format!("{opened:?} were opened"))
        }
    })
}

/// SIGHUP; returns when the reload is done.
fn hang_up(lab: &mut Lab) -> Result<()> {
    let reloads =
        |lab: &Lab| Ok::<_, anyhow::Error>(site::log(lab)?.matches(" reload: backend www/web1").count());
    let before = reloads(lab)?;
    let lbd = lab.process("lbd").context("lbd does not run")?;
    kill(Pid::from_raw(lbd), Signal::SIGHUP)?;
    wait_for("the reload", Duration::from_secs(5), || match reloads(lab) {
        Ok(now) if now > before => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

fn removed_backend_keeps_its_download() -> Result<()> {
    let lab = site::up("lb-t-remove")?;
    site::edit(
        &lab,
        "manage_vip = \"uplink\"",
        "manage_vip = \"uplink\"\ntimeouts = { closing = \"5s\" }",
    )?;
    site::reload(&lab)?;
    let (mut on_web1, on_web2) = Download::one_from_each(&lab, 2_400_000, 200_000)?;
    site::edit(&lab, &format!("[[service.backend]]\n{WEB1}"), "")?;
    let changes = site::reload(&lab)?;
    ensure!(
        changes.contains("backend www/web1: removed; its 1 connection goes on until it ends"),
        "{changes}"
    );
    let leaving = site::backend(&lab, "www", "web1")?;
    ensure!(
        (leaving.state, leaving.traffic.connections) == (BackendState::Leaving, 1),
        "{leaving:?}"
    );
    ensure!(
        lbctl(&lab, &["status"])?.out.contains("leaving"),
        "it is not shown"
    );
    site::assert_split(&lab, 10, 0, 10)?;
    ensure!(
        on_web1.is_running()?,
        "the download was over before anything was tried"
    );
    on_web1.complete()?;
    on_web2.complete()?;
    // Closed connections are remembered for `closing`, in ticks of some seconds.
    let opened = leaving.traffic.opened;
    wait_for(
        "web1 to be gone",
        Duration::from_secs(20),
        || match site::find_backend(&lab, "www", "web1").map_err(|error| format!("{error:#}"))? {
            Some(backend) => Err(format!("{backend:?}")),
            None => Ok(()),
        },
    )?;
    let service = site::service(&lab, "www")?;
    let of_web2: u64 = service.backends.iter().map(|it| it.traffic.opened).sum();
    ensure!(
        service.traffic.opened == of_web2 + opened,
        "what web1 did is forgotten: {service:?}"
    );
    lab.down()
}

fn bad_file_changes_nothing() -> Result<()> {
    let lab = site::up("lb-t-badfile")?;
    let good = fs::read_to_string(lab.file("lb.toml"))?;
    let before = site::running_state(&lab)?;
    let refused = |from: &str, to: &str, words: &[&str]| -> Result<()> {
        ensure!(good.contains(from), "the lab's lb.toml has no {from:?}");
        // The good change beside the bad one must not get in either.
        let bad = good
            .replacen(from, to, 1)
            .replace(WEB1, &format!("{WEB1}weight = 7\n"));
        fs::write(lab.file("lb.toml"), bad)?;
        let said = lbctl(&lab, &["reload"])?;
        ensure!(said.code == 5, "{to:?}: {said:?}");
        for word in words {
            ensure!(said.err.contains(word), "{to:?}: no {word:?} in {}", said.err);
        }
        ensure!(
            site::running_state(&lab)? == before,
            "{to:?} changed {:?}",
            site::running_state(&lab)?
        );
        Ok(())
    };
    refused("port = 443", "port = 0", &["lb.toml:13", "port", "0"])?;
    refused("[[service]]", "[[service", &["lb.toml:10"])?;
    refused(
        "name = \"www\"",
        "name = \"www\"\ncolour = \"red\"",
        &["lb.toml:12", "colour"],
    )?;
    refused(
        "vip = \"203.0.113.10\"",
        "vip = \"nowhere\"",
        &["lb.toml:12", "nowhere"],
    )?;
    refused(
        "max_connections = 100000",
        "max_connections = 100001",
        &["daemon.max_connections", "restart lbd"],
    )?;
    // Several at once: all of them are told.
    refused(
        "name = \"www\"\nvip = \"203.0.113.10\"\nport = 443",
        "name = \"www\"\nvip = \"nowhere\"\nport = 0\nmode = \"magic\"",
        &["lb.toml:12", "lb.toml:13", "lb.toml:14", "nowhere", "magic"],
    )?;
    let log = site::log(&lab)?;
    ensure!(
        log.contains("reload refused, the running configuration stays"),
        "{log}"
    );
    site::assert_split(&lab, 20, 10, 10)?;

    fs::remove_file(lab.file("lb.toml"))?;
    let said = lbctl(&lab, &["reload"])?;
    ensure!(said.code == 5 && said.err.contains("lb.toml"), "{said:?}");
    fs::write(lab.file("lb.toml"), &good)?;
    let said = site::reload(&lab)?;
    ensure!(said == "nothing changed\n", "{said}");
    ensure!(
        site::answered(&lab, Node::Web1)? == 10,
        "web1 was asked more often than it should"
    );
    lab.down()
}
