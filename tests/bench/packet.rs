//! What a packet costs in the kernel's own program runner: ns for each path, against a program that does nothing.
//!
//! The runner takes the mean of a million repeats; the paths take turns, and the medians are printed. What matters is the
//! ratio to the bare program: nanoseconds are those of this machine.

#![allow(clippy::print_stdout, reason = "it reports on standard output")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "shared with the packet tests, which use more of it, and may panic"
)]

#[path = "../packet/frame.rs"]
mod frame;
#[path = "../packet/world.rs"]
mod world;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use lb_common::bench::{DESTINATION, LENGTH, Plan, SOURCE};
use lb_common::outcome::Outcome;
use lb_tests::programs;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::frame::{Frame, Talk};
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

/// A plan restores all but the type.
const FRAME: [u8; LENGTH] = {
    let mut frame = [0; LENGTH];
    frame[12] = 0x08;
    frame
};

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

/// The wrapper, and what it calls.
struct Runner {
    ebpf: Ebpf,
    plan: Array<MapData, [u64; size_of::<Plan>() / 8]>,
    next: ProgramArray<MapData>,
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

    let mut runner = Runner::new()?;
    let bare = runner.load("bare")?;
    let established = World::with_room(&[www(1)], MOST / 4 * 5)?;
    let new = World::with_room(&[www(1)], 1_000_000)?;
    runner.establish(&established)?;

    let paths = paths()?;
    let mut samples = vec![Vec::new(); paths.len()];
    for _ in 0..ROUNDS {
        for (path, samples) in paths.iter().zip(&mut samples) {
            let world = match path.table {
                Table::Established => &established,
                Table::New => &new,
            };
            samples.push(match path.expected {
                None => runner.time(&bare, path.plan)?,
                Some(outcome) => runner.time_outcome(world, path, outcome)?,
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
            plan: Plan::new(&short(frame)?, client_at, clients),
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

/// The first bytes of the frame, with a payload that makes it long enough.
fn short(frame: &Frame) -> anyhow::Result<[u8; LENGTH]> {
    let bytes = frame.clone().payload(&[0; LENGTH - 54]).bytes();
    Ok(bytes.as_slice().try_into()?)
}

impl Runner {
    fn new() -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load_file(programs::object("bench")?)?;
        let plan = ebpf.take_map("PLAN").context("no map PLAN")?;
        let next = ebpf.take_map("NEXT").context("no map NEXT")?;
        let mut runner = Self {
            plan: Array::try_from(plan)?,
            next: ProgramArray::try_from(next)?,
            ebpf,
        };
        runner.load("wrapper")?;
        Ok(runner)
    }

    fn load(&mut self, name: &str) -> anyhow::Result<ProgramFd> {
        let program: &mut Xdp = self
            .ebpf
            .program_mut(name)
            .context("no such program")?
            .try_into()?;
        program.load()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Opens [`MOST`] connections, by whole handshakes.
    fn establish(&mut self, world: &World) -> anyhow::Result<()> {
        let talk = Talk::new(FIRST_CLIENT.parse()?, 1);
        let program = world.dataplane.program()?.fd()?.try_clone()?;
        for (frame, client_at) in [
            (talk.client_sends().syn(), SOURCE),
            (talk.backend_sends().syn().ack(), DESTINATION),
            (talk.client_sends().ack(), SOURCE),
        ] {
            let plan = Plan::new(&short(&frame)?, client_at, MOST);
            self.repeat(&program, plan, MOST)?;
        }
        Ok(())
    }

    fn time_outcome(&mut self, world: &World, path: &Path, outcome: Outcome) -> anyhow::Result<f64> {
        let count = || -> anyhow::Result<u64> {
            let outcomes = world.dataplane.counters().outcomes()?;
            let found = outcomes.iter().find(|(other, _)| *other == outcome);
            Ok(found.map_or(0, |(_, count)| *count))
        };
        let before = count()?;
        let program = world.dataplane.program()?.fd()?.try_clone()?;
        let took = self.time(&program, path.plan)?;
        let came_to = count()? - before;
        // A few of a million find no room in the table.
        ensure!(
            came_to >= u64::from(REPEAT) / 1000 * 999,
            "{}: only {came_to} of {REPEAT} packets came to {}",
            path.name,
            outcome.name()
        );
        Ok(took)
    }

    fn time(&mut self, program: &ProgramFd, plan: Plan) -> anyhow::Result<f64> {
        self.repeat(program, plan, REPEAT)
    }

    /// Mean ns of so many repeats.
    fn repeat(&mut self, program: &ProgramFd, plan: Plan, repeat: u32) -> anyhow::Result<f64> {
        self.next.set(0, program, 0)?;
        // SAFETY: integers, without padding.
        let plan = unsafe { std::mem::transmute::<Plan, [u64; size_of::<Plan>() / 8]>(plan) };
        self.plan.set(0, plan, 0)?;
        let wrapper: &Xdp = self.ebpf.program("wrapper").context("no wrapper")?.try_into()?;
        let result = wrapper.test_run(TestRunOptions {
            data_in: Some(&FRAME),
            repeat,
            ..TestRunOptions::new()
        })?;
        ensure!(result.return_value != 0, "the wrapper could not call the program");
        Ok(result.duration.as_nanos() as f64)
    }
}

fn report(paths: &[Path], samples: &mut [Vec<f64>]) {
    let medians: Vec<f64> = samples.iter_mut().map(|samples| median(samples)).collect();
    let bare = medians.first().copied().unwrap_or(f64::NAN);
    println!("{:<34}{:>8}{:>10}{:>10}", "packet", "ns", "x bare", "at most");
    for (path, median) in paths.iter().zip(medians) {
        let target = path.target.map_or(String::new(), |target| format!("{target:.1}"));
        println!(
            "{:<34}{median:>8.0}{:>10.1}{target:>10}",
            path.name,
            median / bare
        );
    }
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
