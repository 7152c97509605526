//! A suite of tests that say what they need: where that is missing they are skipped, aloud.

#![allow(clippy::print_stdout, reason = "a harness reports on standard output")]

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    expected_skips::EXPECTED_SKIPS,
    needs::{Requirement, Skip, needs},
};

/// One test.
pub struct Case {
    name: String,
    needs: Vec<Requirement>,
    run: Box<dyn FnOnce() -> anyhow::Result<()> + Send>,
}

impl Case {
    /// A test that fails by an error or a panic.
    pub fn new(name: impl Into<String>, run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Self {
        Self {
            name: name.into(),
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

impl Suite {
    /// Runs the tests that the command line asks for. To be returned from `main`.
    pub fn run(self, cases: Vec<Case>) -> ExitCode {
        let mut arguments = Arguments::from_args();
        if !self.parallel && arguments.test_threads.is_none() {
            arguments.test_threads = Some(1);
        }
        let mut trials = Vec::new();
        let mut reasons = Vec::new();
        for case in cases {
            let skip = self.skip(&case);
            let reason = skip
                .as_ref()
                .map(|skip| format!("skipped: {}: {skip}", case.name));
            let trial = self.trial(case, skip);
            reasons.extend(reason.filter(|_| !arguments.is_filtered_out(&trial)));
            trials.push(trial);
        }
        let conclusion = libtest_mimic::run(&arguments, trials);
        if !arguments.list {
            for reason in reasons {
                println!("{reason}");
            }
        }
        conclusion.exit_code()
    }

    fn skip(self, case: &Case) -> Option<Skip> {
        let mut requirements = self.needs.iter().chain(&case.needs).copied();
        requirements.find_map(|requirement| needs(requirement).err())
    }

    fn trial(self, case: Case, skip: Option<Skip>) -> Trial {
        let Case { name, run, .. } = case;
        let full_name = format!("{}::{name}", self.name);
        Trial::ignorable_test(name, move || match skip {
            None => run()
                .map(|()| Completion::Completed)
                .map_err(|error| Failed::from(format!("{error:#}"))),
            Some(skip) if !is_ci() || skip.by_choice || EXPECTED_SKIPS.contains(&&*full_name) => {
                Ok(Completion::ignored_with(skip))
            }
            Some(skip) => Err(Failed::from(format!(
                "CI runs every test, and this one was skipped: {skip}"
            ))),
        })
    }
}

fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}
