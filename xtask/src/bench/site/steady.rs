//! h2load: requests at a constant rate, how long each took, and what the machine was busy with meanwhile.
//!
//! ```text
//! start        warm          processor time      run time of programs       end
//!   |--- WARM_UP ---|----------- WINDOW -----------|----- PROGRAMS -----|-- REST --|
//! ```
//!
//! The kernel notes the run time of programs only in a part of its own: noting it takes time itself.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use super::candidate::{Candidate, Scheme};
use super::labs::Labs;
use super::peers;
use super::processor_time::{self, Machine, RunTimes};
use crate::lab::{Lab, Node, SITE, Topology};
use crate::process::shown;

/// Opening connections is over, and everything that learns has learnt.
const WARM_UP: Duration = Duration::from_millis(400);
/// In which processor time is taken, and requests are counted.
const WINDOW: Duration = Duration::from_millis(1200);
/// In which the kernel notes for how long programs run.
const PROGRAMS: Duration = Duration::from_millis(300);
/// So that looking takes its time within the load.
const REST: Duration = Duration::from_millis(150);
/// Together with starting and ending: what a run takes.
pub(super) const TAKES: Duration = Duration::from_millis(2200);
/// Connections of each of the two generators, one for each address.
const CONNECTIONS: u32 = 16;

/// What a run gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Answers per second.
    pub(super) rate: f64,
    /// µs, of 50, 99 and 99.9 in a hundred answers at most.
    pub(super) latency: [f64; 3],
    /// Requests that were not answered with 200.
    pub(super) errors: f64,
    /// Processors of the machine that were busy with it.
    pub(super) cores: f64,
    /// What the candidate itself took for an answer, in µs: its process, or its programs. None: it is in the kernel, or there is
    /// none.
    pub(super) per_request: Option<f64>,
}

/// Runs it: answers of this size over HTTPS connections that are kept, `rate` a second or as many as go.
pub(super) fn run(
    labs: &mut Labs,
    topology: Topology,
    candidate: Candidate,
    body: usize,
    rate: Option<f64>,
) -> Result<Figures> {
    let leader = match peers::process_name(candidate) {
        None => None,
        Some(name) => {
            let leader = labs.of_mut(topology, candidate)?.process(name);
            Some(leader.with_context(|| format!("{} does not run", candidate.name()))?)
        }
    };
    let lab = labs.of(topology, candidate)?;
    let mut generators = Generators::start(lab, topology, candidate, body, rate)?;
    thread::sleep(WARM_UP);

    let process = || leader.map(processor_time::of_group).transpose();
    let (process_before, before, begin) = (process()?, Machine::now(labs)?, SystemTime::now());
    thread::sleep(WINDOW);
    let (after, process_after, end) = (Machine::now(labs)?, process()?, SystemTime::now());

    let programs = if candidate.is_ours() {
        let run_times = RunTimes::enable()?;
        let (before, begin) = (run_times.of_balancer(lab)?, SystemTime::now());
        thread::sleep(PROGRAMS);
        let (after, end) = (run_times.of_balancer(lab)?, SystemTime::now());
        Some((after.saturating_sub(before), begin, end))
    } else {
        thread::sleep(PROGRAMS);
        None
    };
    let answers = generators.wait()?;

    let window = Answers::between(&answers, begin, end)?;
    let seconds = end.duration_since(begin)?.as_secs_f64();
    ensure!(window.good > 0, "not one request was answered");
    let microseconds = |duration: Duration| duration.as_secs_f64() * 1e6;
    let per_request = match (programs, process_before.zip(process_after)) {
        (Some((run_time, begin, end)), _) => {
            let answers = Answers::between(&answers, begin, end)?;
            Some(microseconds(run_time) / answers.good as f64)
        }
        (None, Some((before, after))) => {
            Some(microseconds(after.saturating_sub(before)) / window.good as f64)
        }
        (None, None) => None,
    };
    Ok(Figures {
        rate: window.good as f64 / seconds,
        latency: [0.5, 0.99, 0.999].map(|part| window.percentile(part)),
        errors: window.bad as f64,
        cores: after.cores_since(&before),
        per_request,
    })
}

/// One for each address, so that with two of them each gets half of the requests.
struct Generators(Vec<(Child, String, std::path::PathBuf)>);

