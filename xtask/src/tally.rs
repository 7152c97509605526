//! Counting what test harnesses report, while passing their output on.

use std::{
    io::{BufRead, BufReader, Read, Write},
    iter::Sum,
    ops::Add,
};

use anyhow::{Context, Result};

/// Tests, by how they ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Ran and held.
    pub passed: u64,
    /// Ran and did not.
    pub failed: u64,
    /// Did not run; the harness said why.
    pub skipped: u64,
    /// What was printed about those that failed.
    pub failures: String,
    /// The names of those that failed.
    pub failed_tests: Vec<String>,
}

impl Tally {
    /// Copies a harness's output, line by line, adds up its `test result:` lines and keeps what stands under `failures:`.
    ///
    /// # Errors
    /// When the output cannot be read or written.
    pub fn copy(from: impl Read, mut to: impl Write) -> Result<Self> {
        let mut tally = Self::default();
        let mut is_about_failures = false;
        let mut line = Vec::new();
        let mut reader = BufReader::new(from);
        while reader
            .read_until(b'\n', &mut line)
            .context("cannot read the tests' output")?
            > 0
        {
            to.write_all(&line)
                .and_then(|()| to.flush())
                .context("cannot pass on the tests' output")?;
            let text = String::from_utf8_lossy(&line);
            is_about_failures |= text.trim_end() == "failures:";
            tally.failed_tests.extend(failed_test(&text));
            if let Some(result) = Self::of_line(&text) {
                is_about_failures = false;
                tally = tally + result;
            } else if is_about_failures {
                tally.failures += &text;
            }
            line.clear();
        }
        Ok(tally)
    }

    /// Counts a harness that ended without having said what failed: as a failure of no test.
    pub fn broke_off(&mut self) {
        self.failed = 1;
        // A test that failed before would be taken for the only thing that is wrong.
        self.failed_tests.clear();
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
            ..Self::default()
        })
    }
}

/// Reads `test NAME ... FAILED`.
fn failed_test(line: &str) -> Option<String> {
    let name = line
        .trim_end()
        .strip_prefix("test ")?
        .strip_suffix("FAILED")?
        .trim_end()
        .strip_suffix(" ...")?;
    Some(name.trim_end().to_owned())
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            failures: self.failures + &other.failures,
            failed_tests: [self.failed_tests, other.failed_tests].concat(),
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
        let output = "running 2 tests\ntest a ... ok\ntest b::c    ... FAILED\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      3 passed; 9 failed\n\
                      failures:\n---- b ----\nit is red\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out\n";
        let mut copy = Vec::new();
        let tally = Tally::copy(output.as_bytes(), &mut copy).expect("reads from memory");
        assert_eq!(copy, output.as_bytes());
        assert_eq!(
            tally,
            Tally {
                passed: 4,
                failed: 2,
                skipped: 1,
                failures: "failures:\n---- b ----\nit is red\n".to_owned(),
                failed_tests: vec!["b::c".to_owned()],
            }
        );
    }
}
