//! From what should be, and who has which number, to what the kernel's tables must hold. Pure but for the numbers that it
//! gives away.

mod changes;
mod entries;
mod identities;
mod key;
mod leases;

use std::time::Duration;

pub use changes::changes;
pub use entries::{entries, next_hop};
pub use identities::{BackendIdentity, Exhausted, Identities, ServiceIdentity, Wanted, add, since};
pub use key::{BackendKey, ServiceKey, Way};
pub use leases::NoLease;

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
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::api::types::BackendState;
    use crate::config::{self, test_config};
    use crate::desired_state::DesiredBackend;

    #[test]
    fn a_removed_backend_keeps_its_connections_and_gets_no_slot() {
        let mut config = test_config();
        let up = DesiredBackend {
            state: BackendState::Up,
            share: 1,
            up: true,
            reset: false,
        };
        let desired = |config: &config::Config| {
            let service = config.services[0].clone();
            vec![DesiredService {
                backends: vec![up; service.backends.len()],
                service,
            }]
        };
        let mut identities = Identities::default();
        let none = |_| Default::default();
        identities
            .adopt(&wanted(&desired(&config), |_| 9), 0, none)
            .unwrap();
        assert_eq!(
            entries(&desired(&config), &identities, &HashMap::new())[0].slots,
            [1, 2]
        );

        config.services[0].backends.remove(0);
        identities
            .adopt(&wanted(&desired(&config), |_| 9), 0, none)
            .unwrap();
        let service = &entries(&desired(&config), &identities, &HashMap::new())[0];
        assert_eq!(service.slots, [2]);
        assert_eq!(
            service.backends.iter().map(|b| (b.id, b.up)).collect::<Vec<_>>(),
            [(1, false), (2, true)]
        );

        identities.adopt(&[], 0, none).unwrap();
        let service = &entries(&[], &identities, &HashMap::new())[0];
        assert!(service.leaving && service.slots.is_empty());
    }
}
