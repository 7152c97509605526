//! What is: how many connections the tables hold, by service number and backend id.

use lb_common::abi::{BACKEND_IDS, SERVICE_NUMBERS};
use lb_common::tick::Tick;

use crate::dataplane::{ConnectionTable, Glance};

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

/// What is counted of one table, of which the map's size is a `u32`.
struct Tally {
    /// By id: entries in the lower half, open ones in the upper. Two of them take turns: an addition to where the last one went
    /// has to wait for it, and where there are few backends nearly all do.
    backends: [Vec<u64>; 2],
    /// By number.
    services: Vec<u32>,
    turn: usize,
}

impl Tally {
    fn new() -> Self {
        Self {
            backends: [(); 2].map(|()| vec![0; BACKEND_IDS as usize]),
            services: vec![0; SERVICE_NUMBERS as usize],
            turn: 0,
        }
    }

    #[inline(always)]
    fn note(&mut self, glance: Glance) {
        if let Some(entries) = self.services.get_mut(usize::from(glance.service)) {
            *entries += glance.entries as u32;
        }
        self.turn ^= 1;
        let backends = &mut self.backends[self.turn & 1];
        if let Some(packed) = backends.get_mut(usize::from(glance.backend)) {
            *packed += glance.entries | glance.open << 32;
        }
    }

    fn backends(&self) -> impl Iterator<Item = u64> {
        let [one, other] = &self.backends;
        one.iter().zip(other).map(|(one, other)| one + other)
    }
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
    /// Counts the tables' entries: a pass over their memory, a few milliseconds for a table of a million.
    pub fn count(table: &ConnectionTable, now: Tick) -> Self {
        let (mut narrow, mut wide) = (Tally::new(), Tally::new());
        table.glance(now, |glance| narrow.note(glance), |glance| wide.note(glance));
        let mut observed = Self::default();
        for tally in [&narrow, &wide] {
            for (sum, counted) in observed.services.iter_mut().zip(&tally.services) {
                *sum += u64::from(*counted);
            }
            for (sum, packed) in observed.backends.iter_mut().zip(tally.backends()) {
                sum.all += packed & u64::from(u32::MAX);
                sum.open += packed >> 32;
            }
        }
        observed.total_open = observed.backends.iter().map(|entries| entries.open).sum();
        observed.wide_open = wide.backends().map(|packed| packed >> 32).sum();
        observed
    }

    #[cfg(test)]
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
