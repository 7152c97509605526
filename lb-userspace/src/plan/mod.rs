//! What a change would do: a value, made of what is and what is to be ([`make`]), and nothing else. `lbctl plan` prints it;
//! whatever is put in force has one, and that is what the log says about it.
//!
//! What becomes of connections follows from what the kernel's tables hold before and after, backend by backend, and not from
//! the words of the configuration; so nothing that touches a connection can be left out because nobody thought of the key.

mod backends;
mod draft;
mod fates;
mod live;
mod make;
mod services;
mod slots;
#[cfg(test)]
mod tests;
mod vips;
mod words;

use serde::{Deserialize, Serialize};

pub use make::{Outlook, State, make};

/// What a change does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What becomes different, service by service; empty: nothing.
    pub steps: Vec<Step>,
    /// What becomes of the connections that there are, in all.
    pub impact: Impact,
}

/// One thing that becomes different. Printed as a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What kind of thing it is.
    pub subject: Subject,
    /// Its name: `www`, `www/web1`, `203.0.113.10`; empty for the site.
    pub name: String,
    /// What becomes of it, in words: `weight 1 becomes 3`.
    pub change: String,
    /// What becomes of its connections.
    pub effects: Vec<Effect>,
    /// Whose the slots of a service are that chooses by hashing, before and after.
    pub remap: Option<Remap>,
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A service.
    Service,
    /// A backend of a service.
    Backend,
    /// A VIP that is managed.
    Vip,
    /// The site that is handed to the web servers.
    Site,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// How many: those that are open now.
    pub connections: u64,
    /// What becomes of them.
    pub fate: Fate,
    /// Of those that drain: the seconds until what is left is reset; `None`: never.
    pub reset_in_seconds: Option<u64>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Its backend takes no part any more, but may come back; the connection stays with it.
    Stay,
    /// It goes on until it ends; its backend gets no new ones.
    Drain,
    /// Its client's next packet is answered with a RST, or an ICMP port unreachable.
    Reset,
    /// Its next packet goes to another backend.
    Move,
    /// Its backend leaves the tables at once: packets go elsewhere or nowhere.
    Cut,
    /// It goes on if its packets still come here, which is no longer this balancer's doing.
    Unreached,
}

/// What becomes of connections, in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Open connections of all services when the plan was made; 0 if they were not counted, since none is touched.
    pub connections: u64,
    /// Those that stay with a backend that takes no part.
    pub stay: u64,
    /// Those that drain.
    pub drain: u64,
    /// Those that are reset.
    pub reset: u64,
    /// Those that move.
    #[serde(rename = "move")]
    pub moved: u64,
    /// Those that are cut off.
    pub cut: u64,
    /// Those whose VIP is taken off.
    pub unreached: u64,
    /// Those that would move if they were not remembered.
    pub move_without_state: u64,
}

/// The slots of a service that chooses by hashing, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remap {
    /// How many slots there were.
    pub slots_before: u32,
    /// How many there are.
    pub slots_after: u32,
    /// How much of all hashes gets another backend, in parts of a million.
    pub changed_ppm: u32,
    /// The service's open connections.
    pub connections: u64,
    /// Those that the new slots would send to another backend than the one they have.
    pub elsewhere: u64,
    /// Those of them that the old slots would have sent elsewhere, too.
    pub elsewhere_before: u64,
    /// Whether the service remembers nothing, so that it is not only a question of what would be.
    pub stateless: bool,
    /// Backends that are counted as up though no probe has succeeded yet: `web3`.
    pub once_up: Vec<String>,
}

impl Plan {
    /// Whether nothing becomes different.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A line for each step.
    pub fn lines(&self) -> Vec<String> {
        self.steps.iter().map(ToString::to_string).collect()
    }

    /// Adds what does not follow from the state: it touches no connection.
    pub fn note(&mut self, subject: Subject, name: impl Into<String>, change: impl Into<String>) {
        self.steps.push(Step::new(subject, name, change));
    }
}

impl Step {
    fn new(subject: Subject, name: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            subject,
            name: name.into(),
            change: change.into(),
            effects: Vec::new(),
            remap: None,
        }
    }

    /// Whether connections are touched, or would be if they were not remembered.
    pub fn touches(&self) -> bool {
        self.remap.is_some() || self.effects.iter().any(|effect| effect.connections > 0)
    }
}
