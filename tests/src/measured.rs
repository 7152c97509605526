//! Tables of what tests measured, printed at the end of the suite: each test adds some cells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Cells of a table by row and column.
type Cells = BTreeMap<(String, String), String>;

/// By title.
static TABLES: Mutex<BTreeMap<String, Cells>> = Mutex::new(BTreeMap::new());

/// Adds a cell to the table with this title, which tests may have in common.
pub fn measured(title: &str, row: &str, column: &str, value: impl ToString) {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let table = tables.entry(title.to_owned()).or_default();
    table.insert((row.to_owned(), column.to_owned()), value.to_string());
}

/// All tables, rows and columns sorted, since tests end in any order.
pub(crate) fn tables() -> String {
    let tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    tables
        .iter()
        .map(|(title, cells)| format!("{title}\n{}\n", table(cells)))
        .collect()
}

fn table(cells: &Cells) -> String {
    let rows: BTreeSet<&String> = cells.keys().map(|(row, _)| row).collect();
    let columns: BTreeSet<&String> = cells.keys().map(|(_, column)| column).collect();
    let first = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut text = format!("  {:first$}", "");
    for column in &columns {
        text += &format!("  {column}");
    }
    for row in rows {
        text += &format!("\n  {row:first$}");
        for column in &columns {
            let cell = cells.get(&(row.clone(), (*column).clone()));
            let width = column.len();
            text += &format!("  {:>width$}", cell.map_or("-", String::as_str));
        }
    }
    text + "\n"
}
