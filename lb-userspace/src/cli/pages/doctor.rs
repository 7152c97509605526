//! `doctor`: a line for each thing that was looked at, and below it what is wrong and what mends it.

use crate::api::types::word;
use crate::cli::screen::{Colour, Screen};
use crate::cli::units::clean;
use crate::host_checks::{Examination, Examined, Severity};

/// The whole page.
pub(in crate::cli) fn page(screen: &Screen, examination: &Examination) -> String {
    examination
        .checks
        .iter()
        .map(|examined| check(screen, examined))
        .collect()
}

fn check(screen: &Screen, examined: &Examined) -> String {
    let worst = examined.findings.iter().map(|finding| finding.severity).max();
    let (verdict, colour) = match worst {
        None if examined.seen.is_none() => ("-", Colour::Notice),
        None => ("ok", Colour::Good),
        Some(severity) => mark(severity),
    };
    let seen = examined.seen.as_deref().unwrap_or("not looked at");
    let mut text = format!(
        "{}{}{:<15}{}\n",
        screen.paint(colour, verdict),
        " ".repeat(9 - verdict.len()),
        word(&examined.check),
        clean(seen)
    );
    for finding in &examined.findings {
        let (name, colour) = mark(finding.severity);
        let begins = screen.paint(colour, name);
        let mends = if finding.severity == Severity::Note {
            "hint"
        } else {
            "fix"
        };
        text += &format!("         {begins}: {}\n", clean(&finding.what));
        text += &format!("         {mends}: {}\n", clean(&finding.fix));
    }
    text
}

fn mark(severity: Severity) -> (&'static str, Colour) {
    match severity {
        Severity::Note => ("note", Colour::Good),
        Severity::Warning => ("warning", Colour::Notice),
        Severity::Error => ("error", Colour::Bad),
    }
}
