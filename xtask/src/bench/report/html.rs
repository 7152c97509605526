//! The report as a page that needs nothing from elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::super::measurement::Section;
use super::tables::{self, Table};
use super::{Report, charts, utc};

const STYLE: &str = "body { font: 15px/1.4 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }\n\
    table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .15em .7em; border-bottom: 1px solid #ddd; \
    text-align: left; vertical-align: top } .figure { text-align: right; font-variant-numeric: tabular-nums }\n\
    .missed { background: #fbdada } .met { background: #e2f3df } .none { color: #888 }\n\
    .charts { display: flex; flex-wrap: wrap; gap: 1em } svg { max-width: 100%; height: auto }\n";

pub(super) fn page(report: &Report) -> Result<String> {
    let kind = if report.quick { "quick" } else { "full" };
    let title = format!("Bench of {} UTC, a {kind} run", utc(report.began));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         <h1>{title}</h1>\n"
    );
    page.push_str(&machine(report));
    for failure in &report.failures {
        let _ = writeln!(page, "<p class=\"missed\">Not measured: {}</p>", escaped(failure));
    }
    page.push_str(
        "<p>Medians, and in brackets the quartiles. Candidates took turns, round by round; ratios are medians of each round's \
         ratio, and only of what was measured alike.</p>\n<h2>What must be reached</h2>\n",
    );
    page.push_str(&table(&tables::of_targets(&report.measurements), class_of_target));
    let _ = writeln!(page, "<p>{}</p>", escaped(tables::FLOOR));
    for section in Section::ALL {
        let lines = tables::of_section(section, &report.measurements);
        if lines.lines.is_empty() {
            continue;
        }
        let _ = writeln!(page, "<h2>{}</h2>", section.title());
        page.push_str(&conditions(report, section));
        page.push_str("<div class=\"charts\">\n");
        for chart in charts::of_section(section, &report.measurements)? {
            page.push_str(&chart);
        }
        page.push_str("</div>\n");
        page.push_str(&table(&lines, |_| ""));
    }
    page.push_str("</html>\n");
    Ok(page)
}

fn machine(report: &Report) -> String {
    let facts = report.machine.facts().iter();
    let lines: String = facts
        .map(|(name, value)| format!("<tr><th>{}<td>{}\n", escaped(name), escaped(value)))
        .collect();
    format!("<table>\n{lines}</table>\n")
}

/// The conditions of a section's measurements that are not the machine's, and all the values that they had.
fn conditions(report: &Report, section: Section) -> String {
    let of_machine = report.machine.conditions();
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for measurement in report.measurements.iter().filter(|of| of.key.section == section) {
        for (name, value) in measurement.conditions.iter() {
            let known = values.entry(name).or_default();
            if of_machine.iter().all(|(of_machine, _)| of_machine != name) && !known.contains(&value) {
                known.push(value);
            }
        }
    }
    let said = values.into_iter().filter(|(_, values)| !values.is_empty());
    let said = said.map(|(name, values)| escaped(&format!("{name}: {}", values.join(" or "))));
    let said: Vec<String> = said.collect();
    if said.is_empty() {
        return String::new();
    }
    format!("<p>{}</p>\n", said.join("; "))
}

fn class_of_target(line: &[String]) -> &'static str {
    match line.last().map(String::as_str) {
        Some("MISSED") => "missed",
        Some(verdict) if verdict.starts_with("met") => "met",
        _ => "none",
    }
}

fn table(table: &Table, class: impl Fn(&[String]) -> &'static str) -> String {
    let cells = |cells: &[String], tag: &str| -> String {
        let cells = cells.iter().enumerate();
        let cells = cells.map(|(column, text)| {
            let figure = if column < table.words {
                ""
            } else {
                " class=\"figure\""
            };
            format!("<{tag}{figure}>{}</{tag}>", escaped(text))
        });
        cells.collect()
    };
    let mut text = format!("<table>\n<tr>{}</tr>\n", cells(&table.headings, "th"));
    for line in &table.lines {
        let _ = writeln!(text, "<tr class=\"{}\">{}</tr>", class(line), cells(line, "td"));
    }
    text + "</table>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
