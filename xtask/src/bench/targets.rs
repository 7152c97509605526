//! What must be reached, what is aimed at, and what has been measured.

use std::fmt;

use super::compare::{self, NotComparable};
use super::measurement::{Key, Measurement, Section, Summary};
use super::names::{candidate, quantity, row};
use super::packet_rows::{self as packet, ESTABLISHED, NEW, NOT_OURS};

/// Something that is to be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What of.
    pub title: String,
    /// How it is found out.
    pub figure: Figure,
    /// Which way is better.
    pub bound: Bound,
    /// It is a failure not to reach this.
    pub must: f64,
    /// It is good to reach this.
    pub aim: f64,
    /// What has been measured, by a program that does nothing else, of what cannot be done without.
    pub floor: Option<Figure>,
}

/// Which side of a limit is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Lower is better.
    AtMost,
    /// Higher is better.
    AtLeast,
}

/// A figure that is made of measurements.
#[derive(Debug, Clone, PartialEq)]
pub enum Figure {
    /// As it was measured.
    Value(Key),
    /// How many times the second one the first one is.
    Ratio(Key, Key),
    /// What the first takes beyond the third, in times of what the second takes beyond it.
    Beyond(Key, Key, Key),
}

/// What is known about a target after a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// As good as was aimed at.
    AimMet(Summary),
    /// As good as it must be.
    MustMet(Summary),
    /// Not as good as it must be.
    Missed(Summary),
    /// Nothing: why.
    NotMeasured(String),
}

impl Verdict {
    /// What was measured.
    pub fn figure(&self) -> Option<&Summary> {
        match self {
            Self::AimMet(figure) | Self::MustMet(figure) | Self::Missed(figure) => Some(figure),
            Self::NotMeasured(_) => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AimMet(_) => formatter.write_str("met, aim too"),
            Self::MustMet(_) => formatter.write_str("met"),
            Self::Missed(_) => formatter.write_str("MISSED"),
            Self::NotMeasured(reason) => formatter.write_str(reason),
        }
    }
}

impl Target {
    /// Whether it was reached, by the median of what was measured.
    pub fn judge(&self, measurements: &[Measurement]) -> Verdict {
        let figure = match self.figure.of(measurements) {
            Ok(figure) => figure,
            Err(reason) => return Verdict::NotMeasured(reason),
        };
        let reaches = |limit: f64| match self.bound {
            Bound::AtMost => figure.median <= limit,
            Bound::AtLeast => figure.median >= limit,
        };
        if reaches(self.aim) {
            Verdict::AimMet(figure)
        } else if reaches(self.must) {
            Verdict::MustMet(figure)
        } else {
            Verdict::Missed(figure)
        }
    }
}

impl Figure {
    /// Made of what was measured, or why it cannot be.
    pub fn of(&self, measurements: &[Measurement]) -> Result<Summary, String> {
        let find = |key: &Key| {
            let found = measurements.iter().find(|measurement| measurement.key == *key);
            found.ok_or_else(|| "not measured in this run".to_owned())
        };
        let refused = |reason: NotComparable| reason.to_string();
        match self {
            Self::Value(key) => find(key).map(Measurement::summary),
            Self::Ratio(one, other) => compare::ratio(find(one)?, find(other)?).map_err(refused),
            Self::Beyond(one, other, base) => {
                compare::ratio_beyond(find(one)?, find(other)?, find(base)?).map_err(refused)
            }
        }
    }
}

/// The table: everything that must be reached, in the order of the report.
pub fn all() -> Vec<Target> {
    [per_packet(), through_veths(), of_a_site(), of_control()].concat()
}

fn target(title: impl Into<String>, figure: Figure, bound: Bound, [must, aim]: [f64; 2]) -> Target {
    Target {
        title: title.into(),
        figure,
        bound,
        must,
        aim,
        floor: None,
    }
}

