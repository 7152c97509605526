//! Taking a web server out by hand: gently, and at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::api::types::BackendState;
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
            && said.out.ends_with("drained: no connections left\n"),
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
    ensure!(changes.contains("service www: on_down changed"), "{changes}");
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
