//! A step as a line.

use std::fmt;
use std::time::Duration;

use super::{Effect, Fate, Remap, Step, Subject};
use crate::numbers::{count, plural};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.subject {
            Subject::Service => "service ",
            Subject::Backend => "backend ",
            Subject::Vip => "VIP ",
            Subject::Site => "site",
        })?;
        write!(f, "{}: {}", self.name, self.change)?;
        for effect in &self.effects {
            write!(f, "; {effect}")?;
        }
        match &self.remap {
            Some(remap) => write!(f, "; {remap}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let its = plural(self.connections, "connection");
        let one = self.connections == 1;
        let verb = |of_one: &'static str, of_many: &'static str| if one { of_one } else { of_many };
        if self.connections == 0 {
            return f.write_str("it has no connections");
        }
        match (self.fate, self.reset_in_seconds) {
            (Fate::Stay, _) => write!(f, "its {its} {} with it", verb("stays", "stay")),
            (Fate::Drain, None) => write!(
                f,
                "its {its} {} on until {}",
                verb("goes", "go"),
                verb("it ends", "they end")
            ),
            (Fate::Drain, Some(seconds)) => write!(
                f,
                "its {its} {} {} to end, then {} reset",
                verb("has", "have"),
                humantime::format_duration(Duration::from_secs(seconds)),
                verb("it is", "they are")
            ),
            (Fate::Reset, _) => write!(f, "its {its} {} reset", verb("is", "are")),
            (Fate::Move, _) => write!(
                f,
                "its {its} {} to {}",
                verb("moves", "move"),
                verb("another backend", "other backends")
            ),
            (Fate::Cut, _) => write!(
                f,
                "its {its} {} cut off, since the kernel's tables cannot hold both it and what is wanted",
                verb("is", "are")
            ),
            (Fate::Unreached, _) => write!(
                f,
                "its {its} {} on only if somebody else leads {} packets here",
                verb("goes", "go"),
                verb("its", "their")
            ),
        }
    }
}

impl fmt::Display for Remap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stateless {
            return f.write_str("so many of its clients move, since it remembers no connection");
        }
        let its = plural(self.connections, "connection");
        write!(
            f,
            "of its {its} {} would move if {} not remembered",
            count(self.elsewhere),
            if self.connections == 1 {
                "it were"
            } else {
                "they were"
            }
        )?;
        match self.elsewhere_before {
            0 => Ok(()),
            before => write!(
                f,
                " ({} {} not where the present slots lead, either)",
                count(before),
                if before == 1 { "is" } else { "are" }
            ),
        }
    }
}

impl Remap {
    /// What a step says of it: `33.2 % of its slots change hands, once web3 is up`.
    pub(super) fn change(&self) -> String {
        let percent = f64::from(self.changed_ppm) / 10_000.0;
        let share = if percent < 0.1 {
            "under 0.1 %".to_owned()
        } else {
            format!("{percent:.1} %")
        };
        let when = match self.once_up.as_slice() {
            [] => String::new(),
            [one] => format!(" once {one} is up"),
            many => format!(" once {} are up", many.join(", ")),
        };
        let size = if self.slots_before == self.slots_after {
            String::new()
        } else {
            format!(
                ", of which there are {} instead of {}",
                self.slots_after, self.slots_before
            )
        };
        format!("{share} of its slots change hands{when}{size}")
    }
}
