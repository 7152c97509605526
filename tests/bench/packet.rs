//! What a packet costs in the kernel's own program runner: ns for each path, against a program that does nothing.
//!
//! The runner takes the mean of a million repeats; the paths take turns, and the medians are printed. What matters is the
//! ratio to the bare program: nanoseconds are those of this machine.

#![allow(clippy::print_stdout, reason = "it reports on standard output")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "shared with the packet tests, which use more of it, and may panic"
)]

#[path = "../packet/frame/mod.rs"]
mod frame;
#[path = "../packet/kind.rs"]
mod kind;
#[path = "../packet/pool.rs"]
mod pool;
#[path = "../packet/repeater.rs"]
mod repeater;
#[path = "../packet/seen.rs"]
mod seen;
#[path = "../packet/talk.rs"]
mod talk;
#[path = "../packet/world.rs"]
mod world;

use std::process::ExitCode;

use anyhow::ensure;
use lb_common::bench::{DESTINATION, Plan, SOURCE};
use lb_common::outcome::Outcome;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::frame::Frame;
use crate::repeater::{Repeater, plan};
use crate::talk::Talk;
use crate::world::{World, www};

/// How often a path's turn comes; odd, so that there is a median.
const ROUNDS: usize = 9;
const REPEAT: u32 = 1_000_000;
const MANY: u32 = 1 << 16;
const MOST: u32 = 1 << 20;
/// How many clients open connections that are new each time.
const SOURCES: u32 = 1 << 24;
/// 10.0.0.0, so that a client's number can be added.
const FIRST_CLIENT: &str = "10.0.0.0:40000";

/// What the program is given, and what should become of it.
struct Path {
    name: &'static str,
    /// The most that it should cost, in multiples of the bare program.
    target: Option<f64>,
    plan: Plan,
    /// `None`: the bare program.
    expected: Option<Outcome>,
    /// Which of the two tables.
    table: Table,
}

#[derive(Clone, Copy)]
enum Table {
    /// Holds [`MOST`] established connections.
    Established,
    /// Is filled with new ones.
    New,
}

fn main() -> ExitCode {
    // `cargo bench` passes `--bench`, and means nothing by it here.
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &here)?;

    let mut repeater = Repeater::new()?;
    let bare = repeater.load("bare")?;
    let established = World::with_room(&[www(1)], MOST / 4 * 5)?;
    let new = World::with_room(&[www(1)], 1_000_000)?;
    establish(&mut repeater, &established)?;

    let paths = paths()?;
    let mut samples = vec![Vec::new(); paths.len()];
    for _ in 0..ROUNDS {
        for (path, samples) in paths.iter().zip(&mut samples) {
            let world = match path.table {
                Table::Established => &established,
                Table::New => &new,
            };
            samples.push(match path.expected {
                None => {
                    repeater.prepare(&bare, |_| Ok(path.plan))?;
                    repeater.run(REPEAT)?
                }
                Some(outcome) => time(&mut repeater, world, path, outcome)?,
            });
        }
    }
    report(&paths, &mut samples);
    Ok(())
}

