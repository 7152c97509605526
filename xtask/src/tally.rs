//! Counting what test harnesses report, while passing their output on.

use std::{
    io::{BufRead, BufReader, Read, Write, stdout},
    iter::Sum,
    ops::Add,
};

use anyhow::{Context, Result};

/// Tests, by how they ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Ran and held.
    pub passed: u64,
    /// Ran and did not.
    pub failed: u64,
    /// Did not run; the harness said why.
    pub skipped: u64,
}

impl Tally {
    /// Copies a harness's output to ours, and adds up its `test result:` lines.
    ///
    /// # Errors
    /// When the output cannot be read or written.
    pub fn read(from: impl Read) -> Result<Self> {
        let mut tally = Self::default();
        let mut line = Vec::new();
        let mut reader = BufReader::new(from);
        while reader
            .read_until(b'\n', &mut line)
            .context("cannot read the tests' output")?
            > 0
        {
            let mut out = stdout().lock();
            out.write_all(&line)
                .and_then(|()| out.flush())
                .context("cannot write to standard output")?;
            tally = tally + Self::of_line(&String::from_utf8_lossy(&line)).unwrap_or_default();
            line.clear();
        }
        Ok(tally)
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, the line that libtest and libtest-mimic end with.
    fn of_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |what: &str| {
            let field = counts
                .split(';')
                .map(str::trim)
                .find_map(|field| field.strip_suffix(what));
            field?.trim().parse::<u64>().ok()
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_add_up_and_others_do_not_count() {
        let output = "running 2 tests\ntest a ... ok\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      3 passed; 9 failed\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out\n";
        let tally = Tally::read(output.as_bytes()).expect("reads from memory");
        assert_eq!(
            tally,
            Tally {
                passed: 4,
                failed: 2,
                skipped: 1
            }
        );
    }
}
