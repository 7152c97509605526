//! What is measured, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::control::Daemon;
use super::experiment::{Effort, Experiment};
use super::harness::Harness;
use super::measurement::Section;
use super::protocol::Which;
use super::site::Site;
use crate::lab::Binaries;
use crate::setup::Needs;
use crate::{ebpf, prepared, process, setup, userspace};

/// What the bench runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Programs {
    /// The balancer, and what a lab starts.
    pub lab: Binaries,
    /// What takes samples with the daemon's own code: `tests/bench`.
    pub harness: PathBuf,
    /// Where the kernel crate's objects are, each named as its binary there.
    pub objects: PathBuf,
}

impl Programs {
    /// Builds them all, optimised, and first installs what that and the lab need.
    ///
    /// # Errors
    /// When something cannot be installed or does not compile.
    pub fn build() -> Result<Self> {
        setup::ensure(Needs::Lab)?;
        let lab = prepared::build()?;
        let mut build = process::cargo();
        build.args(["bench", "--no-run", "--package", "lb-tests", "--bench", "harness"]);
        let built = userspace::executables(&mut build)?;
        let harness = built.first().context("cargo built no harness")?;
        Ok(Self {
            lab,
            harness: harness.path.clone(),
            objects: ebpf::EbpfArtifacts::locate().directory,
        })
    }
}

/// An experiment, and what part of its section's time it gets.
pub struct Planned {
    /// What.
    pub experiment: Box<dyn Experiment>,
    /// In proportion to the others of its section.
    pub weight: u32,
}

/// The experiments of a section.
pub fn of_section(section: Section, programs: &Programs) -> Vec<Planned> {
    let harness = |which, weight| Planned {
        experiment: Box::new(Harness::new(programs, which)),
        weight,
    };
    match section {
        Section::Packet => vec![harness(Which::Packets, 1)],
        Section::Throughput => vec![harness(Which::Forwarding, 1)],
        Section::Site => vec![Planned {
            experiment: Box::new(Site::new(programs.lab.clone())),
            weight: 1,
        }],
        Section::Control => vec![
            harness(Which::Tables, 1),
            Planned {
                experiment: Box::new(Daemon::new(programs.lab.clone())),
                weight: 4,
            },
        ],
    }
}

/// How long a section may take, setting up not counted: together three minutes if it shall be quick, else twenty, with
/// something left over for the last rounds.
pub fn time(section: Section, quick: bool) -> Duration {
    Duration::from_secs(match (section, quick) {
        (Section::Packet, true) => 50,
        (Section::Throughput, true) => 14,
        (Section::Site, true) => 84,
        (Section::Control, true) => 20,
        (Section::Packet, false) => 240,
        (Section::Throughput, false) => 50,
        (Section::Site, false) => 735,
        (Section::Control, false) => 110,
    })
}

/// What an experiment of this weight may take of its section's time.
pub fn effort(section: Section, quick: bool, weight: u32, all_weights: u32) -> Effort {
    Effort {
        quick,
        // Fewer than seven say little about the spread; a quick run shall not take longer than it says, and says so.
        least_rounds: if quick { 3 } else { 7 },
        time: time(section, quick) * weight / all_weights.max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_no_longer_than_it_says() {
        let total = |quick| -> Duration { Section::ALL.iter().map(|section| time(*section, quick)).sum() };
        assert!(total(true) <= Duration::from_secs(170));
        assert!(total(false) <= Duration::from_secs(20 * 60 - 60));
    }

    #[test]
    fn the_time_is_shared_by_weight() {
        let all = effort(Section::Site, true, 1, 1).time;
        let parts = [1, 2].map(|weight| effort(Section::Site, true, weight, 3).time);
        assert_eq!(parts[0] + parts[1], all);
        assert_eq!(parts[1], parts[0] * 2);
    }
}
