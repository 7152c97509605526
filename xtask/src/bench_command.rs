//! `cargo xtask bench`: measuring on the user's own machine.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::machine::Machine;
use crate::bench::measurement::Section;
use crate::bench::plan::{self, Planned, Programs};
use crate::bench::progress::Bar;
use crate::bench::report::{self, Report};
use crate::bench::schedule;
use crate::prepared::Prepared;
use crate::signals;

/// Measure this balancer against HAProxy, nginx, nftables, a direct connection and a program that does nothing
///
/// All of it unless sections are chosen. A full run takes twenty minutes at most, beside setting up; the report goes to
/// target/bench.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What a packet costs in the kernel's program runner, and how large the programs are
    #[arg(long)]
    packet: bool,
    /// Packets per second through real veths
    #[arg(long)]
    throughput: bool,
    /// Requests per second, latency and processor time of a whole site
    #[arg(long)]
    site: bool,
    /// The daemon: lists, counts, fail-over, reloads, memory
    #[arg(long)]
    control: bool,
    /// Three minutes at most: fewer rows, and fewer samples
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    prepared: Prepared,
}

impl Args {
    fn sections(&self) -> Vec<Section> {
        let asked = |section: &Section| match section {
            Section::Packet => self.packet,
            Section::Throughput => self.throughput,
            Section::Site => self.site,
            Section::Control => self.control,
        };
        let sections: Vec<Section> = Section::ALL.into_iter().filter(asked).collect();
        if sections.is_empty() {
            Section::ALL.to_vec()
        } else {
            sections
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When something does not build, or the report cannot be written. What could not be measured is part of the report, and
/// makes the command fail.
pub fn run(args: &Args) -> Result<ExitCode> {
    let programs = args.prepared.built_by(Programs::build)?;
    signals::catch()?;
    let mut report = Report {
        format: 1,
        began: report::now(),
        took: 0,
        quick: args.quick,
        machine: Machine::survey(&programs.lab.lbd),
        measurements: Vec::new(),
        failures: Vec::new(),
    };
    let began = Instant::now();
    let sections = args.sections();
    let total: Duration = sections
        .iter()
        .map(|section| plan::time(*section, args.quick))
        .sum();
    let mut bar = Bar::new(total);
    for section in sections {
        measure(section, &programs, &mut report, &mut bar);
    }
    bar.finish(began);
    report.took = began.elapsed().as_secs();
    let files = report.write()?;
    println!("{}", report.for_terminal());
    println!("{}\n{}", files.page.display(), files.json.display());
    Ok(if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn measure(section: Section, programs: &Programs, report: &mut Report, bar: &mut Bar) {
    let planned = plan::of_section(section, programs);
    let all_weights = planned.iter().map(|planned| planned.weight).sum();
    let conditions = report.machine.conditions();
    for Planned {
        mut experiment,
        weight,
    } in planned
    {
        if signals::interrupted() {
            return;
        }
        let effort = plan::effort(section, report.quick, weight, all_weights);
        bar.next(effort.time);
        let outcome = schedule::run(experiment.as_mut(), &effort, &conditions, bar);
        report.measurements.extend(outcome.measurements);
        report
            .failures
            .extend(outcome.failure.map(|failure| format!("{section}: {failure:#}")));
    }
}
