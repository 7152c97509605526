//! The report as text.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, presets};

use super::super::measurement::Section;
use super::{Report, tables, utc};

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for section in Section::ALL {
        let table = tables::of_section(section, &report.measurements);
        if !table.lines.is_empty() {
            let _ = writeln!(text, "{}\n{}\n", section.title(), drawn(table));
        }
    }
    let targets = tables::of_targets(&report.measurements);
    let _ = writeln!(
        text,
        "What must be reached\n{}\n{}\n",
        drawn(targets),
        tables::FLOOR
    );
    for (name, value) in report.machine.facts() {
        let _ = writeln!(text, "{name}: {value}");
    }
    let kind = if report.quick { "quick" } else { "full" };
    let _ = writeln!(text, "began: {} UTC, a {kind} run", utc(report.began));
    let _ = writeln!(
        text,
        "Medians, and in brackets the quartiles. Ratios are medians of each round's ratio; only they mean anything on another machine."
    );
    for failure in &report.failures {
        let _ = writeln!(text, "NOT MEASURED: {failure}");
    }
    text
}

fn drawn(table: tables::Table) -> String {
    let mut drawn = comfy_table::Table::new();
    drawn.load_style(presets::NOTHING);
    let figures = table.words..table.headings.len();
    drawn.set_header(table.headings);
    for column in figures {
        if let Some(column) = drawn.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines {
        drawn.add_row(line);
    }
    drawn.trim_fmt()
}
