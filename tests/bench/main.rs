//! The harness of `cargo xtask bench`: takes samples with the daemon's own code and the kernel's program runner, one at a time,
//! as it is asked to.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "answers go to standard output, and why it ends to standard error"
)]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "shared with the packet tests, which use more of it, and may panic"
)]

mod forwarding;
#[path = "../packet/frame/mod.rs"]
mod frame;
#[path = "../packet/kind.rs"]
mod kind;
mod one_line;
mod packets;
mod paths;
#[path = "../packet/pool.rs"]
mod pool;
#[path = "../packet/repeater.rs"]
mod repeater;
mod scene;
#[path = "../packet/seen.rs"]
mod seen;
mod sizes;
mod tables;
#[path = "../packet/talk.rs"]
mod talk;
mod variant;
#[path = "../packet/world.rs"]
mod world;

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use xtask::bench::experiment::{Sample, Turn};
use xtask::bench::protocol::{Answer, Request, Which};

use crate::forwarding::Forwarding;
use crate::packets::Packets;
use crate::tables::Tables;

fn main() -> ExitCode {
    // `cargo bench` starts it without, and would wait for ever.
    if std::env::args().nth(1).as_deref() != Some("--serve") {
        println!("this is what `cargo xtask bench --packet` and `--control` take samples with: run those");
        return ExitCode::SUCCESS;
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the bench's harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is being measured.
enum Measuring {
    Packets(Box<Packets>),
    Forwarding(Box<Forwarding>),
    Tables(Box<Tables>),
}

impl Measuring {
    fn take(&mut self, turn: &Turn) -> anyhow::Result<Sample> {
        match self {
            Self::Packets(packets) => packets.take(turn),
            Self::Forwarding(forwarding) => forwarding.take(turn),
            Self::Tables(tables) => tables.take(turn),
        }
    }
}

/// Answers until nobody asks any more.
fn serve() -> anyhow::Result<()> {
    let mut measuring = None;
    for line in stdin().lock().lines() {
        let request = serde_json::from_str(&line?).context("not a request")?;
        let answer = answer(request, &mut measuring);
        let answer = answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        let mut out = stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn answer(request: Request, measuring: &mut Option<Measuring>) -> anyhow::Result<Answer> {
    match request {
        Request::SetUp { which, quick } => {
            stay_on_this_processor()?;
            let (ready, turns) = match which {
                Which::Packets => {
                    let packets = Packets::set_up(quick)?;
                    let turns = packets.turns();
                    (Measuring::Packets(Box::new(packets)), turns)
                }
                Which::Forwarding => {
                    let forwarding = Forwarding::set_up(quick)?;
                    (Measuring::Forwarding(Box::new(forwarding)), Forwarding::turns())
                }
                Which::Tables => {
                    let tables = Tables::set_up()?;
                    let turns = Tables::turns();
                    (Measuring::Tables(Box::new(tables)), turns)
                }
            };
            *measuring = Some(ready);
            Ok(Answer::Turns(turns))
        }
        Request::Take(turn) => {
            let measuring = measuring.as_mut().context("nothing was set up")?;
            measuring.take(&turn).map(Answer::Sample)
        }
    }
}

fn stay_on_this_processor() -> anyhow::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &here)?;
    Ok(())
}
