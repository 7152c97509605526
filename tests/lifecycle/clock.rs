//! The wall clock is set, and `lbd` starts by it: what has a time to wait waits as long as it would have.

use std::fs;
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lb::api::types::BackendState;
use lb::moment::VARIABLE;
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, wait_for};

use crate::row::unnoticed;
use crate::support::lbctl::lbctl;
use crate::support::shared::Shared;
use crate::support::site;

/// The rows.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    vec![unnoticed(
        lab,
        "the clock is set a year ahead, and to 1970",
        set_far_off,
    )]
}

/// Long enough for `lbd` to look at what is over.
const LOOKS: Duration = Duration::from_millis(1500);

fn set_far_off(lab: &mut Lab) -> Result<()> {
    const WEB1: &str = "name = \"web1\"\naddress = \"198.18.1.2\"\n";
    const YEAR: i64 = 365 * 86_400;
    let since_1970 = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let set = |lab: &Lab, ahead: i64| fs::write(lab.file("clock"), ahead.to_string());
    set(lab, 0)?;
    lab.stop_lbd()?;
    start(lab)?;
    lab.wait_until_all_up(Duration::from_secs(10))?;
    says(
        lab,
        &["backend", "drain", "transfer-tcp/web1", "--deadline", "1h"],
    )?;
    let heavier = fs::read_to_string(lab.file("lb.toml"))?.replace(WEB1, &format!("{WEB1}weight = 3\n"));
    let file = lab.file("heavier.toml");
    fs::write(&file, heavier)?;
    let file = file.display().to_string();
    says(lab, &["apply", "--confirm", "10m", &file])?;
    let through = |lab: &mut Lab| -> Result<()> {
        waits(lab)?;
        for ahead in [YEAR, 60 - since_1970, 0] {
            set(lab, ahead)?;
            sleep(LOOKS);
            waits(lab).with_context(|| format!("set {ahead} s ahead"))?;
            lab.kill_process("lbd")?;
            start(lab).with_context(|| format!("{ahead} s ahead"))?;
            sleep(LOOKS);
            waits(lab).with_context(|| format!("started {ahead} s ahead"))?;
        }
        Ok(())
    };
    let seen = through(lab);
    set(lab, 0)?;
    if lab.process("lbd").is_none() {
        start(lab)?;
    }
    says(lab, &["rollback"])?;
    says(lab, &["backend", "undrain", "transfer-tcp/web1"])?;
    lab.stop_lbd()?;
    lab.start_lbd()?;
    seen
}

/// The drain goes on, and the change waits to be confirmed, for as long as was said; all others are up.
fn waits(lab: &Lab) -> Result<()> {
    const DRAIN: RangeInclusive<u64> = 3500..=3600;
    const CONFIRM: RangeInclusive<u64> = 500..=600;
    let status = site::status(lab)?;
    let unconfirmed = status.unconfirmed.map(|it| it.seconds_left);
    ensure!(
        unconfirmed.is_some_and(|left| CONFIRM.contains(&left)),
        "the change waits {unconfirmed:?} s"
    );
    for backend in status.services.iter().flat_map(|service| &service.backends) {
        let is_drained = (&*backend.service, &*backend.name) == ("transfer-tcp", "web1");
        let expected = match is_drained {
            true => BackendState::Draining,
            false => BackendState::Up,
        };
        let waits = backend.reset_in_seconds.is_some_and(|left| DRAIN.contains(&left));
        ensure!(backend.state == expected && waits == is_drained, "{backend:?}");
    }
    Ok(())
}

/// An `lbd` whose clock is set by a file.
fn start(lab: &mut Lab) -> Result<()> {
    let mut command = lab.command(Node::Lb, lab.options().binaries.lbd.clone())?;
    command
        .arg("--config")
        .arg(lab.file("lb.toml"))
        .env(VARIABLE, lab.file("clock"));
    lab.start_process("lbd", &mut command, "lbd.log")?;
    wait_for("lbd", Duration::from_secs(10), || {
        lab.status().map(drop).map_err(|error| format!("{error:#}"))
    })
}

fn says(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let said = lbctl(lab, arguments)?;
    ensure!(said.code == 0, "{arguments:?}: {said:?}");
    Ok(())
}
