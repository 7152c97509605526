//! What `lbd` finds when it starts, or tries to write, is not as it should be: it says so, and packets go on as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use xtask::lab::{Lab, Mode, Node, TRANSFER_PORT, VIP};

use crate::row::unnoticed;
use crate::support::counted::outcome;
use crate::support::held::Held;
use crate::support::lbctl::{lbctl, run as run_and_see};
use crate::support::shared::Shared;

/// The rows.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    vec![
        unnoticed(lab, "a second lbd", second),
        unnoticed(lab, "a pinned map is missing", |lab| {
            spoilt(lab, "CONNECTIONS", None, "it is missing")
        }),
        unnoticed(lab, "a pinned map is another one", |lab| {
            spoilt(lab, "SERVICE_STATES", Some("PRESSURE"), "where this lbd needs")
        }),
        unnoticed(lab, "the pinned notes are another map", |lab| {
            spoilt(lab, "DAEMON_NOTES", Some("CONTROL"), "where this lbd needs")
        }),
        unnoticed(lab, "the bpf filesystem is read-only", read_only),
        unnoticed(lab, "the state file is cut off", |lab| {
            ensure!(
                lbctl(lab, &["backend", "weight", "www/web1", "5"])?.code == 0,
                "cannot set a weight"
            );
            let file = lab.file("state/overrides.json");
            let before = fs::read(&file)?;
            lab.stop_lbd()?;
            fs::write(&file, &before[..before.len() / 2])?;
            let refused = refused(lab, "overrides.json: cannot understand it");
            fs::write(&file, &before)?;
            refused?;
            lab.start_lbd()?;
            lab.wait_until_all_up(Duration::from_secs(5))?;
            ensure!(
                lbctl(lab, &["backend", "weight", "www/web1", "--reset"])?.code == 0,
                "cannot reset a weight"
            );
            Ok(())
        }),
        unnoticed(lab, "the state directory's disk is full", full_disk),
        unnoticed(
            &small(),
            "the connection table is full, and lbd restarts",
            full_table,
        ),
    ]
}

/// With the smallest tables that there are.
fn small() -> Shared {
    Shared::planned("lb-t-small", |options| {
        options.mode = Mode::Nat;
        options.max_connections = 1024;
        options.add_transfer_services();
        Ok(())
    })
}

/// Half as many connections again as the table has places for, each of which goes on.
fn full_table(lab: &mut Lab) -> Result<()> {
    let mut held = Held::open(lab, (VIP, TRANSFER_PORT).into(), 2400)?;
    ensure!(outcome(lab, "to_backend_untracked")? > 0, "the table is not full");
    held.check()?;
    lab.kill_process("lbd")?;
    held.check()?;
    lab.start_lbd()?;
    held.check()
}

/// An `lbd` that is to end at once, with these words.
fn refused(lab: &Lab, words: &str) -> Result<()> {
    let mut command = lab.command(Node::Lb, lab.options().binaries.lbd.clone())?;
    command.arg("--config").arg(lab.file("lb.toml"));
    let said = run_and_see(&mut command)?;
    ensure!(
        said.code == 1 && said.err.contains(words),
        "no {words:?}: {said:?}"
    );
    Ok(())
}

/// With another socket, so that it is the pins that it fails by.
fn second(lab: &mut Lab) -> Result<()> {
    let text = fs::read_to_string(lab.file("lb.toml"))?;
    let socket = lab.file("lbd.sock").display().to_string();
    let other = text
        .replace(&socket, &format!("{socket}2"))
        .replace("metrics = \"127.0.0.1:9100\"\n", "");
    let file = lab.file("second.toml");
    fs::write(&file, other)?;
    let mut command = lab.command(Node::Lb, lab.options().binaries.lbd.clone())?;
    command.arg("--config").arg(&file);
    let said = run_and_see(&mut command)?;
    ensure!(
        said.code == 1 && said.err.contains("another lbd uses it"),
        "{said:?}"
    );
    refused(lab, "lbd.sock")?;
    let cleaned = lab.clean_up();
    ensure!(cleaned.is_err(), "cleaned up while lbd runs");
    Ok(())
}

/// A pin taken away, or another map's in its place.
fn spoilt(lab: &mut Lab, map: &str, other: Option<&str>, words: &str) -> Result<()> {
    lab.stop_lbd()?;
    let set = set(lab)?;
    let (pin, aside) = (set.join(map), lab.file("bpf/aside"));
    fs::rename(&pin, &aside).context("cannot move a pin")?;
    if let Some(other) = other {
        pin_again(&set.join(other), &pin)?;
    }
    let refused = refused(lab, words);
    if other.is_some() {
        fs::remove_file(&pin)?;
    }
    fs::rename(&aside, &pin)?;
    refused?;
    lab.start_lbd()
}

/// The directory of the tables.
fn set(lab: &Lab) -> Result<PathBuf> {
    let entries = fs::read_dir(lab.file("bpf/lb"))?;
    let mut sets = entries.filter_map(|entry| Some(entry.ok()?.path()));
    sets.find(|path| path.to_string_lossy().contains("tables-"))
        .context("no tables are pinned")
}

fn pin_again(from: &Path, to: &Path) -> Result<()> {
    aya::maps::MapData::from_pin(from)?.pin(to)?;
    Ok(())
}

fn read_only(lab: &mut Lab) -> Result<()> {
    lab.stop_lbd()?;
    let remount = |flags: MsFlags| {
        let flags = flags
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_BIND
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        mount(None::<&str>, &lab.file("bpf"), None::<&str>, flags, None::<&str>)
    };
    remount(MsFlags::MS_RDONLY)?;
    let refused = refused(lab, "which must be writable");
    remount(MsFlags::empty())?;
    refused?;
    lab.start_lbd()
}

fn full_disk(lab: &mut Lab) -> Result<()> {
    let directory = lab.file("state");
    mount(
        Some("tmpfs"),
        &directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=4k,nr_inodes=3"),
    )?;
    let checked = on_full_disk(lab, &directory);
    umount2(&directory, MntFlags::MNT_DETACH)?;
    checked
}

fn on_full_disk(lab: &mut Lab, directory: &Path) -> Result<()> {
    fs::write(directory.join("rubbish"), [0; 4096])?;
    let said = lbctl(lab, &["backend", "drain", "www/web1"])?;
    ensure!(
        said.code != 0 && said.err.contains("nothing was changed") && said.err.contains("full"),
        "{said:?}"
    );
    // What needs no disk works.
    let said = lbctl(lab, &["reload"])?;
    ensure!(said.code == 0, "{said:?}");
    lab.kill_process("lbd")?;
    lab.start_lbd()?;
    Ok(())
}
