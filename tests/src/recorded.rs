//! What the program takes, as it was when somebody last looked at it: verified instructions, sizes, and what packets cost.
//!
//! `tests/recorded.toml` is reviewed like code. What is measured may not grow beyond it; who lets it grow writes down why. What
//! has become less by more than a tenth is to be recorded as well, so that the next growth is seen.
//!
//! Instructions are the compiler's, and are only compared with those of the same compiler; calls are the program's own.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::measured::measured;

const RECORDED: &str = include_str!("../recorded.toml");
const FILE: &str = "tests/recorded.toml";
/// Where measured values are shown that are held against nothing.
const UNKNOWN: &str = "not held against recorded values";
const CALLS: [&str; 7] = [
    "functions",
    "get_prandom_u32",
    "jiffies64",
    "map_lookup_elem",
    "redirect",
    "tail calls",
    "xdp_adjust_head",
];

#[derive(Deserialize)]
struct File {
    compiler: String,
    #[serde(flatten)]
    tables: BTreeMap<String, BTreeMap<String, Row>>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "why")]
    _why: String,
    #[serde(flatten)]
    values: BTreeMap<String, u64>,
}

/// The compiler that has made an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler(String);

impl Compiler {
    /// As the object's debug information says.
    #[must_use]
    pub fn of(object: &[u8]) -> Self {
        const VERSION: &[u8] = b"rustc version ";
        let at = object.windows(VERSION.len()).position(|window| window == VERSION);
        let text = at
            .and_then(|at| object.get(at + VERSION.len()..))
            .unwrap_or_default();
        let version = text
            .iter()
            .take_while(|byte| !byte.is_ascii_whitespace() && **byte != 0);
        Self(version.map(|byte| char::from(*byte)).collect())
    }
}

/// Holds rows of a table, each with values by what they are, against what is recorded.
///
/// # Errors
/// Something has grown, or has become much less, or is not recorded: the message says what to write into the file.
pub fn hold(table: &str, rows: &[(String, Vec<(&str, u64)>)], compiler: &Compiler) -> anyhow::Result<()> {
    let file: File = toml::from_str(RECORDED).with_context(|| FILE.to_owned())?;
    let same_compiler = file.compiler == compiler.0;
    if !same_compiler {
        let version = format!("rustc {}", compiler.0);
        measured(
            UNKNOWN,
            table,
            &version,
            format!("recorded with rustc {}", file.compiler),
        );
    }
    let recorded = file.tables.get(table);
    let mut problems = String::new();
    for (name, values) in rows {
        let row = recorded.and_then(|rows| rows.get(name));
        let known = |what: &str| row.and_then(|row| row.values.get(what)).copied();
        let compared = values
            .iter()
            .filter(|(what, _)| same_compiler || CALLS.contains(what));
        let wrong: Vec<String> = compared
            .filter_map(|(what, value)| judge(what, known(what), *value))
            .collect();
        if !wrong.is_empty() {
            let values: Vec<String> = values
                .iter()
                .map(|(what, value)| format!("{what:?} = {value}"))
                .collect();
            problems += &format!(
                "{name}: {}\n  {name:?} = {{ {}, why = \"…\" }}\n",
                wrong.join(", "),
                values.join(", ")
            );
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "{problems}Make it less again, or write these lines into [{table}] of {FILE}, with the reason for what has grown"
    )
}

/// What is wrong with a value, if anything is.
fn judge(what: &str, recorded: Option<u64>, value: u64) -> Option<String> {
    let Some(recorded) = recorded else {
        return Some(format!("{value} {what}, of which nothing is recorded"));
    };
    if value > recorded {
        Some(format!(
            "{value} {what}, more than the {recorded} that are recorded"
        ))
    } else if value * 10 < recorded * 9 {
        Some(format!(
            "{value} {what}, much less than the {recorded} that are recorded"
        ))
    } else {
        None
    }
}

/// What the verifier went through on a kernel (`6.18`), for programs loaded with one combination of constants; said aloud where
/// nothing is recorded of that kernel.
///
/// # Errors
/// As of [`hold`].
pub fn hold_verified(
    kernel: &str,
    combination: &str,
    programs: &[(String, u64)],
    compiler: &Compiler,
) -> anyhow::Result<()> {
    let table = format!("verified with {combination}");
    let file: File = toml::from_str(RECORDED).with_context(|| FILE.to_owned())?;
    let rows = file.tables.get(&table);
    if !rows.is_some_and(|rows| rows.values().any(|row| row.values.contains_key(kernel))) {
        measured(UNKNOWN, &table, kernel, "nothing is recorded of this kernel");
        return Ok(());
    }
    let rows: Vec<_> = programs
        .iter()
        .map(|(name, verified)| (name.clone(), vec![(kernel, *verified)]))
        .collect();
    hold(&table, &rows, compiler)
}
