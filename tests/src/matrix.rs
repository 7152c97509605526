//! The table that a suite prints at its end: which kinds of traffic were tested, by how many cases, and whether all passed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A row of the table: a kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// How packets get to the backends.
    pub mode: &'static str,
    /// `IPv4`, `IPv6`, or one in the other.
    pub family: &'static str,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
}

/// What is known of a kind of traffic.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    tests: usize,
    passed: usize,
    skipped: usize,
    cases: usize,
}

/// The table, while tests add to it.
#[derive(Debug, Clone, Default)]
pub struct Matrix(Arc<Mutex<Vec<(Cell, Tally)>>>);

impl Matrix {
    fn note(&self, cell: Cell, change: impl FnOnce(&mut Tally)) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rows
            .iter()
            .position(|(known, _)| *known == cell)
            .unwrap_or_else(|| {
                rows.push((cell, Tally::default()));
                rows.len() - 1
            });
        if let Some((_, tally)) = rows.get_mut(at) {
            change(tally);
        }
    }

    /// There is such a row; rows are printed in this order.
    pub fn expect(&self, cell: Cell) {
        self.note(cell, |_| ());
    }

    /// A test is about to run. Unless [`passed`](Self::passed) follows, it has failed.
    pub fn started(&self, cell: Cell) {
        self.note(cell, |tally| tally.tests += 1);
    }

    /// A test has passed, and checked so many cases.
    pub fn passed(&self, cell: Cell, cases: usize) {
        self.note(cell, |tally| {
            tally.passed += 1;
            tally.cases += cases;
        });
    }

    /// A test was skipped.
    pub fn skipped(&self, cell: Cell) {
        self.note(cell, |tally| tally.skipped += 1);
    }
}

impl fmt::Display for Matrix {
    /// The rows of which tests ran, or were skipped; nothing at all if there are none.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rows.retain(|(_, tally)| tally.tests + tally.skipped != 0);
        if rows.is_empty() {
            return Ok(());
        }
        let width = rows
            .iter()
            .map(|(cell, _)| cell.mode.len())
            .max()
            .unwrap_or(0)
            .max("mode".len());
        writeln!(
            formatter,
            "{:<width$}  {:<12}  {:<8}  {:>5}  {:>7}  result",
            "mode", "family", "protocol", "tests", "cases"
        )?;
        for (cell, tally) in &rows {
            writeln!(
                formatter,
                "{:<width$}  {:<12}  {:<8}  {:>5}  {:>7}  {}",
                cell.mode,
                cell.family,
                cell.protocol,
                tally.tests,
                tally.cases,
                tally.result()
            )?;
        }
        let total = rows.iter().fold(Tally::default(), |sum, (_, row)| Tally {
            tests: sum.tests + row.tests,
            passed: sum.passed + row.passed,
            skipped: sum.skipped + row.skipped,
            cases: sum.cases + row.cases,
        });
        writeln!(
            formatter,
            "{:<width$}  {:<12}  {:<8}  {:>5}  {:>7}  {}",
            "all",
            "",
            "",
            total.tests,
            total.cases,
            total.result()
        )
    }
}

impl Tally {
    fn result(self) -> String {
        let failed = self.tests - self.passed;
        let result = match (failed, self.passed) {
            (0, 0) => "none ran".to_owned(),
            (0, _) => "all pass".to_owned(),
            _ => format!("{failed} FAILED"),
        };
        match self.skipped {
            0 => result,
            skipped => format!("{result}, {skipped} skipped"),
        }
    }
}
