//! From text to `Written`: TOML syntax, unknown keys and types. serde stops at the first mistake; here the mistake is
//! noted, taken out of the parsed document, and the rest is read again, so that all of them are told at once.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::section::{Finding, FindingKind, title, typed};
use super::written::Written;

/// Enough for any honest file; a file of nothing but mistakes need not be told whole.
const MOST_FINDINGS: usize = 100;

/// What could be read of the file (nothing if it is not TOML), and what is wrong with its shape.
pub(super) fn read(text: &str) -> (Option<Written>, Vec<Finding>) {
    let mut root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => return (None, vec![syntax(text, &error)]),
    };
    let mut findings = Vec::new();
    loop {
        let error = match Written::deserialize(Deserializer::from(root.clone())) {
            Ok(written) => return (Some(written), findings),
            Err(error) => error,
        };
        let at = error.span().unwrap_or(0..0);
        let name_of = root.clone();
        let found_list = error.message().starts_with("invalid type: sequence");
        let culprit = Culprit {
            at: at.clone(),
            found_list,
        };
        let taken = take_out(root.get_mut(), &culprit);
        findings.push(finding(text, &name_of, &at, taken.as_ref(), error.message()));
        if taken.is_none() || findings.len() == MOST_FINDINGS {
            return (None, findings);
        }
    }
}

