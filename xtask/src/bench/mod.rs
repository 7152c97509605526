//! What `cargo xtask bench` consists of.
//!
//! An [`Experiment`](experiment::Experiment) names what it can measure and takes one sample at a time; one
//! [`schedule`](schedule::run) lets everything that is to be compared take turns, so that a slow minute of the machine hits
//! all of it. What comes out are [`Measurement`](measurement::Measurement)s: samples, and the conditions under which they
//! were taken. Everything that is said about them afterwards is pure: [`compare`] divides only what was measured alike, and
//! [`targets`] says what must be reached and what has been. Names that two sides have to agree on are in [`names`].

pub mod compare;
pub mod control;
pub mod experiment;
pub mod harness;
pub mod machine;
pub mod measurement;
pub mod names;
pub mod packet_rows;
pub mod plan;
pub mod progress;
pub mod protocol;
pub mod report;
pub mod schedule;
pub mod site;
pub mod targets;
