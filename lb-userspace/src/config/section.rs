//! The work bench of validation: the text, what was found wrong with it so far, and for each table of the file a
//! `Section` that reads values, tells their place and goes on after a wrong one.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::num::NonZeroU16;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::error::{ConfigError, Problem};
use super::host::{Host, plain};
use super::limits::Times;
use super::words::{Word, did_you_mean};
use super::written::{Given, Time};

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
    text: &'a str,
    /// Where relative paths begin.
    directory: PathBuf,
    host: &'a dyn Host,
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
    check: &'s mut Check<'a>,
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

    /// As `missing`, if it is.
    pub(super) fn need<T>(&mut self, key: &str, given: &Option<T>, what: &str) {
        if given.is_none() {
            self.missing(key, what);
        }
    }

    /// A string that a rule accepts.
    pub(super) fn text<T>(
        &mut self,
        key: &str,
        given: &Given<String>,
        rule: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = given.as_ref()?;
        rule(given.get_ref())
            .map_err(|what| self.wrong(key, given.span(), what))
            .ok()
    }

    /// One of a few words.
    pub(super) fn word<T: Word>(&mut self, key: &str, given: &Given<String>) -> Option<T> {
        self.text(key, given, word)
    }

    /// A number in a range; `thing` begins the message: `a port`.
    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        key: &str,
        given: &Given<i64>,
        allowed: RangeInclusive<i64>,
        thing: &str,
    ) -> Option<T> {
        let given = given.as_ref()?;
        let number = *given.get_ref();
        if !allowed.contains(&number) {
            self.wrong(
                key,
                given.span(),
                format!("{thing} is {} to {}", allowed.start(), allowed.end()),
            );
            return None;
        }
        T::try_from(number).ok()
    }

    /// A port.
    pub(super) fn port(&mut self, key: &str, given: &Given<i64>) -> Option<NonZeroU16> {
        self.number(key, given, 1..=65535, "a port")
            .and_then(NonZeroU16::new)
    }

    /// A time in a range; `thing` begins the message: `a timeout`.
    pub(super) fn time(
        &mut self,
        key: &str,
        given: &Given<Time>,
        allowed: Times,
        thing: &str,
    ) -> Option<Duration> {
        let given = given.as_ref()?;
        let Time(time) = *given.get_ref();
        if !(allowed.least..=allowed.most).contains(&time) {
            self.wrong(key, given.span(), format!("{thing} is {}", allowed.words));
            return None;
        }
        Some(time)
    }

    /// As `time`, in whole seconds.
    pub(super) fn seconds(
        &mut self,
        key: &str,
        given: &Given<Time>,
        allowed: Times,
        thing: &str,
    ) -> Option<Duration> {
        let time = self.time(key, given, allowed, thing)?;
        if time.subsec_nanos() != 0 {
            let at = given.as_ref().map_or(0..0, Spanned::span);
            self.wrong(key, at, format!("{thing} is told in whole seconds"));
            return None;
        }
        Some(time)
    }

    /// A list, not empty, of different strings that a rule accepts; absent: `None`.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        given: &Given<Vec<Spanned<String>>>,
        thing: &str,
        rule: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let given = given.as_ref()?;
        if given.get_ref().is_empty() {
            self.wrong(key, given.span(), format!("name at least one {thing}"));
        }
        let mut values = Vec::new();
        for element in given.get_ref() {
            match rule(element.get_ref()) {
                Err(what) => self.wrong(key, element.span(), what),
                Ok(value) if values.contains(&value) => {
                    self.wrong(
                        key,
                        element.span(),
                        format!("this {thing} is named twice; take one out"),
                    );
                }
                Ok(value) => values.push(value),
            }
        }
        Some(values)
    }

    /// A name that no other of its kind has.
    pub(super) fn unique_name(
        &mut self,
        given: &Given<String>,
        kind: &str,
        taken: &mut HashMap<String, usize>,
    ) -> Option<String> {
        self.need("name", given, &format!("each {kind} has a name of its own"));
        self.text("name", given, super::rules::name)?;
        let given = given.as_ref()?;
        let line = line(self.check.text, given.span().start);
        if let Some(first) = taken.insert(given.get_ref().clone(), line) {
            self.wrong(
                "name",
                given.span(),
                format!("the {kind} of line {first} has this name already"),
            );
        }
        Some(given.get_ref().clone())
    }

    /// An interface of this machine.
    pub(super) fn interface(&mut self, key: &str, given: &Given<String>) -> Option<String> {
        let exists = self.interface_rule();
        self.text(key, given, exists)
    }

    /// The rule for the name of an interface.
    pub(super) fn interface_rule(&self) -> impl Fn(&str) -> Result<String, String> + use<> {
        let interfaces = self.check.host.interfaces();
        move |name| match &interfaces {
            Ok(names) if names.iter().any(|known| known == name) => Ok(name.to_owned()),
            Ok(names) => Err(format!(
                "there is no such interface; this machine has {}{}",
                names.join(", "),
                did_you_mean(name, names.iter().map(String::as_str)),
            )),
            Err(error) => Err(format!(
                "the interfaces of this machine cannot be listed: {}",
                plain(error)
            )),
        }
    }

    /// A path; a relative one begins at the configuration file's directory.
    pub(super) fn path(&mut self, key: &str, given: &Given<String>) -> Option<PathBuf> {
        let directory = self.check.directory.clone();
        self.text(key, given, |text| match text {
            "" => Err("name a file".to_owned()),
            text if text.contains('\0') => Err("a path has no zero bytes".to_owned()),
            text => Ok(directory.join(text)),
        })
    }

    /// A path and what is in that file.
    pub(super) fn file(&mut self, key: &str, given: &Given<String>) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path(key, given)?;
        match self.check.host.read(&path) {
            Ok(bytes) => Some((path, bytes)),
            Err(error) => {
                let at = given.as_ref().map_or(0..0, Spanned::span);
                let what = format!("{} cannot be read: {}", path.display(), plain(&error));
                self.wrong(key, at, what);
                None
            }
        }
    }
}

/// The value of a word.
pub(super) fn word<T: Word>(text: &str) -> Result<T, String> {
    let words = || T::ALL.iter().map(|(word, _)| *word);
    T::ALL
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let allowed: Vec<String> = words().map(|word| format!("\"{word}\"")).collect();
            format!("allowed: {}{}", allowed.join(", "), did_you_mean(text, words()))
        })
}