fn paths() -> anyhow::Result<Vec<Path>> {
    let talk = Talk::new(FIRST_CLIENT.parse()?, 1);
    let ack = talk.client_sends().ack();
    let not_ours = ack.clone().with_destination("203.0.113.99:443".parse()?);
    let path = |name, target, frame: &Frame, client_at, clients, expected| {
        Ok(Path {
            name,
            target,
            plan: plan(frame, client_at, clients)?,
            expected,
            table: Table::Established,
        })
    };
    let answer = talk.backend_sends().ack();
    let mut paths = vec![
        path("bare program", None, &ack, SOURCE, 1, None),
        path(
            "not ours",
            Some(1.5),
            &not_ours,
            SOURCE,
            1,
            Some(Outcome::NotOurs),
        ),
        path(
            "to the backend, 1 flow",
            Some(2.5),
            &ack,
            SOURCE,
            1,
            Some(Outcome::ToBackend),
        ),
        path(
            "to the client, 1 flow",
            Some(2.5),
            &answer,
            DESTINATION,
            1,
            Some(Outcome::ToClient),
        ),
        path(
            "to the backend, 65,536 flows",
            None,
            &ack,
            SOURCE,
            MANY,
            Some(Outcome::ToBackend),
        ),
        path(
            "to the client, 65,536 flows",
            None,
            &answer,
            DESTINATION,
            MANY,
            Some(Outcome::ToClient),
        ),
        path(
            "to the backend, 1,048,576 flows",
            None,
            &ack,
            SOURCE,
            MOST,
            Some(Outcome::ToBackend),
        ),
        path(
            "to the client, 1,048,576 flows",
            None,
            &answer,
            DESTINATION,
            MOST,
            Some(Outcome::ToClient),
        ),
    ]
    .into_iter()
    .collect::<anyhow::Result<Vec<_>>>()?;
    let syn = talk.client_sends().syn();
    paths.push(Path {
        table: Table::New,
        ..path(
            "a new connection of 16 M sources",
            None,
            &syn,
            SOURCE,
            SOURCES,
            Some(Outcome::ToBackend),
        )?
    });
    Ok(paths)
}

/// Opens [`MOST`] connections, by whole handshakes.
fn establish(repeater: &mut Repeater, world: &World) -> anyhow::Result<()> {
    let talk = Talk::new(FIRST_CLIENT.parse()?, 1);
    for (frame, client_at) in [
        (talk.client_sends().syn(), SOURCE),
        (talk.backend_sends().syn().ack(), DESTINATION),
        (talk.client_sends().ack(), SOURCE),
    ] {
        repeater.prepare(world.dataplane.program()?.fd()?, |_| {
            plan(&frame, client_at, MOST)
        })?;
        repeater.run(MOST)?;
    }
    Ok(())
}

/// Mean ns of a packet, all of which must come to the outcome.
fn time(repeater: &mut Repeater, world: &World, path: &Path, outcome: Outcome) -> anyhow::Result<f64> {
    let count = || -> anyhow::Result<u64> {
        let outcomes = world.dataplane.counters().outcomes()?;
        let found = outcomes.iter().find(|(other, _)| *other == outcome);
        Ok(found.map_or(0, |(_, count)| *count))
    };
    if matches!(path.table, Table::New) {
        // In a table that is full of the last round's half-open entries a new connection would find no room.
        let long_after = world.dataplane.now()?.after(20_000);
        world.dataplane.connections().sweep(long_after);
    }
    let before = count()?;
    repeater.prepare(world.dataplane.program()?.fd()?, |_| Ok(path.plan))?;
    let took = repeater.run(REPEAT)?;
    let came_to = count()? - before;
    // A few of a million find no room in the table.
    ensure!(
        came_to >= u64::from(REPEAT) / 1000 * 998,
        "{}: only {came_to} of {REPEAT} packets came to {}",
        path.name,
        outcome.name()
    );
    Ok(took)
}

/// Medians, and beside them the least of each, which other work on the machine disturbs less.
fn report(paths: &[Path], samples: &mut [Vec<f64>]) {
    let figures: Vec<[f64; 2]> = samples.iter_mut().map(|samples| figures(samples)).collect();
    let [bare_median, bare_least] = figures.first().copied().unwrap_or([f64::NAN; 2]);
    println!("{:<34}{:>18}{:>18}", "", "median", "least");
    println!(
        "{:<34}{:>8}{:>10}{:>8}{:>10}{:>10}",
        "packet", "ns", "x bare", "ns", "x bare", "at most"
    );
    for (path, [median, least]) in paths.iter().zip(figures) {
        let target = path.target.map_or(String::new(), |target| format!("{target:.1}"));
        println!(
            "{:<34}{median:>8.0}{:>10.2}{least:>8.0}{:>10.2}{target:>10}",
            path.name,
            median / bare_median,
            least / bare_least
        );
    }
}

fn figures(samples: &mut [f64]) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [samples.len() / 2, 0].map(|at| samples.get(at).copied().unwrap_or(f64::NAN))
}
