//! The work bench of validation: the text, what was found wrong with it so far, and for each table of the file a
//! `Section` that notes what is wrong with its place and goes on. `reading` has what sections read values with.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::host::Host;

/// Something that was found wrong.
pub(super) struct Finding {
    /// Offset in the text.
    pub(super) at: usize,
    /// The table that it is about, as in messages: `service "www" health`; empty: the file.
    pub(super) section: String,
    /// The message without its place.
    pub(super) what: String,
    /// How it was found.
    pub(super) kind: FindingKind,
}

/// How something was found wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FindingKind {
    /// Unknown key or wrong type: what else is found in this table may only follow from that.
    Shape,
    /// A value that is not allowed.
    Value,
    /// A value that is not there.
    Missing,
}

/// Everything that the checks share.
pub(super) struct Check<'a> {
    pub(super) text: &'a str,
    /// Where relative paths begin.
    pub(super) directory: PathBuf,
    pub(super) host: &'a dyn Host,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    pub(super) fn new(text: &'a str, file: &Path, host: &'a dyn Host, findings: Vec<Finding>) -> Self {
        let directory = file.parent().unwrap_or(Path::new("")).to_owned();
        Self {
            text,
            directory,
            host,
            findings,
        }
    }

    /// The table of this name; its header is at `at`.
    pub(super) fn section(&mut self, name: String, at: Range<usize>) -> Section<'_, 'a> {
        Section {
            check: self,
            name,
            at,
        }
    }

    /// What is left to tell: findings that may only follow from a mistyped key are dropped.
    pub(super) fn finish(self, file: &Path) -> Result<(), ConfigError> {
        let misshapen: HashSet<String> = self
            .findings
            .iter()
            .filter(|finding| finding.kind == FindingKind::Shape)
            .map(|finding| finding.section.clone())
            .collect();
        let mut findings = self.findings;
        findings.retain(|finding| match finding.kind {
            FindingKind::Shape => true,
            FindingKind::Value => !misshapen.contains(&finding.section),
            FindingKind::Missing => misshapen.is_empty(),
        });
        if findings.is_empty() {
            return Ok(());
        }
        findings.sort_by_key(|finding| finding.at);
        let problem = |finding: Finding| Problem {
            file: file.to_owned(),
            line: Some(line(self.text, finding.at)),
            what: finding.what,
        };
        Err(ConfigError {
            problems: findings.into_iter().map(problem).collect(),
        })
    }
}

/// The line, from 1, of an offset.
pub(super) fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// What was typed there, short and on one line.
pub(super) fn typed(text: &str, at: Range<usize>) -> String {
    const LONGEST: usize = 80;
    let typed = text.get(at).unwrap_or_default();
    let first = typed.lines().next().unwrap_or_default();
    let mut shown: String = first
        .chars()
        .take(LONGEST)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect();
    if first.chars().count() > LONGEST || typed.len() > first.len() {
        shown.push('…');
    }
    shown
}

/// `service "www"`, or `service #2` where there is no name to go by.
pub(super) fn title(kind: &str, name: Option<&str>, index: usize) -> String {
    match name {
        Some(name) => format!("{kind} {name:?}"),
        None => format!("{kind} #{}", index + 1),
    }
}

/// One table of the file.
pub(super) struct Section<'s, 'a> {
    pub(super) check: &'s mut Check<'a>,
    name: String,
    at: Range<usize>,
}

impl<'a> Section<'_, 'a> {
    /// A table inside this one.
    pub(super) fn inner(&mut self, name: &str, at: Range<usize>) -> Section<'_, 'a> {
        Section {
            name: self.about(name),
            check: &mut *self.check,
            at,
        }
    }

    fn about(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{} {key}", self.name)
        }
    }

    fn find(&mut self, kind: FindingKind, at: usize, what: String) {
        self.check.findings.push(Finding {
            at,
            section: self.name.clone(),
            what,
            kind,
        });
    }

    /// A value is not allowed.
    pub(super) fn wrong(&mut self, key: &str, at: Range<usize>, what: impl Display) {
        let typed = typed(self.check.text, at.clone());
        let what = format!("{} = {typed}: {what}", self.about(key));
        self.find(FindingKind::Value, at.start, what);
    }

    /// This table as a whole is not allowed.
    pub(super) fn refuse(&mut self, what: impl Display) {
        let what = format!("{}: {what}", self.name);
        self.find(FindingKind::Value, self.at.start, what);
    }

    /// A key is not there though it must be.
    pub(super) fn missing(&mut self, key: &str, what: impl Display) {
        let what = format!("{} is missing: {what}", self.about(key));
        self.find(FindingKind::Missing, self.at.start, what);
    }
}
