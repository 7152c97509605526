//! How far a run is: a bar on a terminal, a line for each experiment elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::experiment::Turn;
use super::schedule::Progress;

/// The bar of a whole run, by time: how long everything takes is decided beforehand.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    /// Where the present experiment begins.
    before: Duration,
    /// What it may take.
    share: Duration,
    is_terminal: bool,
}

impl Bar {
    /// For a run of about this long, setting up not counted.
    pub fn new(total: Duration) -> Self {
        let is_terminal = stderr().is_terminal();
        let bar = if is_terminal {
            ProgressBar::new(total.as_millis() as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:30}] {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            before: Duration::ZERO,
            share: Duration::ZERO,
            is_terminal,
        }
    }

    /// The next experiment may take so long.
    pub fn next(&mut self, share: Duration) {
        self.before += self.share;
        self.share = share;
        self.bar.set_position(self.before.as_millis() as u64);
    }

    /// Nothing follows.
    pub fn finish(&self, began: Instant) {
        self.bar.finish_and_clear();
        eprintln!("took {} s", began.elapsed().as_secs());
    }
}

impl Progress for Bar {
    fn sets_up(&mut self, name: &str) {
        self.bar.set_message(format!("{name}: setting up"));
        if !self.is_terminal {
            eprintln!("{name}: setting up");
        }
    }

    fn takes(&mut self, name: &str, turn: &Turn, round: usize, used: Duration) {
        let position = self.before + used.min(self.share);
        self.bar.set_position(position.as_millis() as u64);
        self.bar.set_message(format!(
            "{name}, round {}: {}: {}",
            round + 1,
            turn.row,
            turn.candidate
        ));
    }

    fn round_begins(&mut self, name: &str, round: usize, used: Duration) {
        if !self.is_terminal {
            eprintln!("{name}: round {}, after {:.0} s", round + 1, used.as_secs_f64());
        }
    }
}
