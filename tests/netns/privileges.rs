//! What `lbd` and its site worker may do once they run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use lb_tests::rights::{Rights, are_the_daemons, are_the_site_workers, only_child};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{Lab, wait_for};

use crate::support::lbctl::lbctl;
use crate::support::site;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("privileges/as_documented", as_documented),
        Case::new("privileges/the_worker_goes_with_lbd", the_worker_goes_with_lbd),
        Case::new("privileges/without_the_worker", without_the_worker),
    ]
}

/// `lbd` and its site worker.
fn processes(lab: &mut Lab) -> Result<(PathBuf, PathBuf)> {
    let lbd = lab.process("lbd").context("lbd does not run")?;
    let lbd = PathBuf::from(format!("/proc/{lbd}"));
    let worker = only_child(&lbd)?;
    Ok((lbd, worker))
}

fn as_documented() -> Result<()> {
    let mut lab = site::up("lb-t-rights")?;
    let (lbd, worker) = processes(&mut lab)?;
    are_the_daemons(&lbd)?;
    let could = Rights::of_all_threads(Path::new("/proc/self"))?
        .first()
        .map_or(0, |rights| rights.permitted);
    are_the_site_workers(&worker, could)?;
    // With these rights everything goes on: hand-offs, changes, reloads, VIPs.
    for arguments in [
        &["site", "apply"][..],
        &["backend", "drain", "www/web1"],
        &["backend", "undrain", "www/web1"],
        &["reload"],
    ] {
        let said = lbctl(&lab, arguments)?;
        ensure!(said.code == 0, "{said:?}");
    }
    site::assert_split(&lab, 20, 10, 10)?;
    lab.down()
}

fn is_gone(process: &Path) -> Result<(), String> {
    if process.exists() {
        Err(format!("{} is there", process.display()))
    } else {
        Ok(())
    }
}

fn the_worker_goes_with_lbd() -> Result<()> {
    let mut lab = site::up("lb-t-worker")?;
    let (_, worker) = processes(&mut lab)?;
    ensure!(lab.stop_lbd()?, "lbd was not running");
    wait_for("the end of the worker", Duration::from_secs(5), || {
        is_gone(&worker)
    })?;
    lab.start_lbd()?;
    let (_, worker) = processes(&mut lab)?;
    ensure!(lab.kill_process("lbd")?, "lbd was not running");
    wait_for("the end of the worker", Duration::from_secs(5), || {
        is_gone(&worker)
    })?;
    lab.down()
}

fn without_the_worker() -> Result<()> {
    let mut lab = site::up("lb-t-no-worker")?;
    let (_, worker) = processes(&mut lab)?;
    let number = worker
        .file_name()
        .and_then(|it| it.to_str())
        .context("no number")?;
    kill(Pid::from_raw(number.parse()?), Signal::SIGKILL)?;
    let said = lbctl(&lab, &["site", "apply"])?;
    ensure!(said.code == 1, "{said:?}");
    let told = "the site worker, which runs the scripts, has ended (signal: 9 (SIGKILL)); restart lbd to have one again";
    ensure!(said.out.contains(told), "{said:?}");
    // Nothing was switched, and everything else goes on.
    site::assert_split(&lab, 20, 10, 10)?;
    ensure!(lab.stop_lbd()?, "lbd was not running");
    lab.start_lbd()?;
    let said = lbctl(&lab, &["site", "apply"])?;
    ensure!(said.code == 0, "{said:?}");
    lab.down()
}
