//! What a row of probe results makes of a backend: pure, the time is passed in.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What one probe found, with the reason in an operator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The backend answered as expected.
    Success(String),
    /// It did not.
    Failure(String),
    /// The probe could not be made for want of something on this host (file descriptors, memory, ports). That says
    /// nothing about the backend and must not take all of them down at once: it changes no status.
    Unable(String),
}

/// Whether a backend is fit to get connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// No probe has succeeded yet.
    Checking,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checking => "checking",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// A status, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The status.
    pub status: Status,
    /// When it last changed.
    pub since: SystemTime,
    /// The last probe's result: `HTTP 200 in 3 ms`, `connection refused`, `connection refused (failure 1 of 3)`.
    pub reason: String,
}

/// Health, and how many probes in a row have spoken against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    health: Health,
    against: u32,
}

impl State {
    /// A backend that nobody has asked yet.
    pub(super) fn new(now: SystemTime) -> Self {
        let health = Health {
            status: Status::Checking,
            since: now,
            reason: "no probe has ended yet".to_owned(),
        };
        Self { health, against: 0 }
    }

    /// A backend whose health is known from before.
    pub(super) fn known(health: Health) -> Self {
        Self { health, against: 0 }
    }

    /// The present health.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Keeps the status but forgets the probes that spoke against it: they were made by rules that no longer hold.
    pub(super) fn forget_streak(&mut self) {
        self.against = 0;
    }

    /// Takes in a probe's outcome; says whether the status changed. `rise` and `fall` of 0 count as 1.
    ///
    /// A new backend is up after one success; an up or new one is down after `fall` failures in a row; a down one is
    /// up after `rise` successes in a row.
    pub(super) fn observe(&mut self, outcome: Outcome, now: SystemTime, rise: u32, fall: u32) -> bool {
        let (next, needed, word, reason) = match (self.health.status, outcome) {
            (_, Outcome::Unable(reason)) => {
                self.health.reason = format!("could not probe: {reason}");
                return false;
            }
            (Status::Up, Outcome::Success(reason)) | (Status::Down, Outcome::Failure(reason)) => {
                self.against = 0;
                self.health.reason = reason;
                return false;
            }
            (Status::Checking, Outcome::Success(reason)) => (Status::Up, 1, "success", reason),
            (Status::Down, Outcome::Success(reason)) => (Status::Up, rise, "success", reason),
            (Status::Checking | Status::Up, Outcome::Failure(reason)) => {
                (Status::Down, fall, "failure", reason)
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            self.health.reason = format!("{reason} ({word} {} of {needed})", self.against);
            return false;
        }
        self.against = 0;
        self.health = Health {
            status: next,
            since: now,
            reason,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// Feeds `y` (success), `n` (failure) and `u` (unable), one a second; gives the status after each.
    fn run(state: &mut State, outcomes: &str, rise: u32, fall: u32) -> String {
        let feed = |(second, outcome)| {
            let reason = format!("{outcome}{second}");
            let outcome = match outcome {
                'y' => Outcome::Success(reason),
                'n' => Outcome::Failure(reason),
                _ => Outcome::Unable(reason),
            };
            state.observe(outcome, at(second), rise, fall);
            match state.health().status {
                Status::Checking => 'c',
                Status::Up => 'U',
                Status::Down => 'D',
            }
        };
        (1..).zip(outcomes.chars()).map(feed).collect()
    }

    #[test]
    fn follows_rise_and_fall() {
        for (outcomes, statuses, purpose) in [
            ("y", "U", "one success lifts a new backend"),
            ("nny", "ccU", "also after a few failures"),
            (
                "nnnyy",
                "ccDDU",
                "once down, a new backend needs `rise` like any other",
            ),
            ("ynnn", "UUUD", "`fall` failures take it down"),
            ("ynnynnn", "UUUUUUD", "only in a row"),
            ("nnnynyy", "ccDDDDU", "`rise` successes, only in a row"),
            (
                "ynunun",
                "UUUUUD",
                "an unmade probe neither counts nor interrupts",
            ),
            ("uuuuu", "ccccc", "an unmade probe changes nothing"),
        ] {
            assert_eq!(run(&mut State::new(at(0)), outcomes, 2, 3), statuses, "{purpose}");
        }
    }

    #[test]
    fn tells_since_when_and_why() {
        let mut state = State::new(at(0));
        run(&mut state, "yyn", 2, 2);
        let up = Health {
            status: Status::Up,
            since: at(1),
            reason: "n3 (failure 1 of 2)".to_owned(),
        };
        assert_eq!(*state.health(), up);
        run(&mut state, "nn", 2, 2);
        let down = Health {
            status: Status::Down,
            since: at(1),
            reason: "n2".to_owned(),
        };
        assert_eq!(*state.health(), down);
        run(&mut state, "u", 2, 2);
        assert_eq!(state.health().reason, "could not probe: u1");
    }

    /// The clock is only shown: it may be set back or forward by years.
    #[test]
    fn a_clock_that_steps_changes_no_status() {
        let outcomes = "ynnnyynunnyy";
        let mut steady = State::new(at(0));
        let mut stepped = State::new(at(1_000_000));
        for (second, outcome) in (0..).zip(outcomes.chars()) {
            let make = |outcome| match outcome {
                'y' => Outcome::Success(String::new()),
                'n' => Outcome::Failure(String::new()),
                _ => Outcome::Unable(String::new()),
            };
            let wild = [2_000_000_000, 0, 999_999_999][second as usize % 3];
            let changed = steady.observe(make(outcome), at(second), 2, 3);
            assert_eq!(stepped.observe(make(outcome), at(wild), 2, 3), changed);
            assert_eq!(stepped.health().status, steady.health().status);
        }
    }

    #[test]
    fn a_forgotten_streak_starts_anew() {
        let mut state = State::new(at(0));
        assert_eq!(run(&mut state, "ynn", 2, 3), "UUU");
        state.forget_streak();
        assert_eq!(run(&mut state, "nnn", 2, 3), "UUD");
    }

    /// The rules said over the whole history instead of a counter: what do the last so many results have in common?
    fn model(history: &[bool], rise: usize, fall: usize) -> Status {
        let mut status = Status::Checking;
        let mut since = 0;
        for end in 1..=history.len() {
            let tail = |result: bool, count: usize| {
                end - since >= count && history[end - count..end].iter().all(|&seen| seen == result)
            };
            let next = match status {
                Status::Checking if tail(true, 1) => Status::Up,
                Status::Checking | Status::Up if tail(false, fall) => Status::Down,
                Status::Down if tail(true, rise) => Status::Up,
                same => same,
            };
            if next != status {
                (status, since) = (next, end);
            }
        }
        status
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(history in prop::collection::vec(any::<bool>(), 0..60), rise in 1..5_u32, fall in 1..5_u32) {
            let mut state = State::new(at(0));
            for (index, &success) in history.iter().enumerate() {
                let before = state.health().status;
                let outcome = if success { Outcome::Success(String::new()) } else { Outcome::Failure(String::new()) };
                let now = at(index as u64 + 1);
                let changed = state.observe(outcome, now, rise, fall);
                let health = state.health();
                prop_assert_eq!(health.status, model(&history[..=index], rise as usize, fall as usize));
                prop_assert_eq!(changed, health.status != before);
                prop_assert_eq!(changed, health.since == now);
            }
        }
    }
}
