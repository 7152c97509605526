//! From one build to another whose connection tables are laid out in another way.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::failpoint::{Failpoint, VARIABLE};
use lb_common::abi::ABI_VERSION;
use lb_tests::harness::Case;
use lb_tests::programs;
use xtask::lab::{Lab, Mode, Node, wait_for};

use crate::row::{self, unnoticed};
use crate::support::lbctl::run as run_and_see;
use crate::support::shared::Shared;

/// The rows. Each has a lab of its own, since there is no way back.
pub(crate) fn cases(_: &Shared) -> Vec<Case> {
    vec![
        unnoticed(
            &lab("lb-t-upgrade"),
            "upgrade to another layout of the tables",
            |lab| {
                ensure!(lab.stop_lbd()?, "lbd was not running");
                start_other(lab, None)?;
                answers(lab)?;
                no_way_back(lab)
            },
        ),
        unnoticed(
            &lab("lb-t-killedup"),
            "upgrade to another layout, killed again and again",
            killed_again_and_again,
        ),
    ]
}

fn lab(prefix: &'static str) -> Shared {
    Shared::planned(prefix, |options| {
        options.mode = Mode::Nat;
        options.max_connections = 400_000;
        options.keepalive_time = Duration::from_secs(2);
        options.add_transfer_services();
        Ok(())
    })
}

/// As long as no link has changed, either build can go on; then only the new one.
fn killed_again_and_again(lab: &mut Lab) -> Result<()> {
    for point in [
        Failpoint::SetMade,
        Failpoint::ProgramLoaded,
        Failpoint::CopyWritten,
        Failpoint::TablesFilled,
        Failpoint::ConnectionsCopied,
        Failpoint::SetComplete,
    ] {
        lab.stop_lbd()?;
        dies_at(lab, point)?;
        // And the old one is none the worse.
        lab.start_lbd()
            .with_context(|| format!("after {}", point.name()))?;
    }
    lab.stop_lbd()?;
    for point in [
        Failpoint::LinkChanged,
        Failpoint::LinksChanged,
        Failpoint::RestCopied,
        Failpoint::Migrated,
        Failpoint::OldSetRemoved,
    ] {
        // What is not reached any more, since it is done, is reached by a start of another kind.
        start_other(lab, Some(point))?;
        wait_for(
            "the next lbd to die or to answer",
            Duration::from_secs(20),
            || match (lab.process("lbd"), lab.status()) {
                (None, _) | (_, Ok(_)) => Ok(()),
                (_, Err(error)) => Err(format!("{error:#}")),
            },
        )?;
        fs::remove_file(lab.file("failpoint"))?;
        lab.stop_process("lbd")?;
        no_way_back(lab)?;
    }
    start_other(lab, None)?;
    answers(lab)
}

/// The older build does not guess what the newer one has made.
fn no_way_back(lab: &Lab) -> Result<()> {
    let mut command = lab.command(Node::Lb, lab.options().binaries.lbd.clone())?;
    command.arg("--config").arg(lab.file("lb.toml"));
    let said = run_and_see(&mut command)?;
    let not_understood = format!(
        "are of ABI version {}, and this lbd understands",
        1000 + ABI_VERSION
    );
    let words = [not_understood.as_str(), "another lbd uses it", "lbd.sock"];
    ensure!(
        said.code == 1 && words.iter().any(|words| said.err.contains(words)),
        "the older lbd: {said:?}"
    );
    Ok(())
}

fn dies_at(lab: &mut Lab, point: Failpoint) -> Result<()> {
    start_other(lab, Some(point))?;
    let dead = wait_for(
        &format!("lbd to die at {}", point.name()),
        Duration::from_secs(20),
        || match lab.process("lbd") {
            None => Ok(()),
            Some(pid) => Err(format!("it runs, as {pid}")),
        },
    );
    fs::remove_file(lab.file("failpoint"))?;
    dead
}

/// Starts the other build, to be killed at a moment if so asked.
fn start_other(lab: &mut Lab, point: Option<Failpoint>) -> Result<()> {
    let mut command = lab.command(Node::Lb, programs::other_lbd()?)?;
    command.arg("--config").arg(lab.file("lb.toml"));
    if let Some(point) = point {
        fs::write(lab.file("failpoint"), point.name())?;
        command.env(VARIABLE, lab.file("failpoint"));
    }
    lab.start_process("lbd", &mut command, "lbd.log").map(drop)
}

fn answers(lab: &Lab) -> Result<()> {
    wait_for("lbd", Duration::from_secs(10), || {
        lab.status().map(drop).map_err(|error| format!("{error:#}"))
    })?;
    row::pinned(lab).map(drop)
}
