//! Whose turn it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::experiment::{Effort, Experiment, Sample, Turn};
use super::measurement::{Conditions, Key, Measurement, Section};
use crate::signals;

/// Is told how far things are.
pub trait Progress {
    /// An experiment is being set up.
    fn sets_up(&mut self, name: &str);
    /// A round begins, of an experiment that has used this much of its time.
    fn round_begins(&mut self, name: &str, round: usize, used: Duration);
    /// A turn begins, of an experiment that has used this much of its time.
    fn takes(&mut self, name: &str, turn: &Turn, round: usize, used: Duration);
}

/// What came of an experiment.
#[derive(Debug)]
pub struct Outcome {
    /// All its measurements, with as many samples each as there were whole rounds.
    pub measurements: Vec<Measurement>,
    /// Why there are not more.
    pub failure: Option<anyhow::Error>,
}

/// Sets an experiment up, has all turns taken round by round until its time is over, and takes it down. Every other round
/// goes backwards, so that no candidate always follows the same one.
///
/// `machine` is added to the conditions of every measurement.
pub fn run(
    experiment: &mut dyn Experiment,
    effort: &Effort,
    machine: &Conditions,
    progress: &mut dyn Progress,
) -> Outcome {
    progress.sets_up(experiment.name());
    let mut record = Record::new(experiment.section(), machine);
    let taken = experiment
        .set_up(effort)
        .context("setting up")
        .and_then(|turns| take(experiment, effort, &turns, &mut record, progress));
    let taken_down = experiment.take_down().context("taking down");
    let name = experiment.name();
    Outcome {
        measurements: record.measurements,
        failure: taken
            .and(taken_down)
            .err()
            .map(|error| error.context(name.to_owned())),
    }
}

fn take(
    experiment: &mut dyn Experiment,
    effort: &Effort,
    turns: &[Turn],
    record: &mut Record,
    progress: &mut dyn Progress,
) -> Result<()> {
    ensure!(!turns.is_empty(), "there is nothing to measure");
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    for round in 0.. {
        let used = began.elapsed();
        if round >= effort.least_rounds && used + longest > effort.time {
            break;
        }
        progress.round_begins(experiment.name(), round, used);
        let mut samples: Vec<(&Turn, Sample)> = Vec::with_capacity(turns.len());
        let order: Box<dyn Iterator<Item = &Turn>> = if round % 2 == 0 {
            Box::new(turns.iter())
        } else {
            Box::new(turns.iter().rev())
        };
        for turn in order {
            if signals::interrupted() {
                bail!("interrupted");
            }
            progress.takes(experiment.name(), turn, round, began.elapsed());
            let sample = experiment.take(turn);
            let sample = sample.with_context(|| format!("{}: {}", turn.row, turn.candidate))?;
            samples.push((turn, sample));
        }
        samples.sort_by_key(|(turn, _)| turns.iter().position(|other| other == *turn));
        record.add(round, samples)?;
        longest = longest.max(began.elapsed().saturating_sub(used));
    }
    Ok(())
}

/// What the rounds so far gave.
struct Record<'a> {
    section: Section,
    machine: &'a Conditions,
    measurements: Vec<Measurement>,
    /// Where a measurement is in the list.
    places: HashMap<Key, usize>,
}

