//! What can be measured, one sample at a time.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::measurement::{Conditions, Section, Unit};

/// How much of the user's time an experiment may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Rather fewer rows, and shorter samples, than everything.
    pub quick: bool,
    /// Rounds that have to be taken, however long that takes: an experiment chooses its rows and the length of its samples
    /// such that these fit into `time`.
    pub least_rounds: usize,
    /// For all rounds together. Setting up is not counted.
    pub time: Duration,
}

/// A turn of a candidate at a row: what a round consists of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turn {
    /// What is asked of all candidates.
    pub row: String,
    /// Whose turn it is.
    pub candidate: String,
}

impl Turn {
    /// A candidate's turn at a row.
    pub fn new(row: impl Into<String>, candidate: impl Into<String>) -> Self {
        Self {
            row: row.into(),
            candidate: candidate.into(),
        }
    }
}

/// A value of one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What it is, the same words in every sample: `time`, `requests`, `p99`.
    pub quantity: String,
    /// What it counts.
    pub unit: Unit,
    /// Finite.
    pub value: f64,
}

impl Reading {
    /// A value.
    pub fn new(quantity: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self {
            quantity: quantity.into(),
            unit,
            value,
        }
    }
}

/// What one turn gave: all its quantities, each as one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What was read.
    pub readings: Vec<Reading>,
    /// Under which it was taken, but for the machine's own, which are added to every measurement.
    pub conditions: Conditions,
}

/// Something that measures.
///
/// [`schedule::run`](super::schedule::run) sets it up, has all turns taken round by round, and takes it down again, also
/// after an error or an interrupt. What [`take`](Self::take) returns an error for is reported, and the experiment ends; the
/// rounds that were whole count.
pub trait Experiment {
    /// Where its measurements belong.
    fn section(&self) -> Section;

    /// What is being set up or measured, for the progress bar.
    fn name(&self) -> &str;

    /// Makes everything ready, and says which turns a round has, in their order: those that are to be compared next to each
    /// other. No turn twice.
    ///
    /// # Errors
    /// When it cannot be measured here.
    fn set_up(&mut self, effort: &Effort) -> Result<Vec<Turn>>;

    /// Takes one sample. Warming up is the experiment's own business.
    ///
    /// # Errors
    /// When there is no figure that would mean what its name says: a sample is never made up.
    fn take(&mut self, turn: &Turn) -> Result<Sample>;

    /// Takes everything away that was set up; called even if setting up failed half-way.
    ///
    /// # Errors
    /// When something stays behind.
    fn take_down(&mut self) -> Result<()>;
}