/// Multiples of the bare program in the same runner.
fn per_packet() -> Vec<Target> {
    let bare = || Key::new(Section::Packet, packet::BARE, candidate::BARE, quantity::TIME);
    let times_bare = |title: &str, row: String, mode: &str, limits| {
        let figure = Figure::Ratio(Key::new(Section::Packet, &row, mode, quantity::TIME), bare());
        target(format!("{title}, × bare"), figure, Bound::AtMost, limits)
    };
    let one_line = |flows| {
        let row = packet::row("IPv4", "TCP", ESTABLISHED, flows);
        let key = Key::new(Section::Packet, &row, candidate::WORK_AND_LINE, quantity::TIME);
        Some(Figure::Ratio(key, bare()))
    };
    let of_connections = |title: &str, row: String, mode: &str, flows, limits| Target {
        floor: one_line(flows),
        ..times_bare(title, row, mode, limits)
    };
    let established = |flows| packet::row("IPv4", "TCP", ESTABLISHED, flows);
    let wide = |flows| packet::row("IPv6", "TCP", ESTABLISHED, flows);
    let one = 1;
    let (many, most, huge) = (packet::MANY, packet::MOST, packet::HUGE);
    let mut targets = vec![
        of_connections(
            "established, one flow, ipip",
            established(one),
            candidate::IPIP,
            one,
            [2.8, 2.0],
        ),
        of_connections(
            "established, one flow, nat",
            established(one),
            candidate::NAT,
            one,
            [2.8, 1.9],
        ),
        of_connections(
            "established, one flow, dsr",
            established(one),
            candidate::DSR,
            one,
            [2.2, 1.7],
        ),
        of_connections(
            "established, 64k flows, nat",
            established(many),
            candidate::NAT,
            many,
            [9.0, 7.5],
        ),
        of_connections(
            "established, 1M flows, nat",
            established(most),
            candidate::NAT,
            most,
            [10.0, 8.5],
        ),
        of_connections(
            "established, 10M flows, nat",
            established(huge),
            candidate::NAT,
            huge,
            [14.0, 11.0],
        ),
        of_connections(
            "IPv6 established, one flow, nat",
            wide(one),
            candidate::NAT,
            one,
            [3.5, 2.5],
        ),
        of_connections(
            "IPv6 established, 64k flows, nat",
            wide(many),
            candidate::NAT,
            many,
            [10.0, 8.5],
        ),
        of_connections(
            "new connection, stateful, 16M sources, nat",
            packet::row("IPv4", "TCP", NEW, packet::SOURCES),
            candidate::NAT,
            most,
            [11.0, 8.5],
        ),
        times_bare(
            "not ours",
            packet::row("IPv4", "TCP", NOT_OURS, 1),
            candidate::NAT,
            [1.5, 1.3],
        ),
    ];
    for (what, flows) in [(ESTABLISHED, many), (NEW, packet::SOURCES)] {
        for (title, size, against) in [
            ("1,000 services against 1", [1000, 2], [1, 2]),
            ("4,000 backends against 2", [1, 4000], [1, 2]),
        ] {
            let key = |[services, backends]: [u32; 2]| {
                let row = packet::sized_row(what, flows, services, backends);
                Key::new(Section::Packet, &row, candidate::NAT, quantity::TIME)
            };
            targets.push(target(
                format!("{title}, {what}"),
                Figure::Ratio(key(size), key(against)),
                Bound::AtMost,
                [1.3, 1.1],
            ));
        }
    }
    targets
}

fn through_veths() -> Vec<Target> {
    let against = |title: &str, flows, other, limits| {
        let key = |candidate| {
            Key::new(
                Section::Throughput,
                &row::flows(flows),
                candidate,
                quantity::FORWARDED,
            )
        };
        let figure = Figure::Ratio(key(candidate::NAT), key(other));
        let title = format!("Mpps through veth against {title}, {}", row::flows(flows));
        target(title, figure, Bound::AtLeast, limits)
    };
    vec![
        against("a bare redirect", 1, candidate::BARE_REDIRECT, [0.85, 0.95]),
        against(
            "a bare redirect",
            packet::MANY,
            candidate::BARE_REDIRECT,
            [0.55, 0.65],
        ),
        against("nftables DNAT", 1, candidate::NFTABLES, [3.0, 5.0]),
        against("nftables DNAT", packet::MANY, candidate::NFTABLES, [3.0, 5.0]),
    ]
}

