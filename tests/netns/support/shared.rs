//! A lab that several tests use, one after the other.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use lb_tests::programs;
use xtask::lab::{Lab, LabOptions};

/// A lab that is brought up by the first test that wants it, and taken down with the last test that could: each test's
/// closure has a clone of this.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

enum State {
    Planned(Plan),
    Up(Box<Lab>),
    /// Why it could not be brought up: the reason is every test's.
    Failed(String),
}

/// How the lab is to be.
type Plan = Box<dyn FnOnce(&mut LabOptions) -> Result<()> + Send>;

impl Shared {
    /// A lab of this prefix, with these changes of the defaults.
    pub(crate) fn planned(
        prefix: &'static str,
        plan: impl FnOnce(&mut LabOptions) -> Result<()> + Send + 'static,
    ) -> Self {
        let plan = move |options: &mut LabOptions| {
            options.prefix = prefix.to_owned();
            plan(options)
        };
        Self(Arc::new(Mutex::new(State::Planned(Box::new(plan)))))
    }

    /// Uses it.
    pub(crate) fn with<T>(&self, test: impl FnOnce(&mut Lab) -> Result<T>) -> Result<T> {
        // A test that panicked has left the lab as one that failed.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Planned(_)) {
            let failed = State::Failed("bringing it up panicked".to_owned());
            if let State::Planned(plan) = std::mem::replace(&mut *state, failed) {
                *state = match up(plan) {
                    Ok(lab) => State::Up(Box::new(lab)),
                    Err(error) => State::Failed(format!("{error:#}")),
                };
            }
        }
        match &mut *state {
            State::Up(lab) => test(lab),
            State::Failed(reason) => Err(anyhow!("the lab is not up: {reason}")),
            State::Planned(_) => Err(anyhow!("the lab is not up")),
        }
    }
}

fn up(plan: Plan) -> Result<Lab> {
    let mut options = LabOptions::new(xtask::lab::DEFAULT_PREFIX, programs::of_the_lab()?);
    plan(&mut options)?;
    Lab::up(options)
}
