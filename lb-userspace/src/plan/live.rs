//! The connections that there are, counted in one pass.

use std::collections::BTreeMap;

use lb_common::abi::{BACKEND_IDS, SERVICE_NUMBERS};
use lb_common::hash::Seed;

use super::slots::Slots;
use crate::dataplane::Connection;

/// Slots of one service, before and after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) before: Slots<'a>,
    pub(super) after: Slots<'a>,
}

/// What was counted. By id and number, since there may be millions of connections.
#[derive(Debug)]
pub(super) struct Live {
    /// Open connections in all.
    pub(super) all: u64,
    backends: Vec<u64>,
    services: Vec<Of>,
}

/// Of the open connections of a service: those that slots would send elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Of {
    /// All of them.
    pub(super) all: u64,
    /// Those that the new slots would.
    pub(super) elsewhere: u64,
    /// Those that the new and the old ones would.
    pub(super) elsewhere_before: u64,
}

impl Live {
    /// None at all.
    pub(super) fn none() -> Self {
        Self {
            all: 0,
            backends: vec![0; BACKEND_IDS as usize],
            services: vec![Of::default(); SERVICE_NUMBERS as usize],
        }
    }

    /// Counts those that are open; `pairs` by service number.
    pub(super) fn count(
        connections: impl Iterator<Item = Connection>,
        pairs: &BTreeMap<u16, Pair<'_>>,
        seed: &Seed,
    ) -> Self {
        let mut live = Self::none();
        let mut by_number = vec![None; SERVICE_NUMBERS as usize];
        for (number, pair) in pairs {
            if let Some(place) = by_number.get_mut(usize::from(*number)) {
                *place = Some(*pair);
            }
        }
        for connection in connections.filter(Connection::is_open) {
            live.all += 1;
            if let Some(of) = live.backends.get_mut(usize::from(connection.backend)) {
                *of += 1;
            }
            let number = usize::from(connection.service);
            let Some(of) = live.services.get_mut(number) else {
                continue;
            };
            of.all += 1;
            let Some(Some(pair)) = by_number.get(number) else {
                continue;
            };
            let elsewhere =
                |slots: Slots<'_>| slots.backend(seed, connection.client) != Some(connection.backend);
            if elsewhere(pair.after) {
                of.elsewhere += 1;
                of.elsewhere_before += u64::from(elsewhere(pair.before));
            }
        }
        live
    }

    /// Those of a backend, by id.
    pub(super) fn of_backend(&self, id: u16) -> u64 {
        self.backends.get(usize::from(id)).copied().unwrap_or(0)
    }

    /// Those of a service, by number.
    pub(super) fn of_service(&self, number: u16) -> Of {
        self.services
            .get(usize::from(number))
            .copied()
            .unwrap_or_default()
    }
}
