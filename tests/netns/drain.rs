//! Taking a web server out by hand: gently, and at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb::api::types::{Backend, BackendState};
use lb_tests::harness::Case;
use xtask::lab::{Node, wait_for};

use crate::support::download::Download;
use crate::support::lbctl::{lbctl, run};
use crate::support::site;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("drain/download_completes", download_completes),
        Case::new("drain/disable_keeps_or_resets", disable_keeps_or_resets),
        Case::new("drain/deadline_resets_the_rest", deadline_resets_the_rest),
        Case::new(
            "drain/removal_is_a_drain_unless_forced",
            removal_is_a_drain_unless_forced,
        ),
    ]
}

/// About fifteen seconds of it, so that it outlasts what is tried meanwhile on a busy machine too.
const LENGTH: u64 = 3_000_000;
const RATE: u64 = 200_000;

fn download_completes() -> Result<()> {
    let lab = site::up("lb-t-drain")?;
    let (mut on_web1, on_web2) = Download::one_from_each(&lab, LENGTH, RATE)?;
    let before = site::answered(&lab, Node::Web1)?;

    let said = lbctl(&lab, &["backend", "drain", "web1"])?;
    ensure!(said.code == 0, "{said:?}");
    for line in [
        "www/web1: draining, 1 connection now",
        "www-http/web1: draining, 0 connections now",
    ] {
        ensure!(said.out.contains(line), "{said:?}");
    }
    site::assert_split(&lab, 20, 0, 20)?;
    let now = site::answered(&lab, Node::Web1)?;
    ensure!(
        now == before,
        "web1 got {} requests while it drained",
        now - before
    );
    ensure!(
        on_web1.is_running()?,
        "the download was over before anything was tried"
    );

    // The drain is in force already; this waits for the download to end.
    let said = run(lab
        .lbctl_command()
        .args(["backend", "drain", "web1", "--wait", "--timeout", "100ms"]))?;
    ensure!(
        said.code == 6 && said.err.contains("1 connection left"),
        "{said:?}"
    );
    let said = run(lab
        .lbctl_command()
        .args(["backend", "drain", "web1", "--wait", "--timeout", "30s"]))?;
    ensure!(
        said.code == 0
            && said
                .out
                .contains("draining: www/web1 1 connection, www-http/web1 0 connections")
            && said
                .out
                .ends_with("drained: no connections left, 1 ended by itself\n"),
        "{said:?}"
    );
    on_web1.complete()?;
    on_web2.complete()?;
    let backend = site::backend(&lab, "www", "web1")?;
    ensure!(
        (backend.state, backend.traffic.connections) == (BackendState::Draining, 0),
        "{backend:?}"
    );

    let said = lbctl(&lab, &["backend", "undrain", "web1"])?;
    ensure!(said.code == 0, "{said:?}");
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

fn disable_keeps_or_resets() -> Result<()> {
    let lab = site::up("lb-t-disable")?;
    // The default, `on_down = "keep"`.
    let (on_web1, on_web2) = Download::one_from_each(&lab, LENGTH / 2, RATE)?;
    ensure!(
        lbctl(&lab, &["backend", "disable", "www/web1"])?.code == 0,
        "not disabled"
    );
    let backend = site::backend(&lab, "www", "web1")?;
    ensure!(
        (backend.state, backend.eligible) == (BackendState::Disabled, false),
        "{backend:?}"
    );
    site::assert_split(&lab, 10, 0, 10)?;
    on_web1.complete()?;
    on_web2.complete()?;
    ensure!(
        lbctl(&lab, &["backend", "enable", "www/web1"])?.code == 0,
        "not enabled"
    );
    site::assert_split(&lab, 10, 5, 5)?;

    site::edit(
        &lab,
        "manage_vip = \"uplink\"",
        "manage_vip = \"uplink\"\non_down = \"reset\"",
    )?;
    let changes = site::reload(&lab)?;
    ensure!(
        changes.contains("service www: on_down keep becomes reset"),
        "{changes}"
    );
    let (on_web1, on_web2) = Download::one_from_each(&lab, LENGTH, RATE)?;
    ensure!(
        lbctl(&lab, &["backend", "disable", "www/web1"])?.code == 0,
        "not disabled"
    );
    // Its client only acknowledges, and that is what the RST answers.
    let (code, words) = on_web1
        .end()?
        .context("a download that was to be reset completed")?;
    ensure!(
        code == 56 && words.contains("reset by peer"),
        "curl: {code}, {words}"
    );
    on_web2.complete()?;
    let counters = lbctl(&lab, &["counters"])?.out;
    ensure!(counters.contains("reset_backend_down"), "{counters}");
    wait_for(
        "the reset connection to be gone",
        Duration::from_secs(5),
        || match site::backend(&lab, "www", "web1")
            .map_err(|error| format!("{error:#}"))?
            .traffic
            .connections
        {
            0 => Ok(()),
            left => Err(format!("{left} connections")),
        },
    )?;
    lab.down()
}

/// A deadline outlives a restart of `lbd`; when it is over, what is left is reset, and nothing else.
fn deadline_resets_the_rest() -> Result<()> {
    let mut lab = site::up("lb-t-deadline")?;
    let said = lbctl(&lab, &["backend", "drain", "www-http/web1", "--deadline", "1h"])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(lab.kill_process("lbd")?, "lbd was not running");
    lab.start_lbd()?;
    for name in ["web1", "web2"] {
        let is_up = |backend: &Backend| backend.state == BackendState::Up;
        site::wait_for_backend(&lab, "www", name, Duration::from_secs(5), is_up)?;
    }
    let backend = site::backend(&lab, "www-http", "web1")?;
    ensure!(
        backend.state == BackendState::Draining
            && backend
                .reset_in_seconds
                .is_some_and(|left| (3500..=3600).contains(&left)),
        "{backend:?}"
    );

    let (on_web1, on_web2) = Download::one_from_each(&lab, LENGTH, RATE)?;
    let drain = [
        "backend",
        "drain",
        "www/web1",
        "--deadline",
        "2s",
        "--wait",
        "--timeout",
        "30s",
    ];
    let said = lbctl(&lab, &drain)?;
    ensure!(
        said.code == 0
            && said.out.starts_with("draining: www/web1 1 connection\n")
            && said.out.ends_with(
                "drained: 1 connection left at the deadline, 1 reset since, none is left; 0 ended by themselves before\n"
            ),
        "{said:?}"
    );
    let (code, words) = on_web1
        .end()?
        .context("a download that was to be reset completed")?;
    ensure!(
        code == 56 && words.contains("reset by peer"),
        "curl: {code}, {words}"
    );
    let log = site::log(&lab)?;
    ensure!(
        log.contains("backend www/web1: its time to drain is over; its 1 connection is reset"),
        "{log}"
    );
    site::assert_split(&lab, 10, 0, 10)?;
    on_web2.complete()?;
    let said = lbctl(&lab, &["backend", "undrain", "www/web1"])?;
    ensure!(said.code == 0, "{said:?}");
    site::assert_split(&lab, 10, 5, 5)?;
    lab.down()
}

/// By hand and by the file, with `drain_timeout` and with `--force`.
fn removal_is_a_drain_unless_forced() -> Result<()> {
    let lab = site::up("lb-t-forced")?;
    let (mut on_web1, on_web2) = Download::one_from_each(&lab, LENGTH, RATE)?;
    let said = lbctl(&lab, &["backend", "remove", "www/web1"])?;
    ensure!(
        said.code == 0 && said.out == "www/web1: removed, 1 connection now\n",
        "{said:?}"
    );
    let leaving = site::backend(&lab, "www", "web1")?;
    ensure!(
        (leaving.state, leaving.reset_in_seconds) == (BackendState::Leaving, None),
        "{leaving:?}"
    );
    site::assert_split(&lab, 10, 0, 10)?;
    ensure!(on_web1.is_running()?, "the download did not go on");
    let said = lbctl(&lab, &["backend", "remove", "www/web1"])?;
    ensure!(said.code == 4, "it is removed already: {said:?}");
    // It leaves too slowly.
    let said = lbctl(&lab, &["backend", "remove", "www/web1", "--force", "--dry-run"])?;
    ensure!(
        said.code == 0
            && said
                .out
                .contains("backend www/web1: its time to drain is over; its 1 connection is reset"),
        "{said:?}"
    );
    ensure!(on_web1.is_running()?, "a dry run has reset it");
    let said = lbctl(&lab, &["backend", "remove", "www/web1", "--force"])?;
    ensure!(said.code == 0, "{said:?}");
    let (code, words) = on_web1
        .end()?
        .context("a download was to be reset and completed")?;
    ensure!(code == 56, "curl: {code}, {words}");
    on_web2.complete()?;
    let said = lbctl(&lab, &["backend", "add", "www/web1", "198.18.1.2:443"])?;
    ensure!(said.code == 0, "{said:?}");
    lab.wait_until_all_up(Duration::from_secs(5))?;

    site::edit(
        &lab,
        "manage_vip = \"uplink\"",
        "manage_vip = \"uplink\"\ndrain_timeout = \"3s\"",
    )?;
    let changes = site::reload(&lab)?;
    ensure!(
        changes.contains("service www: drain_timeout none becomes 3s"),
        "{changes}"
    );
    let (on_web1, on_web2) = Download::one_from_each(&lab, LENGTH, RATE)?;
    site::edit(
        &lab,
        "[[service.backend]]\nname = \"web1\"\naddress = \"198.18.1.2\"\n",
        "",
    )?;
    let changes = site::reload(&lab)?;
    ensure!(
        changes.contains("backend www/web1: removed; its 1 connection has 3s to end, then it is reset"),
        "{changes}"
    );
    let started = Instant::now();
    let (code, words) = on_web1
        .end()?
        .context("a download was to be reset and completed")?;
    ensure!(code == 56, "curl: {code}, {words}");
    ensure!(
        (2..8).contains(&started.elapsed().as_secs()),
        "after {:?}",
        started.elapsed()
    );
    on_web2.complete()?;
    lab.down()
}
