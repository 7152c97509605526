//! What was measured: samples, their unit, and the conditions under which they were taken.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of the bench that can be asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// ns per packet in the kernel's program runner; size of the programs.
    Packet,
    /// Packets per second through veths.
    Throughput,
    /// Requests through a whole site.
    Site,
    /// The daemon, and its look at the tables.
    Control,
}

impl Section {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Packet, Self::Throughput, Self::Site, Self::Control];

    /// As a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Packet => "Per packet",
            Self::Throughput => "Packets per second",
            Self::Site => "As a site",
            Self::Control => "Control plane",
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Packet => "packet",
            Self::Throughput => "throughput",
            Self::Site => "site",
            Self::Control => "control",
        })
    }
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// Billionths of a second.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Millionths of a second.
    #[serde(rename = "µs")]
    Microseconds,
    /// Thousandths of a second.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Millions of packets per second.
    #[serde(rename = "Mpps")]
    MillionPacketsPerSecond,
    /// Requests per second.
    #[serde(rename = "requests/s")]
    RequestsPerSecond,
    /// Seconds of processor time in a second.
    #[serde(rename = "cores")]
    Cores,
    /// 1024 × 1024 bytes.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// Of the kernel's virtual machine.
    #[serde(rename = "instructions")]
    Instructions,
    /// Things, whatever the quantity's name says.
    #[serde(rename = "count")]
    Count,
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::MillionPacketsPerSecond => "Mpps",
            Self::RequestsPerSecond => "requests/s",
            Self::Cores => "cores",
            Self::Mebibytes => "MiB",
            Self::Bytes => "bytes",
            Self::Instructions => "instructions",
            Self::Count => "",
        })
    }
}

/// What has to be the same for two measurements to be comparable: offloads, mitigations, seconds, connections, workers and
/// whatever else has an influence and is not what the candidates differ in. Name → value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conditions(BTreeMap<String, String>);

impl Conditions {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more, or with another value for it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// With all of the others', whose values win.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        let others = others.0.iter();
        self.0
            .extend(others.map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What is not alike, in words; empty if everything is. What only one of the two knows is not alike either.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.sort();
        names.dedup();
        let value =
            |of: &Self, name: &String| of.0.get(name).cloned().unwrap_or_else(|| "not known".to_owned());
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| format!("{name}: {} and {}", value(self, name), value(other, name)))
            .collect()
    }
}

/// What names a measurement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Where it belongs.
    pub section: Section,
    /// What was asked of all candidates: `keep-alive, 1 KB, HTTPS`; `IPv4, established, 1 flow`.
    pub row: String,
    /// What did it: `nat`, `HAProxy`, `bare program`.
    pub candidate: String,
    /// What was counted of it: `time`, `requests`, `p99`.
    pub quantity: String,
}

impl Key {
    /// The name of a measurement.
    pub fn new(section: Section, row: &str, candidate: &str, quantity: &str) -> Self {
        Self {
            section,
            row: row.to_owned(),
            candidate: candidate.to_owned(),
            quantity: quantity.to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            section,
            row,
            candidate,
            quantity,
        } = self;
        write!(formatter, "{section}: {row}: {candidate}: {quantity}")
    }
}

/// The samples of one quantity, in the order in which they were taken: sample `n` is of round `n`, for all candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name.
    #[serde(flatten)]
    pub key: Key,
    /// Of all samples.
    pub unit: Unit,
    /// At least one; finite.
    pub samples: Vec<f64>,
    /// Under which all samples were taken.
    pub conditions: Conditions,
}

impl Measurement {
    /// What is said of it.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.samples)
    }
}

/// What is said of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// The one in the middle.
    pub median: f64,
    /// A quarter of the samples is below the first, a quarter above the second: the spread.
    pub quartiles: [f64; 2],
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Summary {
    /// Of samples, of which there should be one at least: of none nothing is a number.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |part: f64| quantile(&sorted, part);
        Self {
            count: sorted.len(),
            median: quantile(0.5),
            quartiles: [quantile(0.25), quantile(0.75)],
            least: quantile(0.0),
            greatest: quantile(1.0),
        }
    }
}

/// The value below which this part of the sorted samples lies, in a straight line between the two nearest.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let position = part * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (position.floor(), position.ceil());
    match (sorted.get(below as usize), sorted.get(above as usize)) {
        (Some(lower), Some(upper)) => lower + (upper - lower) * (position - below),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_spread() {
        let summary = Summary::of(&[9.0, 1.0, 5.0, 3.0, 7.0]);
        assert_eq!((summary.count, summary.median), (5, 5.0));
        assert_eq!(summary.quartiles, [3.0, 7.0]);
        assert_eq!((summary.least, summary.greatest), (1.0, 9.0));
        let between = Summary::of(&[1.0, 2.0]);
        assert_eq!((between.median, between.quartiles), (1.5, [1.25, 1.75]));
        assert!(Summary::of(&[]).median.is_nan());
    }

    #[test]
    fn what_is_not_alike_is_named() {
        let one = Conditions::new().with("TSO", "off").with("seconds", 5);
        let other = Conditions::new().with("TSO", "on").with("workers", 2);
        assert_eq!(
            one.differences(&other),
            [
                "TSO: off and on",
                "seconds: 5 and not known",
                "workers: not known and 2"
            ]
        );
        assert!(one.differences(&one.clone()).is_empty());
        assert!(
            one.clone()
                .with("seconds", 1)
                .and(&one)
                .differences(&one)
                .is_empty()
        );
    }

    #[test]
    fn as_json_and_back() {
        let measurement = Measurement {
            key: Key::new(Section::Packet, "IPv4, not ours", "nat", "time"),
            unit: Unit::Nanoseconds,
            samples: vec![1.5, 2.0],
            conditions: Conditions::new().with("mitigations", "on"),
        };
        let text = serde_json::to_string(&measurement).unwrap();
        assert_eq!(
            text,
            r#"{"section":"packet","row":"IPv4, not ours","candidate":"nat","quantity":"time","unit":"ns","samples":[1.5,2.0],"conditions":{"mitigations":"on"}}"#
        );
        assert_eq!(serde_json::from_str::<Measurement>(&text).unwrap(), measurement);
    }
}
