//! What is done thousands of times takes no more each time: no memory, no descriptors, no maps, no pins.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Case, report};
use xtask::lab::{Lab, wait_for};

use crate::row;
use crate::support::shared::Shared;
use crate::support::wrk::Wrk;
use crate::support::{is_full, site};

const TABLE: &str = "again and again, under wrk";
/// Maps of others on this machine may come and go meanwhile; each start has more than twenty.
const STRANGERS: usize = 5;

/// The tests.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    let (reloading, restarting) = (lab.clone(), lab.clone());
    vec![
        Case::new("reloads under wrk, and what they leave", move || {
            reloading.with(reloads)
        }),
        Case::new("restarts under wrk, and what they leave", move || {
            restarting.with(restarts)
        }),
    ]
}

/// What a daemon, and what it has pinned, take.
#[derive(Debug)]
struct Taken {
    kibibytes: u64,
    descriptors: usize,
    maps: usize,
    pins: Vec<String>,
}

fn taken(lab: &mut Lab) -> Result<Taken> {
    let pid = lab.process("lbd").context("lbd does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(Taken {
        kibibytes: resident.parse()?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        maps: maps(),
        pins: row::pinned(lab)?,
    })
}

fn maps() -> usize {
    aya::maps::loaded_maps().filter(Result::is_ok).count()
}

fn reloads(lab: &mut Lab) -> Result<()> {
    const WEB1: &str = "name = \"web1\"\naddress = \"198.18.1.2\"\n";
    let many = if is_full() { 10_000 } else { 200 };
    let weighted = format!("{WEB1}weight = 3\n");
    lab.wait_until_all_up(Duration::from_secs(10))?;
    let change = |lab: &Lab, times: u32| -> Result<()> {
        for _ in 0..times / 2 {
            for (from, to) in [(WEB1, &*weighted), (&*weighted, WEB1)] {
                site::edit(lab, from, to)?;
                site::reload(lab)?;
            }
        }
        Ok(())
    };
    let load = Wrk::until_told(lab)?;
    // What is taken once and kept is taken now.
    change(lab, 20)?;
    let before = taken(lab)?;
    let began = Instant::now();
    let changed = change(lab, many);
    let lasted = began.elapsed();
    let figures = load.stop_without_errors()?;
    changed?;
    let after = taken(lab)?;
    // The allocator keeps a little of what it was given; ten bytes a reload would be a leak.
    let leak = u64::from(many) / 100 + 4096;
    ensure!(
        after.kibibytes <= before.kibibytes + leak
            && after.descriptors <= before.descriptors + 2
            && after.maps <= before.maps + STRANGERS
            && after.pins == before.pins,
        "{before:?} became {after:?}"
    );
    report(
        TABLE,
        format!(
            "{many} reloads in {:.0} s: {} requests, no error; {} became {} KiB, {} became {} descriptors",
            lasted.as_secs_f32(),
            figures.requests,
            before.kibibytes,
            after.kibibytes,
            before.descriptors,
            after.descriptors
        ),
    );
    Ok(())
}

fn restarts(lab: &mut Lab) -> Result<()> {
    let many = if is_full() { 1000 } else { 10 };
    lab.wait_until_all_up(Duration::from_secs(10))?;
    let load = Wrk::unhurried(lab, Duration::from_millis(20))?;
    let before = taken(lab)?;
    let began = Instant::now();
    let mut restart = || -> Result<()> {
        for number in 0..many {
            if number % 2 == 0 {
                lab.stop_lbd()?;
            } else {
                lab.kill_process("lbd")?;
            }
            lab.start_lbd()?;
        }
        Ok(())
    };
    let restarted = restart();
    let lasted = began.elapsed();
    let figures = load.stop_without_errors()?;
    restarted?;
    // What nobody holds any more the kernel frees when it has the time.
    let settled = wait_for(
        "the maps of former daemons to go",
        Duration::from_secs(20),
        || {
            let maps = maps();
            if maps <= before.maps + STRANGERS {
                Ok(())
            } else {
                Err(format!("there are {maps}, and were {}", before.maps))
            }
        },
    );
    let after = taken(lab)?;
    settled?;
    ensure!(
        after.kibibytes <= before.kibibytes + 8192
            && after.descriptors <= before.descriptors + 2
            && after.pins == before.pins,
        "{before:?} became {after:?}"
    );
    report(
        TABLE,
        format!(
            "{many} restarts, every other one after a SIGKILL, in {:.0} s: {} requests, no error; {} became {} maps on this machine",
            lasted.as_secs_f32(),
            figures.requests,
            before.maps,
            after.maps
        ),
    );
    Ok(())
}
