//! What is: how many connections the tables hold, by service number and backend id.

use lb_common::abi::{BACKEND_IDS, SERVICE_NUMBERS};
use lb_common::tick::Tick;

use crate::dataplane::ConnectionTable;

/// Entries of the connection tables, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// By id.
    backends: Vec<Entries>,
    /// By number.
    services: Vec<u64>,
    total_open: u64,
    wide_open: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entries {
    all: u64,
    open: u64,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            backends: vec![Entries::default(); BACKEND_IDS as usize],
            services: vec![0; SERVICE_NUMBERS as usize],
            total_open: 0,
            wide_open: 0,
        }
    }
}

impl Observed {
    /// Counts the tables' entries: a pass over their memory, about a millisecond for an empty table of a million.
    pub fn count(table: &ConnectionTable, now: Tick) -> Self {
        let mut observed = Self::default();
        for connection in table.iter(now) {
            observed.note(connection.service, connection.backend, connection.is_open());
            observed.wide_open += u64::from(connection.wide && connection.is_open());
        }
        observed
    }

    fn note(&mut self, service: u16, backend: u16, open: bool) {
        if let Some(entries) = self.services.get_mut(usize::from(service)) {
            *entries += 1;
        }
        if let Some(entries) = self.backends.get_mut(usize::from(backend)) {
            entries.all += 1;
            entries.open += u64::from(open);
        }
        self.total_open += u64::from(open);
    }

    /// Connections of a backend that are not over.
    pub fn open(&self, backend: u16) -> u64 {
        self.of_backend(backend).open
    }

    /// All connections that are not over.
    pub fn total_open(&self) -> u64 {
        self.total_open
    }

    /// Those of them over IPv6 or to services of several ports.
    pub fn wide_open(&self) -> u64 {
        self.wide_open
    }

    /// Whether any entry names this backend, over or not: its id must not be given to another one.
    pub fn names_backend(&self, backend: u16) -> bool {
        self.of_backend(backend).all > 0
    }

    /// Whether any entry names this service, over or not: its number must not be given to another one.
    pub fn names_service(&self, service: u16) -> bool {
        self.services
            .get(usize::from(service))
            .is_some_and(|entries| *entries > 0)
    }

    fn of_backend(&self, backend: u16) -> Entries {
        self.backends
            .get(usize::from(backend))
            .copied()
            .unwrap_or_default()
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
