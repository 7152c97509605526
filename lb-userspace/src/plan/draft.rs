//! Steps under construction.

use std::collections::BTreeSet;

use super::{Step, Subject};

/// A step, and whose connections' fate it explains.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) step: Step,
    /// Ids of backends, as they were before.
    pub(super) explains: BTreeSet<u16>,
}

/// All steps so far.
#[derive(Debug, Default)]
pub(super) struct Drafts(pub(super) Vec<Draft>);

impl Drafts {
    /// A step that has nothing to do with connections.
    pub(super) fn add(&mut self, subject: Subject, name: &str, change: impl Into<String>) {
        self.explaining(subject, name, change, []);
    }

    /// A step because of which something becomes of the connections of these backends.
    pub(super) fn explaining(
        &mut self,
        subject: Subject,
        name: &str,
        change: impl Into<String>,
        ids: impl IntoIterator<Item = u16>,
    ) {
        self.0.push(Draft {
            step: Step::new(subject, name, change),
            explains: ids.into_iter().collect(),
        });
    }

    /// The step that tells best what becomes of a backend's connections: one about the backend itself, else the first about
    /// its service.
    pub(super) fn explanation(&mut self, id: u16) -> Option<&mut Draft> {
        let mut explaining: Vec<_> = self
            .0
            .iter_mut()
            .filter(|draft| draft.explains.contains(&id))
            .collect();
        let own = explaining
            .iter()
            .position(|draft| draft.step.subject == Subject::Backend);
        if explaining.is_empty() {
            None
        } else {
            Some(explaining.swap_remove(own.unwrap_or(0)))
        }
    }
}