/// A mistake in TOML itself: the parser cannot say what follows, so it is told alone.
fn syntax(text: &str, error: &Error) -> Finding {
    let at = error.span().map_or(text.len(), |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let end = text
        .get(at..)
        .and_then(|rest| rest.find('\n'))
        .map_or(text.len(), |length| at + length);
    let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
    let message = match error.message() {
        "duplicate key" => {
            "this is there already; take one of the two out, or write [[…]] if there may be several"
        }
        message => message,
    };
    let what = format!(
        "{}: not TOML at column {column}: {message}",
        typed(text, start..end)
    );
    Finding {
        at,
        section: String::new(),
        what,
        kind: FindingKind::Shape,
    }
}

/// A step on the way to a value.
enum Step {
    Key(String),
    Index(usize),
}

/// What serde stumbled over.
struct Culprit {
    /// The place of a key or a value.
    at: Range<usize>,
    /// A list in the wrong place: `[[daemon]]` is the place of the list and of the list's first element.
    found_list: bool,
}

impl Culprit {
    fn is(&self, value: &Spanned<DeValue<'_>>) -> bool {
        value.span() == self.at && (!self.found_list || value.get_ref().is_array())
    }
}

/// What was taken out.
struct Taken {
    /// From the root to the value.
    path: Vec<Step>,
    /// Where the value is.
    at: Range<usize>,
    /// The type of the value.
    found: &'static str,
    /// Whether it is a table or a list of tables: these are told by their header, not by what they hold.
    is_table: bool,
}

impl Taken {
    fn new(step: Step, value: &Spanned<DeValue<'_>>) -> Self {
        let is_table = match value.get_ref() {
            DeValue::Table(_) => true,
            DeValue::Array(array) => array.iter().any(|element| element.get_ref().is_table()),
            _ => false,
        };
        Self {
            path: vec![step],
            at: value.span(),
            found: value.get_ref().type_str(),
            is_table,
        }
    }

    fn below(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

/// Takes the culprit out of the table, the innermost value if several begin and end there.
fn take_out(table: &mut DeTable<'_>, culprit: &Culprit) -> Option<Taken> {
    for (key, value) in table.iter_mut() {
        if let Some(taken) = take_out_of_value(value, culprit) {
            return Some(taken.below(Step::Key(key.get_ref().to_string())));
        }
    }
    let here = |(key, value): &(&Spanned<_>, &Spanned<_>)| key.span() == culprit.at || culprit.is(value);
    let key = table.iter().find(here)?.0.clone();
    let value = table.remove(&key)?;
    Some(Taken::new(Step::Key(key.into_inner().to_string()), &value))
}

fn take_out_of_value(value: &mut Spanned<DeValue<'_>>, culprit: &Culprit) -> Option<Taken> {
    let array = match value.get_mut() {
        DeValue::Table(table) => return take_out(table, culprit),
        DeValue::Array(array) => array,
        _ => return None,
    };
    for (index, value) in array.iter_mut().enumerate() {
        if let Some(taken) = take_out_of_value(value, culprit) {
            return Some(taken.below(Step::Index(index)));
        }
    }
    let index = array.iter().position(|value| culprit.is(value))?;
    let taken = Taken::new(Step::Index(index), array.get(index)?);
    let mut rest = DeArray::new();
    array
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != index)
        .for_each(|(_, value)| rest.push(value.clone()));
    *array = rest;
    Some(taken)
}

fn finding(
    text: &str,
    root: &Spanned<DeTable<'_>>,
    at: &Range<usize>,
    taken: Option<&Taken>,
    message: &str,
) -> Finding {
    let (section, key) = taken.map_or_else(Default::default, |taken| names(root.get_ref(), &taken.path));
    let value = match taken {
        Some(taken) if !taken.is_table => format!(" = {}", typed(text, taken.at.clone())),
        _ => String::new(),
    };
    let about = format!("{section} {key}");
    let what = format!(
        "{}{value}: {}",
        about.trim(),
        explain(message, &key, taken.map_or("nothing", |taken| taken.found))
    );
    Finding {
        at: at.start,
        section,
        what,
        kind: FindingKind::Shape,
    }
}

/// The table's name as in all messages (`service "www" health`), and the key in it.
fn names(root: &DeTable<'_>, path: &[Step]) -> (String, String) {
    let mut section: Vec<String> = Vec::new();
    let mut key: Option<String> = None;
    let mut table = Some(root);
    let mut array: Option<&DeArray<'_>> = None;
    for step in path {
        let value = match step {
            Step::Key(next) => {
                section.extend(key.replace(next.clone()));
                table.and_then(|table| table.get(next.as_str()))
            }
            Step::Index(index) => {
                let value = array.and_then(|array| array.get(*index));
                if let Some(element) = value.and_then(|value| value.get_ref().as_table()) {
                    let name = element.get("name").and_then(|name| name.get_ref().as_str());
                    key = key.map(|key| title(&key, name, *index));
                }
                value
            }
        };
        table = value.and_then(|value| value.get_ref().as_table());
        array = value.and_then(|value| value.get_ref().as_array());
    }
    (section.join(" "), key.unwrap_or_default())
}

/// serde's message in the words of an operator; `found` is the type of the value.
fn explain(message: &str, key: &str, found: &str) -> String {
    if message.starts_with("unknown field") {
        let allowed: Vec<&str> = message.split('`').skip(1).step_by(2).skip(1).collect();
        return format!(
            "unknown key; allowed here: {}{}",
            allowed.join(", "),
            did_you_mean(key, &allowed)
        );
    }
    let Some((_, expected)) = message.split_once(", expected ") else {
        return match message {
            "integer number overflowed" => "the number is too large".to_owned(),
            _ => message.to_owned(),
        };
    };
    let expected = match expected {
        "i64" if found == "integer" => return "the number is too large".to_owned(),
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        _ => expected,
    };
    let advice = match (expected, found) {
        ("a string", "integer" | "float" | "boolean" | "datetime") => "; put it in quotes",
        ("a whole number" | "true or false", "string") => "; write it without quotes",
        ("a list", "table") => "; write its header in double brackets: [[…]]",
        ("a list", _) => "; put it in brackets: [ … ]",
        ("a table", "array") => "; write its header once and in single brackets: […]",
        _ => "",
    };
    let found = match found {
        "integer" => "a number",
        "float" => "a number with a point",
        "boolean" => "true or false",
        "datetime" => "a date or time of day",
        "array" => "a list",
        "table" => "a table",
        _ => "a string",
    };
    format!("{expected} is expected here, not {found}{advice}")
}

/// `; did you mean "x"?` if one of the keys is close to what was written, else nothing.
fn did_you_mean(written: &str, keys: &[&str]) -> String {
    let likeness = |key: &str| match strsim::osa_distance(written, key) {
        1 => 1.0,
        _ => strsim::jaro_winkler(written, key),
    };
    keys.iter()
        .map(|key| (likeness(key), key))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| format!("; did you mean \"{key}\"?"))
        .unwrap_or_default()
}