impl Generators {
    fn start(
        lab: &Lab,
        topology: Topology,
        candidate: Candidate,
        body: usize,
        rate: Option<f64>,
    ) -> Result<Self> {
        let mut generators = Self(Vec::new());
        let port = candidate.port(Scheme::Https);
        let addresses = candidate.addresses(topology);
        for (number, address) in addresses.iter().enumerate() {
            let log = lab.file(&format!("h2load-{number}.log"));
            // It appends.
            let _ = fs::remove_file(&log);
            let mut command: Command = lab.command(Node::Client, "h2load")?;
            command.args(["--h1", "--threads", "1", "--clients"]);
            command.arg(CONNECTIONS.to_string());
            let duration = WARM_UP + WINDOW + PROGRAMS + REST;
            command.arg(format!("--duration={}ms", duration.as_millis()));
            command.arg(format!("--connect-to={address}:{port}"));
            command.arg("--log-file").arg(&log);
            if let Some(rate) = rate {
                let each = rate / addresses.len() as f64 / f64::from(CONNECTIONS);
                command.arg(format!("--rps={each:.3}"));
            }
            command.arg(format!("https://{SITE}:{port}/{body}"));
            let name = shown(&command);
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let child = child.with_context(|| format!("cannot start {name}"))?;
            generators.0.push((child, name, log));
        }
        Ok(generators)
    }

    /// Waits until they have ended, and reads what they noted.
    fn wait(&mut self) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for (child, name, log) in &mut self.0 {
            let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
            ensure!(status.success(), "{name} failed ({status})");
            let text =
                fs::read_to_string(&*log).with_context(|| format!("{name} has not written its log"))?;
            for line in text.lines() {
                let answer = Answer::read(line);
                answers.push(answer.with_context(|| format!("cannot read {line:?} in h2load's log"))?);
            }
        }
        Ok(answers)
    }
}

impl Drop for Generators {
    fn drop(&mut self) {
        for (child, ..) in &mut self.0 {
            // It has mostly ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A line of h2load's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    /// µs since 1970.
    begin: u64,
    is_good: bool,
    /// µs.
    took: u64,
}

impl Answer {
    /// µs since 1970 at which it was asked for, HTTP's status or -1, µs that it took; h2load(1), `--log-file`.
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        Some(Self {
            begin: fields.next()?.parse().ok()?,
            is_good: fields.next()? == "200",
            took: fields.next()?.parse().ok()?,
        })
    }
}

/// The answers to what was asked for in a window.
struct Answers {
    good: usize,
    bad: usize,
    /// µs, sorted, of the good ones.
    took: Vec<u64>,
}

impl Answers {
    fn between(all: &[Answer], begin: SystemTime, end: SystemTime) -> Result<Self> {
        let microseconds = |moment: SystemTime| -> Result<u64> {
            Ok(u64::try_from(moment.duration_since(UNIX_EPOCH)?.as_micros())?)
        };
        let window = microseconds(begin)?..microseconds(end)?;
        let inside = || all.iter().filter(|answer| window.contains(&answer.begin));
        let mut took: Vec<u64> = inside()
            .filter(|answer| answer.is_good)
            .map(|answer| answer.took)
            .collect();
        took.sort_unstable();
        Ok(Self {
            good: took.len(),
            bad: inside().count() - took.len(),
            took,
        })
    }

    /// What this part of the answers did not take longer than.
    fn percentile(&self, part: f64) -> f64 {
        let place = (part * self.took.len() as f64).ceil() as usize;
        let place = place.saturating_sub(1).min(self.took.len().saturating_sub(1));
        self.took.get(place).map_or(f64::NAN, |&took| took as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let answer = Answer {
            begin: 1_700_000_000_000_000,
            is_good: true,
            took: 250,
        };
        assert_eq!(Answer::read("1700000000000000\t200\t250"), Some(answer));
        assert!(!Answer::read("1700000000000000\t-1\t250").unwrap().is_good);
        assert_eq!(Answer::read("1700000000000000\t200"), None);
    }

    #[test]
    fn only_the_window_counts() {
        let answer = |begin, is_good, took| Answer { begin, is_good, took };
        let mut all: Vec<Answer> = (0..1000)
            .map(|number| answer(2_000_000 + number, true, number + 1))
            .collect();
        all.extend([
            answer(1_999_999, true, 5),
            answer(3_000_000, true, 5),
            answer(2_000_500, false, 9),
        ]);
        let moment = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let answers = Answers::between(&all, moment(2), moment(3)).unwrap();
        assert_eq!((answers.good, answers.bad), (1000, 1));
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|part| answers.percentile(part)),
            [500.0, 990.0, 999.0, 1000.0]
        );
    }
}
