//! What a run leaves: a table on the terminal, a page with plots, and all samples as JSON.

mod charts;
mod html;
mod tables;
mod terminal;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::measurement::Measurement;
use crate::workspace;

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this file: 1.
    pub format: u32,
    /// When it began, in seconds since 1970, UTC.
    pub began: u64,
    /// How long it took, in seconds, setting up included.
    pub took: u64,
    /// Whether it was a quick one.
    pub quick: bool,
    /// Where.
    pub machine: Machine,
    /// All that was measured.
    pub measurements: Vec<Measurement>,
    /// What could not be, and why.
    pub failures: Vec<String>,
}

/// Where a report was written.
#[derive(Debug, Clone)]
pub struct Files {
    /// To be looked at in a browser; needs nothing else.
    pub page: PathBuf,
    /// All samples.
    pub json: PathBuf,
}

impl Report {
    /// What is printed at the end of a run.
    pub fn for_terminal(&self) -> String {
        terminal::text(self)
    }

    /// Writes page and samples below `target/bench`, named by when the run began.
    ///
    /// # Errors
    /// When a chart cannot be drawn, or a file not be written.
    pub fn write(&self) -> Result<Files> {
        let directory = workspace::bench();
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let name = utc(self.began).replace(':', "").replace(' ', "-");
        let files = Files {
            page: directory.join(format!("{name}.html")),
            json: directory.join(format!("{name}.json")),
        };
        write(&files.page, &html::page(self)?)?;
        write(&files.json, &serde_json::to_string_pretty(self)?)?;
        give_to_owner_of(&workspace::root(), &[&directory, &files.page, &files.json]);
        Ok(files)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The bench runs as root, and the clone is the user's.
fn give_to_owner_of(root: &Path, files: &[&Path]) {
    let Ok(owner) = fs::metadata(root) else {
        return;
    };
    for file in files {
        // It can be read in any case.
        let _ = chown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// `2026-11-27 13:45:00`, of seconds since 1970.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days, for days after 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::super::measurement::{Conditions, Key, Section, Unit};
    use super::super::names::{candidate, quantity};
    use super::super::packet_rows as rows;
    use super::*;

    /// A run in which `nat` took so many times what the bare program takes for a packet that is not ours.
    pub(super) fn with_not_ours(times: f64) -> Report {
        let measured = |row: &str, candidate: &str, ns: f64| Measurement {
            key: Key::new(Section::Packet, row, candidate, quantity::TIME),
            unit: Unit::Nanoseconds,
            samples: vec![ns; 7],
            conditions: Conditions::new().with("kernel", "6.18"),
        };
        let not_ours = rows::row("IPv4", "TCP", rows::NOT_OURS, 1);
        Report {
            format: 1,
            began: 1_700_000_000,
            took: 100,
            quick: true,
            machine: Machine::default(),
            measurements: vec![
                measured(rows::BARE, candidate::BARE, 20.0),
                measured(&not_ours, candidate::NAT, 20.0 * times),
                measured(&not_ours, "nat <traced>", 21.0 * times),
            ],
            failures: vec!["site: no <nginx>".to_owned()],
        }
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(1_700_000_000), "2023-11-14 22:13:20");
    }

    #[test]
    fn what_was_measured_is_printed_and_what_not_is_said() {
        let text = with_not_ours(1.4).for_terminal();
        let line = |of: &str| text.lines().find(|line| line.contains(of)).unwrap().to_owned();
        let not_ours = line("not ours, × bare");
        assert!(
            not_ours.contains("1.40") && not_ours.contains("met"),
            "{not_ours}"
        );
        assert!(
            line("list 1M connections").contains("not measured in this run"),
            "{text}"
        );
        assert!(line("no <nginx>").contains("site"), "{text}");
        let missed = with_not_ours(1.6).for_terminal();
        assert!(
            missed
                .lines()
                .any(|line| line.contains("not ours") && line.contains("MISSED"))
        );
    }

    #[test]
    fn the_page_has_plots_and_nothing_from_elsewhere() {
        let page = html::page(&with_not_ours(1.4)).unwrap();
        assert!(page.contains("<svg") && page.contains("nat &lt;traced&gt;"));
        assert!(!page.contains("nat <traced>") && !page.contains("no <nginx>"));
        for elsewhere in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn as_json_and_back() {
        let report = with_not_ours(1.4);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
