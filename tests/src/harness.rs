//! A suite of tests that say what they need: where that is missing they are skipped, aloud.

#![allow(clippy::print_stdout, reason = "a harness reports on standard output")]

use std::{
    collections::BTreeMap,
    env,
    num::NonZeroUsize,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    expected_skips::EXPECTED_SKIPS,
    matrix::Matrix,
    measured::tables,
    needs::{Requirement, Skip, needs},
};
use xtask::test_command::SAMPLE;

pub use crate::matrix::Cell;

/// One test.
pub struct Case {
    name: String,
    cell: Option<Cell>,
    needs: Vec<Requirement>,
    run: Box<dyn FnOnce() -> anyhow::Result<usize> + Send>,
}

impl Case {
    /// A test that fails by an error or a panic.
    pub fn new(name: impl Into<String>, run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Self {
        Self {
            name: name.into(),
            cell: None,
            needs: Vec::new(),
            run: Box::new(|| run().map(|()| 1)),
        }
    }

    /// A test of one kind of traffic, which says how many cases it has checked: they are summed up in the table that the
    /// suite prints at its end.
    pub fn of(
        cell: Cell,
        name: impl Into<String>,
        run: impl FnOnce() -> anyhow::Result<usize> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            cell: Some(cell),
            needs: Vec::new(),
            run: Box::new(run),
        }
    }

    /// Adds something that this test needs, beyond what its whole suite does.
    #[must_use]
    pub fn needs(mut self, requirement: Requirement) -> Self {
        self.needs.push(requirement);
        self
    }
}

/// What all the tests of a harness have in common.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// As `cargo xtask test --only` knows it.
    pub name: &'static str,
    /// What every test needs.
    pub needs: &'static [Requirement],
    /// Whether the tests may run at the same time (`--test-threads` overrides it).
    pub parallel: bool,
}

/// Loaded programs are kept for the next test, each with some sixty maps and programs; 1,024 open files, as usual, are not enough.
fn keep_many_files_open() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If this fails, tests do.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

impl Suite {
    /// Runs the tests that the command line asks for. To be returned from `main`.
    pub fn run(self, cases: Vec<Case>) -> ExitCode {
        keep_many_files_open();
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert_with(|| self.threads());
        let mut trials = Vec::new();
        let mut reasons = Vec::new();
        let mut found_out = Vec::new();
        let matrix = Matrix::default();
        let cases = sampled(cases);
        for cell in cases.iter().filter_map(|case| case.cell) {
            matrix.expect(cell);
        }
        for case in cases {
            let skip = self.skip(&case, &mut found_out);
            let reason = skip
                .as_ref()
                .map(|skip| format!("skipped: {}: {skip}", case.name));
            let trial = self.trial(case, skip, &matrix);
            reasons.extend(reason.filter(|_| !arguments.is_filtered_out(&trial)));
            trials.push(trial);
        }
        let conclusion = libtest_mimic::run(&arguments, trials);
        if !arguments.list {
            for reason in reasons {
                println!("{reason}");
            }
            print!("{}{}{matrix}", reports(), tables());
        }
        conclusion.exit_code()
    }

    /// How many tests run at the same time: more than there are CPUs, since the kernel lets many of them wait.
    fn threads(self) -> usize {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        if self.parallel { 2 * cpus } else { 1 }
    }

    /// Why a test is skipped, if it is. Each requirement is looked into once.
    fn skip(self, case: &Case, found_out: &mut Vec<(Requirement, Result<(), Skip>)>) -> Option<Skip> {
        let requirements = self.needs.iter().chain(&case.needs);
        requirements.copied().find_map(|requirement| {
            if let Some((_, known)) = found_out.iter().find(|(known, _)| *known == requirement) {
                return known.clone().err();
            }
            let found = needs(requirement);
            found_out.push((requirement, found.clone()));
            found.err()
        })
    }

    fn trial(self, case: Case, skip: Option<Skip>, matrix: &Matrix) -> Trial {
        let Case { name, cell, run, .. } = case;
        let full_name = format!("{}::{name}", self.name);
        let matrix = matrix.clone();
        Trial::ignorable_test(name, move || match skip {
            None => {
                if let Some(cell) = cell {
                    matrix.started(cell);
                }
                let cases = run().map_err(|error| Failed::from(format!("{error:#}")))?;
                if let Some(cell) = cell {
                    matrix.passed(cell, cases);
                }
                Ok(Completion::Completed)
            }
            Some(skip) if !is_ci() || skip.by_choice || EXPECTED_SKIPS.contains(&&*full_name) => {
                if let Some(cell) = cell {
                    matrix.skipped(cell);
                }
                Ok(Completion::ignored_with(skip))
            }
            Some(skip) => Err(Failed::from(format!(
                "CI runs every test, and this one was skipped: {skip}"
            ))),
        })
    }
}

/// All of them, or one in so many if that is asked for.
fn sampled(cases: Vec<Case>) -> Vec<Case> {
    let asked = env::var(SAMPLE).ok().and_then(|every| every.parse().ok());
    let Some(every) = asked.filter(|every: &usize| *every > 1) else {
        return cases;
    };
    println!("a sample: one test in {every}");
    cases.into_iter().step_by(every).collect()
}

/// Lines by title.
static REPORTS: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// Has a line of what a test measured printed at the end of the suite, under a title that tests may have in common.
pub fn report(title: &str, line: impl Into<String>) {
    let mut reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
    reports.entry(title.to_owned()).or_default().push(line.into());
}

/// What was reported, sorted, since tests end in any order.
fn reports() -> String {
    let mut text = String::new();
    for (title, lines) in &mut *REPORTS.lock().unwrap_or_else(PoisonError::into_inner) {
        lines.sort();
        text += &format!("{title}\n");
        for line in lines {
            text += &format!("  {line}\n");
        }
        text.push('\n');
    }
    text
}

fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}
