//! The only place that prints.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
use super::units::clean;
use crate::api::types::Error;

/// Where output goes and how it may look.
pub(super) struct Screen {
    json: bool,
    terminal: bool,
    colour: bool,
}

/// Colours with a meaning; their ANSI codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// All is well.
    Good = 32,
    /// Somebody should know.
    Notice = 33,
    /// Broken.
    Bad = 31,
}

impl Screen {
    /// Standard output as it is: colour only on a terminal, and only if `NO_COLOR` is not set.
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            json,
            terminal,
            colour: terminal && !unwanted && !dumb,
        }
    }

    /// Whether the API's types are wanted instead of pages.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Whether lines can be rewritten.
    pub(super) fn terminal(&self) -> bool {
        self.terminal
    }

    /// Whether colours are wanted.
    pub(super) fn colour(&self) -> bool {
        self.colour
    }

    /// The text in this colour, if colours are wanted.
    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", colour as u8)
        } else {
            text.to_owned()
        }
    }

    /// Prints an answer: as the page that `page` makes of it, or as JSON.
    pub(super) fn show<T: Serialize>(
        &self,
        answer: &T,
        page: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let mut text = serde_json::to_string_pretty(answer).map_err(io::Error::from)?;
            text.push('\n');
            self.print(&text)
        } else {
            self.print(&page(answer))
        }
    }

    /// Prints a text, which brings its own line ends.
    pub(super) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Says something aside from the output, to standard error; not with `--json`.
    pub(super) fn note(&self, message: &str) {
        if !self.json {
            // Nobody may be reading, which is no failure.
            let _ = writeln!(io::stderr(), "{}", clean(message));
        }
    }

    /// Prints why the command failed to standard error: a line, or the API's error type as JSON.
    pub(super) fn error(&self, message: &str) {
        let line = if self.json {
            serde_json::to_string(&Error {
                error: message.to_owned(),
            })
            .unwrap_or_default()
        } else {
            format!(
                "lbctl: {}",
                message.lines().map(clean).collect::<Vec<_>>().join("\n")
            )
        };
        // Nobody may be reading; the exit status tells all the same.
        let _ = writeln!(io::stderr(), "{line}");
    }
}
