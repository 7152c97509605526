//! A row of the table: a fault, and what was seen of it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Case, report};
use xtask::lab::{Lab, Mode};

use crate::support::shared::Shared;
use crate::support::site;
use crate::watch::{Verdict, Watch};

/// The title of the table.
pub(crate) const TABLE: &str = "faults, while downloads, requests and idle connections go on";

/// The lab that the rows have in common: each leaves it as it was.
pub(crate) fn lab() -> Shared {
    Shared::planned("lb-t-life", |options| {
        options.mode = Mode::Nat;
        options.max_connections = 400_000;
        options.keepalive_time = Duration::from_secs(2);
        options.add_transfer_services();
        Ok(())
    })
}

/// A fault that nobody may notice.
pub(crate) fn unnoticed(
    lab: &Shared,
    name: impl Into<String>,
    fault: impl FnOnce(&mut Lab) -> Result<()> + Send + 'static,
) -> Case {
    row(lab, name, fault, |verdict| {
        let failures = verdict.failures();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok("nothing noticed".to_owned())
    })
}

/// A fault whose consequences are judged by `judge`, which says in a few words what they were and why that is right.
pub(crate) fn row(
    lab: &Shared,
    name: impl Into<String>,
    fault: impl FnOnce(&mut Lab) -> Result<()> + Send + 'static,
    judge: impl FnOnce(&Verdict) -> Result<String> + Send + 'static,
) -> Case {
    let (lab, name) = (lab.clone(), name.into());
    let title = name.clone();
    Case::new(name, move || {
        lab.with(|lab| {
            let result = judged(lab, fault, judge);
            match &result {
                Ok(line) => report(TABLE, format!("{title:<44} {line}")),
                Err(_) => report(TABLE, format!("{title:<44} FAILED")),
            }
            result.map(drop)
        })
    })
}

fn judged(
    lab: &mut Lab,
    fault: impl FnOnce(&mut Lab) -> Result<()>,
    judge: impl FnOnce(&Verdict) -> Result<String>,
) -> Result<String> {
    healthy(lab).context("before the fault")?;
    let before = state(lab)?;
    let watch = Watch::start(lab)?;
    let happened = fault(lab);
    let verdict = watch.end()?;
    let happened = happened.with_context(|| {
        let failed = probes_failed(lab).unwrap_or_default();
        format!(
            "seen meanwhile: {:?}; probes that failed last: {failed:#?}",
            verdict.failures()
        )
    });
    // The next row begins with a lab that works, or says that it does not.
    let after = healthy(lab).and_then(|()| state(lab));
    happened?;
    let after = after?;
    ensure!(
        before == after,
        "afterwards the state is not as desired: {before:#?} became {after:#?}"
    );
    let words = judge(&verdict)?;
    let Verdict {
        downloads,
        requests,
        idle,
    } = &verdict;
    Ok(format!(
        "{}/{} downloads intact, {}/{} requests failed (slowest {} ms), {}/{} idle alive, state as desired: {words}",
        downloads.count - downloads.failures.len() as u64,
        downloads.count,
        requests.failures.len(),
        requests.count,
        requests.slowest.as_millis(),
        idle.count - idle.failures.len() as u64,
        idle.count,
    ))
}

/// `lbd` runs and every backend is up.
fn healthy(lab: &mut Lab) -> Result<()> {
    if lab.process("lbd").is_none() {
        lab.start_lbd()?;
    }
    lab.wait_until_all_up(Duration::from_secs(10))
}

/// What `lbd` said last of backends that are down: on a machine with much else to do that may be why a row has failed.
fn probes_failed(lab: &Lab) -> Result<Vec<String>> {
    let log = site::log(lab)?;
    let mut lines: Vec<_> = log
        .lines()
        .rev()
        .filter(|line| line.contains("becomes down") || line.contains("is down"))
        .take(4)
        .map(str::to_owned)
        .collect();
    lines.reverse();
    Ok(lines)
}

/// What must be as it was: the configuration in force, and what is pinned, by its kinds.
fn state(lab: &Lab) -> Result<Vec<String>> {
    let mut state = site::running_state(lab)?;
    state.retain(|line| !line.starts_with("process "));
    state.extend(pinned(lab)?);
    Ok(state)
}

/// One set of tables, one generation of programs, a link for each interface; without their numbers.
pub(crate) fn pinned(lab: &Lab) -> Result<Vec<String>> {
    let directory = lab.file("bpf/lb");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = name.trim_end_matches(|it: char| it.is_ascii_digit()).to_owned();
        if name == "links" {
            for mode in fs::read_dir(entry.path())? {
                for link in fs::read_dir(mode?.path())? {
                    names.push(format!("pinned link {}", link?.file_name().to_string_lossy()));
                }
            }
        } else if kind == "tables-" {
            let maps = fs::read_dir(entry.path())?.count();
            names.push(format!("pinned set of {maps} maps"));
        } else {
            names.push(format!("pinned {kind}"));
        }
    }
    names.sort();
    Ok(names)
}
