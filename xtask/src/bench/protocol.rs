//! How xtask and the harness that takes samples inside the kernel talk: a JSON value a line, request and answer in turns.
//!
//! The harness links the daemon's own code, of which xtask must not know; so it is a program by itself, and this is all
//! that the two have in common.

use serde::{Deserialize, Serialize};

use super::experiment::{Sample, Turn};

/// Which of the harness's experiments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// What packets cost.
    Packets,
    /// How many packets go through veths.
    Forwarding,
    /// What the tables cost in memory, and a look at all of them in time.
    Tables,
}

/// What xtask asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Make everything ready.
    SetUp {
        /// What for.
        which: Which,
        /// Rather fewer rows than all.
        quick: bool,
    },
    /// Take one sample.
    Take(Turn),
}

/// What the harness says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Ready: these are the turns of a round.
    Turns(Vec<Turn>),
    /// What a turn gave.
    Sample(Sample),
    /// Why there is nothing.
    Failed(String),
}
