//! From what should be, and who has which number, to what the kernel's tables must hold. Pure but for the numbers that it
//! gives away.

mod entries;
mod identities;
mod key;
mod leases;
mod make_way;
mod slot_tables;
mod written;

use std::time::Duration;

pub use entries::{entries, next_hop};
pub use identities::{BackendIdentity, Exhausted, Identities, Parting, ServiceIdentity, Wanted, add, since};
pub use key::{BackendKey, ServiceKey, Way};
pub use leases::NoLease;
pub use slot_tables::SlotTables;

use crate::config::Protocol;
use crate::desired_state::DesiredService;

/// What needs numbers; `ticks` turns a timeout into ticks.
pub fn wanted(desired: &[DesiredService], ticks: impl Fn(Duration) -> u16) -> Vec<Wanted> {
    let wanted = |DesiredService { service, .. }: &DesiredService| {
        let timeouts = &service.timeouts;
        let established = match service.protocol {
            Protocol::Tcp => timeouts.established,
            Protocol::Udp => timeouts.udp,
        };
        Wanted {
            key: ServiceKey::of(service),
            ports: service.ports.clone(),
            stateless: service.stateless,
            source: service.source_address,
            name: service.name.clone(),
            backends: service
                .backends
                .iter()
                .filter_map(|backend| Some((BackendKey::of(service, backend)?, backend.name.clone())))
                .collect(),
            timeouts: [timeouts.half_open, established, timeouts.closing].map(&ticks),
        }
    };
    desired.iter().map(wanted).collect()
}

#[cfg(test)]
mod tests;