impl<'a> Record<'a> {
    fn new(section: Section, machine: &'a Conditions) -> Self {
        Self {
            section,
            machine,
            measurements: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Adds a whole round. Each has to give what the first one gave, under the same conditions.
    fn add(&mut self, round: usize, samples: Vec<(&Turn, Sample)>) -> Result<()> {
        let mut added = 0;
        for (turn, sample) in samples {
            let conditions = self.machine.clone().and(&sample.conditions);
            for reading in sample.readings {
                let key = Key::new(self.section, &turn.row, &turn.candidate, &reading.quantity);
                ensure!(reading.value.is_finite(), "{key} is {}", reading.value);
                added += 1;
                let Some(place) = self.places.get(&key) else {
                    ensure!(round == 0, "{key} is there in round {round} for the first time");
                    self.places.insert(key.clone(), self.measurements.len());
                    self.measurements.push(Measurement {
                        key,
                        unit: reading.unit,
                        samples: vec![reading.value],
                        conditions: conditions.clone(),
                    });
                    continue;
                };
                let Some(measurement) = self.measurements.get_mut(*place) else {
                    continue;
                };
                let differences = measurement.conditions.differences(&conditions);
                ensure!(
                    differences.is_empty(),
                    "{key}: the conditions have changed: {}",
                    differences.join("; ")
                );
                ensure!(
                    measurement.samples.len() == round,
                    "{key} was read twice in round {round}"
                );
                measurement.samples.push(reading.value);
            }
        }
        ensure!(
            added == self.measurements.len(),
            "round {round} gave {added} of {} quantities",
            self.measurements.len()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::experiment::Reading;
    use super::super::measurement::Unit;
    use super::*;

    /// Counts its samples, and fails at one of them.
    struct Counting {
        fails_at: Option<usize>,
        taken: Vec<String>,
        down: bool,
    }

    impl Experiment for Counting {
        fn section(&self) -> Section {
            Section::Control
        }

        fn name(&self) -> &str {
            "counting"
        }

        fn set_up(&mut self, _effort: &Effort) -> Result<Vec<Turn>> {
            Ok(vec![Turn::new("row", "one"), Turn::new("row", "other")])
        }

        fn take(&mut self, turn: &Turn) -> Result<Sample> {
            ensure!(self.fails_at != Some(self.taken.len()), "no more");
            self.taken.push(turn.candidate.clone());
            Ok(Sample {
                readings: vec![Reading::new("number", Unit::Count, self.taken.len() as f64)],
                conditions: Conditions::new().with("seconds", 1),
            })
        }

        fn take_down(&mut self) -> Result<()> {
            self.down = true;
            Ok(())
        }
    }

    struct Silent;

    impl Progress for Silent {
        fn sets_up(&mut self, _name: &str) {}
        fn round_begins(&mut self, _name: &str, _round: usize, _used: Duration) {}
        fn takes(&mut self, _name: &str, _turn: &Turn, _round: usize, _used: Duration) {}
    }

    fn counted(fails_at: Option<usize>) -> (Counting, Outcome) {
        let mut counting = Counting {
            fails_at,
            taken: Vec::new(),
            down: false,
        };
        let effort = Effort {
            quick: true,
            least_rounds: 3,
            time: Duration::ZERO,
        };
        let machine = Conditions::new().with("kernel", "6.18");
        let outcome = run(&mut counting, &effort, &machine, &mut Silent);
        (counting, outcome)
    }

    #[test]
    fn all_take_turns() {
        let (counting, outcome) = counted(None);
        assert_eq!(counting.taken, ["one", "other", "other", "one", "one", "other"]);
        assert!(counting.down && outcome.failure.is_none());
        let samples: Vec<&[f64]> = outcome
            .measurements
            .iter()
            .map(|of| of.samples.as_slice())
            .collect();
        assert_eq!(samples, [&[1.0, 4.0, 5.0], &[2.0, 3.0, 6.0]]);
        let conditions = Conditions::new().with("kernel", "6.18").with("seconds", 1);
        assert_eq!(outcome.measurements[0].conditions, conditions);
    }

    #[test]
    fn whole_rounds_before_a_failure_count() {
        let (counting, outcome) = counted(Some(3));
        assert!(counting.down);
        let error = format!("{:#}", outcome.failure.unwrap());
        assert_eq!(error, "counting: row: one: no more");
        assert_eq!(outcome.measurements[1].samples, [2.0]);
    }

    #[test]
    fn a_round_gives_what_the_first_gave() {
        let machine = Conditions::new();
        let turn = Turn::new("row", "one");
        let sample = |quantity: &str, value, seconds| Sample {
            readings: vec![Reading::new(quantity, Unit::Count, value)],
            conditions: Conditions::new().with("seconds", seconds),
        };
        let mut record = Record::new(Section::Site, &machine);
        record.add(0, vec![(&turn, sample("a", 1.0, 1))]).unwrap();
        for (wrong, says) in [
            (sample("b", 1.0, 1), "for the first time"),
            (sample("a", f64::NAN, 1), "NaN"),
            (
                sample("a", 1.0, 2),
                "the conditions have changed: seconds: 1 and 2",
            ),
        ] {
            let error = record.add(1, vec![(&turn, wrong)]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(
            record
                .add(1, Vec::new())
                .unwrap_err()
                .to_string()
                .contains("0 of 1")
        );
    }
}