fn of_a_site() -> Vec<Target> {
    let mut targets = Vec::new();
    for https in [false, true] {
        for keep_alive in [true, false] {
            let row = row::site(https, keep_alive, "1 KB");
            let key = |candidate| Key::new(Section::Site, &row, candidate, quantity::REQUESTS);
            targets.push(Target {
                floor: Some(Figure::Ratio(key(candidate::PASSED), key(candidate::DIRECT))),
                ..target(
                    format!("requests per second against direct: {row}"),
                    Figure::Ratio(key(candidate::NAT), key(candidate::DIRECT)),
                    Bound::AtLeast,
                    [0.95, 1.0],
                )
            });
        }
    }
    let main = row::site(true, true, "1 KB");
    let seventy = row::at_seventy_percent(&main);
    let p99 = |candidate| Key::new(Section::Site, &seventy, candidate, quantity::P99);
    targets.push(target(
        format!("p99 against direct: {seventy}"),
        Figure::Ratio(p99(candidate::NAT), p99(candidate::DIRECT)),
        Bound::AtMost,
        [1.2, 1.05],
    ));
    let fixed = row::at_fixed_rate(&main);
    let machine = |candidate| Key::new(Section::Site, &fixed, candidate, quantity::MACHINE_CPU);
    let beyond_direct = |candidate| {
        Figure::Beyond(
            machine(candidate),
            machine(candidate::HAPROXY),
            machine(candidate::DIRECT),
        )
    };
    targets.push(Target {
        floor: Some(beyond_direct(candidate::PASSED)),
        ..target(
            format!("machine CPU minus direct's, against HAProxy's: {fixed}"),
            beyond_direct(candidate::NAT),
            Bound::AtMost,
            [1.0 / 5.0, 1.0 / 20.0],
        )
    });
    let own = |candidate| Key::new(Section::Site, &fixed, candidate, quantity::CPU_PER_REQUEST);
    targets.push(target(
        format!("program run time per request against HAProxy's process time: {fixed}"),
        Figure::Ratio(own(candidate::NAT), own(candidate::HAPROXY)),
        Bound::AtMost,
        [1.0 / 20.0, 1.0 / 50.0],
    ));
    targets
}

/// Rows of the control plane that have a target.
pub mod control_row {
    /// The tables' memory with room for so many IPv4 connections.
    pub const TABLE_1M: &str = "tables for 1M IPv4 connections";
    /// Likewise.
    pub const TABLE_10M: &str = "tables for 10M IPv4 connections";
    /// Every connection of a full table, as it would be listed.
    pub const LIST: &str = "list 1M connections";
    /// How many each backend has.
    pub const COUNT: &str = "count 1M connections per backend";
    /// Search a full table for entries whose time is over. Nothing has to be reached.
    pub const SWEEP: &str = "sweep 1M connections";
}

fn of_control() -> Vec<Target> {
    use control_row::{COUNT, LIST, TABLE_1M, TABLE_10M};
    let value = |row: &str, unit: &str, quantity: &str, limits| {
        let key = Key::new(Section::Control, row, candidate::LBD, quantity);
        target(
            format!("{row}, {unit}"),
            Figure::Value(key),
            Bound::AtMost,
            limits,
        )
    };
    vec![
        value(TABLE_1M, "MiB", quantity::MEMORY, [32.0, 26.0]),
        value(TABLE_10M, "MiB", quantity::MEMORY, [320.0, 256.0]),
        value(LIST, "ms", quantity::TIME, [1000.0, 300.0]),
        value(COUNT, "ms", quantity::TIME, [15.0, 3.0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::measurement::{Conditions, Unit};
    use super::*;

    fn measured(key: Key, samples: &[f64]) -> Measurement {
        Measurement {
            key,
            unit: Unit::Nanoseconds,
            samples: samples.to_vec(),
            conditions: Conditions::new(),
        }
    }

    fn of_not_ours() -> (Target, Key, Key) {
        let target = all()
            .into_iter()
            .find(|target| target.title == "not ours, × bare");
        let target = target.unwrap();
        let Figure::Ratio(one, other) = target.figure.clone() else {
            panic!("{target:?}");
        };
        (target, one, other)
    }

    #[test]
    fn reached_or_not_by_the_median() {
        let (target, one, bare) = of_not_ours();
        let judge = |samples: &[f64]| {
            let bare = measured(bare.clone(), &vec![10.0; samples.len()]);
            target.judge(&[measured(one.clone(), samples), bare]).to_string()
        };
        assert_eq!(judge(&[12.0, 13.0, 99.0]), "met, aim too");
        assert_eq!(judge(&[14.0]), "met");
        assert_eq!(judge(&[15.1, 15.1, 1.0]), "MISSED");
    }

    #[test]
    fn what_was_not_measured_is_not_estimated() {
        let (target, one, bare) = of_not_ours();
        let one = measured(one, &[12.0]);
        assert_eq!(
            target.judge(std::slice::from_ref(&one)),
            Verdict::NotMeasured("not measured in this run".to_owned())
        );
        let mut bare = measured(bare, &[10.0]);
        bare.conditions = Conditions::new().with("mitigations", "off");
        let says = target.judge(&[one, bare]).to_string();
        assert_eq!(says, "not measured alike (mitigations: not known and off)");
    }

    #[test]
    fn an_aim_is_never_easier_than_a_must() {
        for target in all() {
            let harder = match target.bound {
                Bound::AtMost => target.aim <= target.must,
                Bound::AtLeast => target.aim >= target.must,
            };
            assert!(harder, "{target:?}");
        }
    }
}
