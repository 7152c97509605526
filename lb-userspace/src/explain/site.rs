//! Names for the program's numbers.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::api::Refusal;
use crate::dataplane::{BackendEntry, Forwarding, ServiceEntry};
use crate::neighbours::NextHop;

/// All that is named, as it was at one moment.
#[derive(Debug, Clone, Default)]
pub struct Site {
    services: HashMap<u16, String>,
    backends: HashMap<u16, Backend>,
    interfaces: Vec<Interface>,
    /// How long a tick of the connection table lasts, in ms.
    tick: u64,
    /// What time it is in the connection table.
    now: u16,
}

/// A backend of one service.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pub(super) id: u16,
    pub(super) name: String,
    service: u16,
    pub(super) endpoint: SocketAddr,
    pub(super) forwarding: Forwarding,
    pub(super) next_hop: Option<NextHop>,
}

/// An interface that the program is attached to, or that leads to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its address.
    pub mac: [u8; 6],
}

impl Site {
    /// With interfaces, those that the program is attached to first; `now` and the length of a tick, in ms, for what is left of
    /// a connection's time.
    pub fn new(interfaces: Vec<Interface>, now: u16, tick: u64) -> Self {
        Self {
            interfaces,
            now,
            tick,
            ..Self::default()
        }
    }

    /// Adds a service as the tables have it: its name, and those of its backends by id.
    pub fn add(&mut self, entry: &ServiceEntry, name: &str, backend: impl Fn(&BackendEntry) -> String) {
        let listener = crate::config::shown::listener(entry.vip, &entry.ports);
        let protocol = crate::api::types::word(&entry.protocol);
        self.services
            .insert(entry.number, format!("{name} ({protocol} {listener})"));
        for known in &entry.backends {
            let named = Backend {
                id: known.id,
                name: backend(known),
                service: entry.number,
                endpoint: known.endpoint,
                forwarding: known.forwarding,
                next_hop: known.next_hop,
            };
            self.backends.insert(known.id, named);
        }
    }

    /// The interface of this name, or with this index, or the first one.
    pub(super) fn interface(&self, name: Option<&str>, index: Option<u32>) -> Result<&Interface, Refusal> {
        let found = match (name, index) {
            (Some(name), _) => self.interfaces.iter().find(|it| it.name == name),
            (None, Some(index)) => {
                let there = self.interfaces.iter().find(|it| it.index == index);
                there.or(self.interfaces.first())
            }
            (None, None) => self.interfaces.first(),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = self.interfaces.iter().map(|it| &*it.name).collect();
            Refusal::Unknown(format!(
                "the program is not on interface {:?}; it is on {}",
                name.unwrap_or_default(),
                names.join(", ")
            ))
        })
    }

    pub(super) fn interface_name(&self, index: u32) -> String {
        let known = self.interfaces.iter().find(|it| it.index == index);
        known.map_or_else(|| format!("interface {index}"), |it| it.name.clone())
    }

    pub(super) fn service_name(&self, number: u16) -> String {
        let known = self.services.get(&number).cloned();
        known.unwrap_or_else(|| format!("service {number}"))
    }

    pub(super) fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(&id)
    }

    pub(super) fn backend_name(&self, id: u16) -> String {
        match self.backend(id) {
            Some(known) if known.endpoint.port() == 0 => format!("{} ({})", known.name, known.endpoint.ip()),
            Some(known) => format!("{} ({})", known.name, known.endpoint),
            None => format!("backend {id}"),
        }
    }

    /// A backend of a service by its name.
    pub(super) fn backend_of(&self, service: u16, name: &str) -> Result<&Backend, Refusal> {
        let of_service = || self.backends.values().filter(|it| it.service == service);
        of_service().find(|it| it.name == name).ok_or_else(|| {
            let mut names: Vec<_> = of_service().map(|it| &*it.name).collect();
            names.sort_unstable();
            Refusal::Unknown(format!(
                "{} has no backend {name:?}; it has {}",
                self.service_name(service),
                names.join(", ")
            ))
        })
    }

    /// Seconds until a moment of the connection table; 0: it is over.
    pub(super) fn seconds_until(&self, tick: u16) -> u64 {
        let ticks = tick.wrapping_sub(self.now) as i16;
        u64::try_from(ticks).unwrap_or(0) * self.tick / 1000
    }
}
