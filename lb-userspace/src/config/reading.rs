//! What sections read values with: each takes a key and what was given for it, notes what is wrong, and returns a value
//! only if there is a right one.

use std::collections::HashMap;
use std::fmt::Display;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::host::plain;
use super::limits::Times;
use super::rules;
use super::section::{Section, line};
use super::words::Word;
use super::written::{Given, Time};

impl Section<'_, '_> {
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

    /// As `word`; absent: the default.
    pub(super) fn word_or<T: Word>(&mut self, key: &str, given: &Given<String>, default: T) -> Option<T> {
        match given {
            Some(_) => self.word(key, given),
            None => Some(default),
        }
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

    /// A name that no other of its kind has; `taken` holds their places.
    pub(super) fn unique_name(
        &mut self,
        given: &Given<String>,
        kind: &str,
        taken: &mut HashMap<String, usize>,
    ) -> Option<String> {
        self.need("name", given, &format!("each {kind} has a name of its own"));
        self.text("name", given, rules::name)?;
        let given = given.as_ref()?;
        if let Some(first) = taken.insert(given.get_ref().clone(), given.span().start) {
            let first = line(self.check.text, first);
            let what = format!("another {kind}, in line {first}, has this name; rename one");
            self.wrong("name", given.span(), what);
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
                "there is no such interface; this machine has {}",
                names.join(", ")
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
                self.wrong_file(key, given, &path, format!("cannot be read: {}", plain(&error)));
                None
            }
        }
    }

    /// What is in a file is not allowed; says which file if that is not what was typed.
    pub(super) fn wrong_file(&mut self, key: &str, given: &Given<String>, path: &Path, what: impl Display) {
        let Some(typed) = given else { return };
        if path == Path::new(typed.get_ref()) {
            self.wrong(key, typed.span(), what);
        } else {
            self.wrong(key, typed.span(), format!("{}: {what}", path.display()));
        }
    }
}

/// The value of a word.
pub(super) fn word<T: Word>(text: &str) -> Result<T, String> {
    T::ALL
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let allowed: Vec<String> = T::ALL.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("allowed: {}", allowed.join(", "))
        })
}
