//! What the program said of a packet, in words.

use lb_common::abi::{Listener, Membership};
use lb_common::connection_table::Value;
use lb_common::explain::{Answered, Decision, Entered, Notes, Way};
use lb_common::outcome::{Action, Outcome};

use super::packet::{addresses, mac, sockets};
use super::site::Site;
use crate::api::explain::Decision as Line;

/// A packet, and what was said of it.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Names.
    pub site: &'a Site,
    /// What the program said.
    pub notes: &'a Notes,
    /// The frame as it came, or its beginning.
    pub came: &'a [u8],
    /// The frame as it left, where that is known.
    pub left: Option<&'a [u8]>,
}

impl Told<'_> {
    /// The service that the packet belongs to.
    pub fn service(&self) -> Option<String> {
        let number = self.notes.decisions().find_map(|(decision, first, _)| {
            matches!(decision, Decision::FromClient | Decision::FromBackend).then_some(first as u16)
        });
        number.map(|number| self.site.service_name(number))
    }

    /// The backend that it goes to, or comes from. None, if it goes nowhere.
    pub fn backend(&self) -> Option<String> {
        let mut id = None;
        for (decision, first, second) in self.notes.decisions() {
            match decision {
                Decision::FromClient if second != 0 => id = Some(Value(second).backend()),
                Decision::FromBackend => id = Some(Membership::unpack(first).backend),
                Decision::Slot => id = Some(second as u16),
                Decision::Entered if second != 0 => id = Some(Value(second).backend()),
                Decision::Concerns => id = Some(first as u16),
                _ => {}
            }
        }
        // Where two slots differ, only the frame tells: the one whose address it has.
        let differ = self.last(Decision::Differ);
        if let (Some((now, before)), Some(left)) = (differ, self.left) {
            let to = |id: u64| {
                let hop = self.site.backend(id as u16).and_then(|it| it.next_hop);
                hop.is_some_and(|hop| left.starts_with(&hop.destination_mac))
            };
            id = [before, now].into_iter().find(|id| to(*id)).map(|id| id as u16);
        }
        let goes = self.outcome().is_some_and(|outcome| {
            outcome.action() != Action::Drop && !is_refusal(outcome) && outcome != Outcome::NoConnection
        });
        id.filter(|_| goes).map(|id| self.site.backend_name(id))
    }

    /// What became of it.
    pub fn outcome(&self) -> Option<Outcome> {
        let (outcome, _) = self.last(Decision::Outcome)?;
        Outcome::from_index(u32::try_from(outcome).ok()?)
    }

    fn last(&self, wanted: Decision) -> Option<(u64, u64)> {
        let all = self.notes.decisions();
        all.filter(|(decision, ..)| *decision == wanted)
            .last()
            .map(|(_, first, second)| (first, second))
    }

    /// Each decision, in order.
    pub fn decisions(&self) -> Vec<Line> {
        let mut lines: Vec<_> = self
            .notes
            .decisions()
            .flat_map(|(decision, first, second)| self.line(decision, first, second))
            .map(|(about, says)| line(about, says))
            .collect();
        if lines.is_empty() {
            lines.push(line("service", "none that has to do with it".to_owned()));
        }
        let Some((outcome, interface)) = self.last(Decision::Outcome) else {
            return lines;
        };
        lines.extend(self.rewrite().map(|says| line("rewrite", says)));
        let redirects = Outcome::from_index(outcome as u32).is_some_and(|it| it.action() == Action::Redirect);
        if redirects {
            let through = self.site.interface_name(interface as u32);
            let says = match self.left.and_then(|left| left.get(..6)) {
                Some(to) => format!("{} on {through}", mac(to)),
                None => format!("on {through}"),
            };
            lines.push(line("next hop", says));
        }
        lines
    }

    /// What a decision is about, and what it says; of a packet's first one two lines.
    fn line(&self, decision: Decision, first: u64, second: u64) -> Vec<(&'static str, String)> {
        let (site, value) = (self.site, Value(second));
        match decision {
            Decision::FromClient => vec![
                ("service", self.listener(first)),
                ("connection", self.connection(value)),
            ],
            Decision::FromBackend => {
                let membership = Membership::unpack(first);
                let backend = site.backend_name(membership.backend);
                let of = site.service_name(membership.service);
                vec![
                    ("from", format!("{backend}, a backend of {of}")),
                    ("connection", self.connection(value)),
                ]
            }
            Decision::NotKept => vec![(
                "connection",
                format!(
                    "there was one, {}, but this packet begins another, and it is over or its backend takes none",
                    self.entry(Value(first))
                ),
            )],
            Decision::Slot => vec![("slot", self.slot(first, second))],
            Decision::PassedOver => vec![("slot", self.passed_over(first as u16, second))],
            Decision::Differ => vec![(
                "slot",
                format!(
                    "now it would be {}, before the last change it was {}: that one, while it is up",
                    site.backend_name(first as u16),
                    site.backend_name(second as u16)
                ),
            )],
            Decision::Flooded => vec![(
                "flood",
                "the connection table is flooded, so that hashing chooses for everybody".to_owned(),
            )],
            Decision::OwnPort => vec![("port", own_port(&site.backend_name(first as u16), second))],
            Decision::Entered => vec![("entry", self.entered(first, value))],
            Decision::Untracked => vec![("answer", untracked(second != 0))],
            Decision::Route => vec![("route", self.route(first, second))],
            Decision::Mtu => vec![("size", self.size(first, second))],
            Decision::Concerns => vec![("backend", site.backend_name(first as u16))],
            Decision::Outcome => Vec::new(),
        }
    }

    fn listener(&self, packed: u64) -> String {
        let name = self.site.service_name(packed as u16);
        if packed & Listener::STATELESS != 0 {
            return name + ", which remembers no connections";
        }
        name
    }

    fn connection(&self, value: Value) -> String {
        if value.is_entry() {
            self.entry(value)
        } else {
            "none".to_owned()
        }
    }

    fn entry(&self, value: Value) -> String {
        let backend = self.site.backend_name(value.backend());
        let seconds = self.site.seconds_until(value.deadline().0);
        format!("{} with {backend}, {seconds} s left", value.state().name())
    }

    fn slot(&self, packed: u64, chosen: u64) -> String {
        let (position, count) = (packed & 0xffff_ffff, packed >> 32);
        let how = match Way::from_number(chosen >> 16) {
            Some(Way::Round) => "next in the round",
            Some(Way::Hash) => "by hashing",
            Some(Way::Least) => "of two the one with fewer connections; asked again it may be another",
            Some(Way::Chance) => "by chance; asked again it may be another",
            None => "in a way that this lbd does not know",
        };
        let backend = self.site.backend_name(chosen as u16);
        format!("{} of {count}, {how}: {backend}", position + 1)
    }

    fn passed_over(&self, id: u16, why: u64) -> String {
        let backend = self.site.backend_name(id);
        let why = match Outcome::from_index(why as u32) {
            Some(Outcome::HairpinToSelf) => "it is the client itself",
            Some(Outcome::SharedEndpointCollision) => {
                "the client's port already talks to it by way of another service"
            }
            Some(Outcome::PortsExhausted) => "all own ports towards it are taken",
            _ => "it cannot be had",
        };
        format!("not {backend}: {why}")
    }

    fn entered(&self, entered: u64, value: Value) -> String {
        match Entered::from_number(entered) {
            Some(Entered::Stored) => format!("{}, from now on", self.entry(value)),
            Some(Entered::Exists) => format!("there is one already: {}", self.entry(value)),
            Some(Entered::Full) | None => "there is no room for one".to_owned(),
        }
    }

    fn route(&self, answered: u64, interface: u64) -> String {
        match Answered::from_number(answered) {
            Some(Answered::Found) => format!("through {}", self.site.interface_name(interface as u32)),
            Some(Answered::NoNeighbour) => "there is one, but the neighbour is not known yet".to_owned(),
            Some(Answered::NoRoute) | None => "none that leads on from here".to_owned(),
        }
    }

    fn size(&self, interface: u64, fits: u64) -> String {
        let interface = self.site.interface_name(interface as u32);
        match fits {
            0 => format!("fits into {interface}"),
            1 => format!("too big for {interface}: the kernel cuts it into fragments"),
            room => format!("too big for {interface}, which has room for {room} bytes"),
        }
    }

    /// What is changed in the packet.
    fn rewrite(&self) -> Option<String> {
        let outcome = self.outcome()?;
        let left = self.left?;
        if left == self.came {
            return None;
        }
        if is_refusal(outcome) || matches!(outcome, Outcome::TooBig | Outcome::EchoAnswered) {
            return Some(format!("becomes the answer: {}", super::packet::words(left)));
        }
        let inside = addresses(left)?;
        if left.len() > self.came.len() {
            return Some(format!("put into a packet {} → {}", inside.0, inside.1));
        }
        let (before, after) = (sockets(self.came)?, sockets(left)?);
        let mut changes = Vec::new();
        if before.0 != after.0 {
            changes.push(format!("source {} becomes {}", before.0, after.0));
        }
        if before.1 != after.1 {
            changes.push(format!("destination {} becomes {}", before.1, after.1));
        }
        if changes.is_empty() {
            changes.push("the frame's own addresses only".to_owned());
        }
        Some(changes.join(", "))
    }
}

/// Whether the packet is answered in a backend's stead.
fn is_refusal(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::RefusedNoBackend | Outcome::ResetBackendDown | Outcome::FullNatUnknown
    )
}

fn own_port(backend: &str, port: u64) -> String {
    if port == 0 {
        format!("all own ports towards {backend} are taken")
    } else {
        format!("{port} of the balancer's own, towards {backend}")
    }
}

fn untracked(is_answer: bool) -> String {
    if is_answer {
        "to a connection without an entry, of which the service has some".to_owned()
    } else {
        "to none that is balanced: a health probe's, or direct access".to_owned()
    }
}

fn line(about: &str, says: String) -> Line {
    Line {
        about: about.to_owned(),
        says,
    }
}

#[cfg(test)]
mod tests;
