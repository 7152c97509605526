//! The whole site under load: requests per second and how long they take, and what the balancing costs in processor time, next
//! to what a user would have instead.
//!
//! Everybody has the same wires with the same offloads, and the same two web servers with as many workers; a direct connection
//! goes to both of them, too. Client, balancer and servers share the machine's processors: what the balancing takes, the
//! others do not have.

mod candidate;
mod labs;
mod peers;
mod processor_time;
mod steady;
mod wrk;

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::candidate::{Candidate, Scheme};
use self::labs::Labs;
use self::processor_time::Machine;
use self::wrk::Workload;
use super::experiment::{Effort, Experiment, Reading, Sample, Turn};
use super::measurement::{Conditions, Section, Unit};
use super::names::{quantity, row};
use crate::lab::{Binaries, Lab, Mode, Topology};

/// Bytes of the bodies.
const SMALL: usize = 1 << 10;
const LARGE: usize = 1 << 20;
/// Of a run of wrk.
const WRK_RUN: Duration = Duration::from_millis(700);
/// With starting it: what a run takes.
const WRK_TAKES: Duration = Duration::from_millis(800);
/// Of what goes through directly, over connections that are kept.
const SEVENTY_PERCENT: f64 = 0.7;
/// Likewise, so that everybody can serve it: HAProxy takes part of the machine.
const FOR_EVERYBODY: f64 = 0.3;

/// Runs that find out what goes directly: the best one counts.
const LOOKS_FOR_THE_MOST: u32 = 3;

/// What all candidates are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    /// As much as goes.
    Most(Workload),
    /// HTTPS, connections kept, small bodies: this part of what goes directly.
    Steady(f64),
}

impl Load {
    /// What a run takes.
    fn takes(self) -> Duration {
        match self {
            Self::Most(_) => WRK_TAKES,
            Self::Steady(_) => steady::TAKES,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Most(workload) => workload.name(),
            Self::Steady(part) if part < SEVENTY_PERCENT => row::at_fixed_rate(&MAIN.name()),
            Self::Steady(_) => row::at_seventy_percent(&MAIN.name()),
        }
    }

    /// Who is asked. On one segment HAProxy is there to compare processor time with. A quick run asks few for what takes long.
    fn candidates(self, topology: Topology, quick: bool) -> Vec<Candidate> {
        use Candidate::{Direct, HaProxy, NginxStream, Ours, Passed};
        let is_asked = |candidate: Candidate| match (topology, self) {
            (_, Self::Steady(part)) if candidate == Passed => !quick && part < SEVENTY_PERCENT,
            (_, Self::Most(workload)) if candidate == Passed => {
                !quick && workload.body == SMALL && !workload.new_connections
            }
            (Topology::Routed, Self::Steady(_)) => {
                !quick || matches!(candidate, Direct | Ours(Mode::Nat) | HaProxy)
            }
            (Topology::Routed, Self::Most(_)) => !quick || candidate != NginxStream,
            (Topology::L2, Self::Steady(part)) => !quick && (part < SEVENTY_PERCENT || candidate != HaProxy),
            (Topology::L2, Self::Most(workload)) => (!quick || workload == MAIN) && candidate != HaProxy,
        };
        let all = Candidate::in_topology(topology).iter().copied();
        all.filter(|candidate| is_asked(*candidate)).collect()
    }
}

const fn workload(scheme: Scheme, new_connections: bool, body: usize) -> Workload {
    Workload {
        new_connections,
        body,
        scheme,
    }
}

/// The usual one: what rates are a part of.
const MAIN: Workload = workload(Scheme::Https, false, SMALL);

/// Everything, the most important first: what does not fit into the time is left out.
const LOADS: [Load; 10] = [
    Load::Most(MAIN),
    Load::Most(workload(Scheme::Https, true, SMALL)),
    Load::Steady(FOR_EVERYBODY),
    Load::Steady(SEVENTY_PERCENT),
    Load::Most(workload(Scheme::Http, false, SMALL)),
    Load::Most(workload(Scheme::Http, true, SMALL)),
    Load::Most(workload(Scheme::Https, false, LARGE)),
    Load::Most(workload(Scheme::Http, false, LARGE)),
    Load::Most(workload(Scheme::Https, true, LARGE)),
    Load::Most(workload(Scheme::Http, true, LARGE)),
];

/// A turn, and what is to be done then.
#[derive(Debug)]
struct Task {
    turn: Turn,
    load: Load,
    topology: Topology,
    candidate: Candidate,
}

