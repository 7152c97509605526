//! `why`.

use crate::api::explain::Answer;
use crate::cli::screen::{Colour, Screen};
use crate::cli::units::clean;

/// What becomes of a packet: a line for each decision, then what follows.
pub(in crate::cli) fn why(screen: &Screen, answer: &Answer) -> String {
    let mut lines = vec![
        ("packet", answer.packet.clone()),
        ("comes in by", answer.interface.clone()),
    ];
    lines.extend(
        answer
            .decisions
            .iter()
            .map(|decision| (decision.about.as_str(), decision.says.clone())),
    );
    lines.push(("action", answer.action.clone()));
    let width = lines
        .iter()
        .map(|(about, _)| about.chars().count())
        .max()
        .unwrap_or(0);
    let mut page: String = lines
        .iter()
        .map(|(about, says)| format!("{:width$}  {}\n", clean(about), clean(says)))
        .collect();
    let colour = match &*answer.action {
        "drop" => Colour::Bad,
        "pass" => Colour::Notice,
        _ => Colour::Good,
    };
    let outcome = screen.paint(colour, &clean(&answer.outcome));
    page += &format!("\n{outcome}: {}\n", clean(&answer.meaning));
    page
}
