//! What is: how many connections the table holds, by service number and backend id.

use std::collections::HashMap;

use lb_common::tick::Tick;

use crate::dataplane::ConnectionTable;

/// Entries of the connection table, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    entries: HashMap<(u16, u16), u64>,
    open: HashMap<u16, u64>,
    total_open: u64,
}

impl Observed {
    /// Counts the table's entries: a pass over its memory, about a millisecond for an empty table of a million; each entry
    /// costs two hash map updates on top.
    pub fn count(table: &ConnectionTable, now: Tick) -> Self {
        let mut observed = Self::default();
        for connection in table.iter(now) {
            observed.note(connection.service, connection.backend, connection.is_open());
        }
        observed
    }

    fn note(&mut self, service: u16, backend: u16, open: bool) {
        *self.entries.entry((service, backend)).or_default() += 1;
        if open {
            *self.open.entry(backend).or_default() += 1;
            self.total_open += 1;
        }
    }

    /// Connections of a backend that are not over.
    pub fn open(&self, backend: u16) -> u64 {
        self.open.get(&backend).copied().unwrap_or(0)
    }

    /// All connections that are not over.
    pub fn total_open(&self) -> u64 {
        self.total_open
    }

    /// Whether any entry names this backend, over or not: its id must not be given to another one.
    pub fn names_backend(&self, backend: u16) -> bool {
        self.entries.keys().any(|(_, named)| *named == backend)
    }

    /// Whether any entry names this service, over or not: its number must not be given to another one.
    pub fn names_service(&self, service: u16) -> bool {
        self.entries.keys().any(|(named, _)| *named == service)
    }

    #[cfg(test)]
    pub(crate) fn with(entries: &[(u16, u16)]) -> Self {
        let mut observed = Self::default();
        for (service, backend) in entries {
            observed.note(*service, *backend, true);
        }
        observed
    }
}