/// The experiment.
#[derive(Debug)]
pub struct Site {
    binaries: Binaries,
    labs: Option<Labs>,
    tasks: Vec<Task>,
    /// Answers per second that go through directly, by topology.
    direct: Vec<(Topology, f64)>,
}

impl Site {
    /// With these programs.
    pub fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            labs: None,
            tasks: Vec::new(),
            direct: Vec::new(),
        }
    }

    fn direct(&self, topology: Topology) -> Result<f64> {
        let rate = self.direct.iter().find(|(of, _)| *of == topology);
        rate.map(|(_, rate)| *rate)
            .context("direct connections were not measured")
    }
}

/// The tasks of a round, those that are to be compared next to each other; as many loads as fit into the time.
fn tasks(effort: &Effort) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut left = effort.time / u32::try_from(effort.least_rounds).unwrap_or(1).max(1);
    for load in LOADS {
        let mut of_load = Vec::new();
        for topology in [Topology::Routed, Topology::L2] {
            let name = match topology {
                Topology::Routed => load.name(),
                Topology::L2 => format!("{}, one segment", load.name()),
            };
            for candidate in load.candidates(topology, effort.quick) {
                of_load.push(Task {
                    turn: Turn::new(&name, candidate.name()),
                    load,
                    topology,
                    candidate,
                });
            }
        }
        let takes = load.takes() * u32::try_from(of_load.len()).unwrap_or(u32::MAX);
        // The first one is what the bench is for.
        if takes > left && !tasks.is_empty() {
            continue;
        }
        left = left.saturating_sub(takes);
        tasks.append(&mut of_load);
    }
    tasks
}

impl Experiment for Site {
    fn section(&self) -> Section {
        Section::Site
    }

    fn name(&self) -> &str {
        "site"
    }

    fn set_up(&mut self, effort: &Effort) -> Result<Vec<Turn>> {
        let labs = self.labs.insert(Labs::up(&self.binaries, &[SMALL, LARGE])?);
        for topology in [Topology::Routed, Topology::L2] {
            peers::start_haproxy(labs.of_mut(topology, Candidate::HaProxy)?, topology)?;
        }
        let routed = labs.of_mut(Topology::Routed, Candidate::NginxStream)?;
        peers::start_nginx_stream(routed, Topology::Routed)?;
        self.tasks = tasks(effort);
        for topology in [Topology::Routed, Topology::L2] {
            let mut most: f64 = 0.0;
            for _ in 0..LOOKS_FOR_THE_MOST {
                let figures = steady::run(labs, topology, Candidate::Direct, SMALL, None)?;
                most = most.max(figures.rate);
            }
            self.direct.push((topology, most));
        }
        Ok(self.tasks.iter().map(|task| task.turn.clone()).collect())
    }

    fn take(&mut self, turn: &Turn) -> Result<Sample> {
        let task = self.tasks.iter().find(|task| task.turn == *turn);
        let &Task {
            load,
            topology,
            candidate,
            ..
        } = task.context("there is no such turn")?;
        let direct = self.direct(topology)?;
        let labs = self.labs.as_mut().context("it is not set up")?;
        if candidate == Candidate::Nftables {
            peers::load_nftables(labs.of(topology, candidate)?, topology)?;
        }
        let taken = measure(labs, topology, candidate, load, direct);
        if candidate == Candidate::Nftables {
            peers::unload_nftables(labs.of(topology, candidate)?)?;
        }
        let conditions = Conditions::new()
            .with("web servers' workers", labs::processors())
            .with("offloads", labs.offloads(topology, candidate)?);
        Ok(Sample {
            readings: taken?,
            conditions: match load {
                Load::Most(_) => conditions
                    .with("connections", wrk::CONNECTIONS)
                    .with("seconds", WRK_RUN.as_secs_f32()),
                Load::Steady(part) => conditions.with("requests per second", (part * direct).round()),
            },
        })
    }

    fn take_down(&mut self) -> Result<()> {
        self.labs.take().map_or(Ok(()), Labs::down)
    }
}

