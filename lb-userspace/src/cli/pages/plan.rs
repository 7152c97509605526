//! What a change does, or would do.

use crate::api::types::{Applied, RolledBack};
use crate::cli::screen::{Colour, Screen};
use crate::cli::units::{clean, count, plural, seconds};
use crate::plan::{Fate, Impact, Plan, Step};

/// `plan`, `--dry-run`.
pub(in crate::cli) fn would(screen: &Screen, plan: &Plan) -> String {
    if plan.is_empty() {
        return "nothing would change\n".to_owned();
    }
    page(screen, plan) + "nothing has been changed\n"
}

/// `reload`.
pub(in crate::cli) fn did(screen: &Screen, plan: &Plan) -> String {
    if plan.is_empty() {
        return "nothing changed\n".to_owned();
    }
    page(screen, plan)
}

/// `apply`.
pub(in crate::cli) fn applied(screen: &Screen, applied: &Applied) -> String {
    let mut page = did(screen, &applied.plan);
    page += &format!("{} has it now", clean(&applied.file));
    if let Some(kept) = &applied.kept {
        page += &format!("; what was there is kept as {}", clean(kept));
    }
    page.push('\n');
    if let Some(unconfirmed) = &applied.unconfirmed {
        let line = format!(
            "goes back by itself in {} unless confirmed: lbctl confirm",
            seconds(unconfirmed.seconds_left)
        );
        page += &(screen.paint(Colour::Notice, &line) + "\n");
    }
    page
}

/// `rollback`.
pub(in crate::cli) fn rolled_back(screen: &Screen, back: &RolledBack) -> String {
    let mut page = did(screen, &back.plan);
    page += &format!("{} is as it was before", clean(&back.file));
    if let Some(kept) = &back.kept {
        page += &format!("; what was there is kept as {}", clean(kept));
    }
    page.push('\n');
    page
}

fn page(screen: &Screen, plan: &Plan) -> String {
    let line = |step: &Step| {
        let line = clean(&step.to_string());
        match colour(step) {
            Some(colour) => screen.paint(colour, &line) + "\n",
            None => line + "\n",
        }
    };
    let lines: String = plan.steps.iter().map(line).collect();
    format!("{lines}\n{}\n", total(&plan.impact))
}

/// By the worst of what becomes of connections.
fn colour(step: &Step) -> Option<Colour> {
    let touched = step.effects.iter().filter(|effect| effect.connections > 0);
    let breaks = |fate| matches!(fate, Fate::Reset | Fate::Move | Fate::Cut | Fate::Unreached);
    if touched.clone().any(|effect| breaks(effect.fate)) {
        Some(Colour::Bad)
    } else if touched.count() > 0 || step.remap.is_some() {
        Some(Colour::Notice)
    } else {
        None
    }
}

/// `of 1,234 open connections 1,000 go on until they end, 3 are reset`.
fn total(impact: &Impact) -> String {
    let mut parts = Vec::new();
    for (number, one, many) in [
        (impact.stay, "stays where it is", "stay where they are"),
        (impact.drain, "drains", "drain"),
        (impact.reset, "is reset", "are reset"),
        (impact.moved, "moves", "move"),
        (impact.cut, "is cut off", "are cut off"),
        (
            impact.unreached,
            "may be reached no more",
            "may be reached no more",
        ),
        (
            impact.move_without_state,
            "would move without state",
            "would move without state",
        ),
    ] {
        if number > 0 {
            parts.push(format!(
                "{} {}",
                count(number),
                if number == 1 { one } else { many }
            ));
        }
    }
    if parts.is_empty() {
        return "no live connection is touched".to_owned();
    }
    format!(
        "of {}: {}",
        plural(impact.connections, "live connection"),
        parts.join(", ")
    )
}
