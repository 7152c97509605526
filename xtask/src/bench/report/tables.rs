//! The tables of a report, whatever they are printed on.

use super::super::compare;
use super::super::measurement::{Measurement, Section, Summary, Unit};
use super::super::names::candidate;
use super::super::packet_rows;
use super::super::targets::{self, Bound, Target};

/// What the column of that name is, for whoever reads the table of targets.
pub(super) const FLOOR: &str = "Floor: of packets, a program that hashes the client's address and port, reads one line of as much memory \
    as the table of connections takes, and does as much else as nat does for one flow, half of it with what the line says; of a \
    site, direct connections through interfaces that the balancer's program is attached to, which passes them.";

/// A table: a heading for each column, and as many cells in each line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) headings: Vec<String>,
    pub(super) lines: Vec<Vec<String>>,
    /// So many columns on the left are words, the others figures.
    pub(super) words: usize,
}

/// What had to be reached.
pub(super) fn of_targets(measurements: &[Measurement]) -> Table {
    let headings = ["", "must", "aim", "measured", "spread", "samples", "floor", ""];
    let targets = targets::all();
    let lines = targets.iter().map(|target| {
        let verdict = target.judge(measurements);
        let [measured, spread, samples] = verdict.figure().map_or_else(Default::default, |figure| {
            [number(figure.median), spread(figure), figure.count.to_string()]
        });
        let floor = target
            .floor
            .as_ref()
            .and_then(|floor| floor.of(measurements).ok());
        vec![
            target.title.clone(),
            limit(target, target.must),
            limit(target, target.aim),
            measured,
            spread,
            samples,
            floor.map_or_else(String::new, |floor| number(floor.median)),
            verdict.to_string(),
        ]
    });
    Table {
        headings: headings.map(str::to_owned).to_vec(),
        lines: lines.collect(),
        words: 1,
    }
}

fn limit(target: &Target, limit: f64) -> String {
    let sign = match target.bound {
        Bound::AtMost => "≤",
        Bound::AtLeast => "≥",
    };
    format!("{sign} {}", number(limit))
}

/// A line for each candidate at each row, a column for each quantity: median, spread; and at the end how many times the
/// candidate is, of the first quantity, what all are compared with.
pub(super) fn of_section(section: Section, measurements: &[Measurement]) -> Table {
    let of_section = || measurements.iter().filter(|of| of.key.section == section);
    let mut quantities: Vec<(&str, Unit)> = Vec::new();
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for measurement in of_section() {
        let quantity = (measurement.key.quantity.as_str(), measurement.unit);
        if !quantities.contains(&quantity) {
            quantities.push(quantity);
        }
        let line = (measurement.key.row.as_str(), measurement.key.candidate.as_str());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let mut headings = vec![String::new(), String::new()];
    headings.extend(quantities.iter().map(|(quantity, unit)| match unit {
        Unit::Count => (*quantity).to_owned(),
        unit => format!("{quantity}, {unit}"),
    }));
    let reference = reference(section);
    headings.extend(reference.map(|reference| format!("× {reference}")));
    let lines = lines.into_iter().map(|(row, candidate)| {
        let mut cells = vec![row.to_owned(), candidate.to_owned()];
        let of_line: Vec<&Measurement> = of_section()
            .filter(|of| of.key.row == row && of.key.candidate == candidate)
            .collect();
        cells.extend(quantities.iter().map(|(quantity, unit)| {
            let mut found = of_line.iter();
            let found = found.find(|of| of.key.quantity == *quantity && of.unit == *unit);
            found.map_or_else(String::new, |of| with_spread(&of.summary()))
        }));
        if let Some(reference) = reference {
            let first = of_line.first();
            cells.push(first.map_or_else(String::new, |of| times(of, reference, measurements)));
        }
        cells
    });
    Table {
        lines: lines.collect(),
        headings,
        words: 2,
    }
}

/// What the candidates of a section are compared with.
pub(super) fn reference(section: Section) -> Option<&'static str> {
    match section {
        Section::Packet => Some(candidate::BARE),
        Section::Throughput => Some(candidate::BARE_REDIRECT),
        Section::Site => Some(candidate::DIRECT),
        Section::Control => None,
    }
}

/// How many times the reference; nothing where there is none, and why not where it is not comparable.
fn times(measurement: &Measurement, reference: &str, measurements: &[Measurement]) -> String {
    let key = &measurement.key;
    let row = match key.section {
        Section::Packet => packet_rows::BARE,
        _ => &key.row,
    };
    let mut others = measurements.iter();
    let other = others.find(|other| {
        other.key.section == key.section
            && other.key.row == row
            && other.key.candidate == reference
            && other.key.quantity == key.quantity
    });
    match other.map(|other| compare::ratio(measurement, other)) {
        Some(Ok(ratio)) => format!("{:.2}", ratio.median),
        Some(Err(reason)) => reason.to_string(),
        None => String::new(),
    }
}

/// `12.3 (12.1 to 12.9)`: the median, and between the quartiles half of the samples; the number alone if all are the same.
pub(super) fn with_spread(summary: &Summary) -> String {
    let spread = spread(summary);
    if spread.is_empty() {
        number(summary.median)
    } else {
        format!("{} ({spread})", number(summary.median))
    }
}

fn spread(summary: &Summary) -> String {
    let [lower, upper] = summary.quartiles;
    if lower == upper {
        return String::new();
    }
    format!("{} to {}", number(lower), number(upper))
}

/// Three digits, or all before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::measurement::{Conditions, Key};
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [123_456.7, 99.94, 9.999, 0.25, 0.0123, 0.0].map(number);
        assert_eq!(numbers, ["123457", "99.9", "10.00", "0.25", "0.0123", "0.00"]);
    }

    #[test]
    fn a_ratio_is_refused_in_the_table_too() {
        let measured = |candidate: &str, seconds: u32| Measurement {
            key: Key::new(Section::Site, "row", candidate, "requests"),
            unit: Unit::RequestsPerSecond,
            samples: vec![100.0, 200.0, 300.0],
            conditions: Conditions::new().with("seconds", seconds),
        };
        let table = of_section(
            Section::Site,
            &[measured("direct", 1), measured("nat", 1), measured("dsr", 2)],
        );
        let last: Vec<&str> = table.lines.iter().map(|line| line[3].as_str()).collect();
        assert_eq!(last, ["1.00", "1.00", "not measured alike (seconds: 2 and 1)"]);
        assert_eq!(table.lines[0][2], "200 (150 to 250)");
        assert_eq!(table.headings[2], "requests, requests/s");
    }
}