fn measure(
    labs: &mut Labs,
    topology: Topology,
    candidate: Candidate,
    load: Load,
    direct: f64,
) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let before = Machine::now(labs)?;
    let (rate, latency, errors) = match load {
        Load::Most(workload) => {
            let figures = answered(labs.of(topology, candidate)?, topology, candidate, workload)?;
            (figures.rate, figures.latency, figures.errors)
        }
        Load::Steady(part) => {
            let figures = served(labs, topology, candidate, part, part * direct)?;
            readings.push(Reading::new(quantity::MACHINE_CPU, Unit::Cores, figures.cores));
            if let Some(own) = figures.per_request {
                readings.push(Reading::new(quantity::CPU_PER_REQUEST, Unit::Microseconds, own));
            }
            (figures.rate, figures.latency, figures.errors)
        }
    };
    readings.push(Reading::new(quantity::REQUESTS, Unit::RequestsPerSecond, rate));
    for (name, latency) in [quantity::P50, quantity::P99, quantity::P999]
        .into_iter()
        .zip(latency)
    {
        readings.push(Reading::new(name, Unit::Microseconds, latency));
    }
    readings.push(Reading::new(ERRORS, Unit::Count, errors));
    let others = Machine::now(labs)?.others_since(&before);
    readings.push(Reading::new(OTHERS, Unit::Cores, others));
    Ok(readings)
}

/// Fifty TLS handshakes may take longer than a run on a machine that has much else to do: then nothing is known, and there is
/// another try.
fn answered(lab: &Lab, topology: Topology, candidate: Candidate, workload: Workload) -> Result<wrk::Figures> {
    for _ in 0..TRIES {
        let figures = wrk::run(lab, topology, candidate, workload, WRK_RUN)?;
        if figures.rate > 0.0 {
            return Ok(figures);
        }
        thread::sleep(BETWEEN_TRIES);
    }
    bail!("not one request was answered in {TRIES} runs")
}

/// At a rate that everybody can serve, a run in which it was not served says nothing: what was not asked for cost nothing. On
/// a machine that has something else to do just then, another try helps.
fn served(
    labs: &mut Labs,
    topology: Topology,
    candidate: Candidate,
    part: f64,
    wanted: f64,
) -> Result<steady::Figures> {
    let mut rates = Vec::new();
    for _ in 0..TRIES {
        let figures = steady::run(labs, topology, candidate, SMALL, Some(wanted))?;
        if part >= SEVENTY_PERCENT || figures.rate > 0.95 * wanted {
            return Ok(figures);
        }
        rates.push(format!("{:.0}", figures.rate));
        thread::sleep(BETWEEN_TRIES);
    }
    bail!(
        "of {wanted:.0} requests a second only {} were answered; is the machine busy with something else?",
        rates.join(", ")
    )
}

/// Of what should be no effort.
const TRIES: usize = 5;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Requests and connections that went wrong: should be 0, and are shown if not.
const ERRORS: &str = "errors";
/// What the machine did besides: on one that has something else to do, figures vary.
const OTHERS: &str = "other programs' CPU";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan;

    fn effort(quick: bool, least_rounds: usize, seconds: u64) -> Effort {
        Effort {
            quick,
            least_rounds,
            time: Duration::from_secs(seconds),
        }
    }

    fn takes(tasks: &[Task]) -> Duration {
        tasks.iter().map(|task| task.load.takes()).sum()
    }

    #[test]
    fn what_is_planned_fits_into_the_time() {
        for effort in [effort(false, 7, 600), effort(false, 7, 400), effort(true, 3, 60)] {
            let tasks = tasks(&effort);
            let rounds = u32::try_from(effort.least_rounds).unwrap();
            assert!(takes(&tasks) * rounds <= effort.time, "{effort:?}");
        }
    }

    #[test]
    fn with_time_enough_everything_is_measured() {
        let tasks = tasks(&effort(false, 7, 3600));
        let loads = LOADS
            .iter()
            .filter(|load| tasks.iter().any(|task| task.load == **load));
        assert_eq!(loads.count(), LOADS.len());
        for mode in [Mode::Nat, Mode::FullNat, Mode::Dsr, Mode::Ipip] {
            let of_mode = tasks
                .iter()
                .filter(|task| task.candidate == Candidate::Ours(mode));
            assert_eq!(of_mode.count(), LOADS.len(), "{mode:?}");
        }
    }

    #[test]
    fn the_bench_has_time_for_what_has_a_target() {
        for (quick, loads) in [(false, LOADS.len()), (true, 5)] {
            let effort = plan::effort(Section::Site, quick, 1, 1);
            let tasks = tasks(&effort);
            for load in &LOADS[..loads] {
                let measured = tasks.iter().any(|task| task.load == *load);
                assert!(measured, "no time for {load:?} (quick: {quick})");
            }
        }
    }

    #[test]
    fn nobody_is_compared_without_a_direct_connection() {
        for task in tasks(&effort(false, 7, 3600)) {
            let tasks = tasks(&effort(false, 7, 3600));
            let same_row = |other: &&Task| other.turn.row == task.turn.row;
            let mut row = tasks.iter().filter(same_row);
            assert_eq!(row.next().unwrap().candidate, Candidate::Direct);
        }
    }
}
