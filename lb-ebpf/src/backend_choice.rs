//! Which backend a connection goes to that has none yet: a slot of its service.

use core::num::{NonZeroU32, NonZeroU64};

use lb_common::abi::{MAX_SIBLINGS, Service};
use lb_common::connection_table::entry::ipv4_key;
use lb_common::hash::scale_high;
use lb_common::outcome::Outcome;

use crate::connection_table;
use crate::maps::{SELECTION_SEED, SERVICE_STATES, element};
use crate::service_lookup::Tables;

/// A service's slots in the pool: at least one.
#[derive(Clone, Copy)]
pub struct Slots {
    first: u32,
    count: NonZeroU32,
}

impl Slots {
    /// `None`: no backend can take a connection.
    #[inline(always)]
    pub fn of(service: &Service) -> Option<Self> {
        Some(Self {
            first: service.first_slot,
            count: NonZeroU32::new(service.slots)?,
        })
    }

    /// The next backend in the service's round: exact, whichever CPUs the connections arrive on.
    #[inline(always)]
    pub fn by_cursor(self, tables: &Tables, service: u16) -> Result<u16, Outcome> {
        let state = element(&SERVICE_STATES, u32::from(service)).ok_or(Outcome::Impossible)?;
        let slot = state.cursor.fetch_increment() % NonZeroU64::from(self.count);
        tables.slot(self.first + slot as u32)
    }

    /// The backend that hashing gives, always the same for the same client: for packets whose choice cannot be
    /// remembered, or is not known any more.
    #[inline(always)]
    pub fn by_hash(self, tables: &Tables, key: &[u64; 1]) -> Result<u16, Outcome> {
        tables.slot(self.first + scale_high(SELECTION_SEED.load().hash(key), self.count.get()))
    }
}

/// Whether the client already talks, from the same port, to the same endpoint by way of another service that shares it.
/// Its answers could not be told apart. Not inlined: only connections to shared endpoints pay for it.
#[inline(never)]
pub fn collides(tables: &Tables, service: u16, backend: u16, client: u32, client_port: u16) -> bool {
    let Some(record) = tables.backend(backend) else {
        return false;
    };
    let [a, b, c, d, ..] = record.address;
    let address = u32::from_ne_bytes([a, b, c, d]);
    let mut membership = tables.membership(address, u16::from_ne_bytes(record.port));
    for _ in 0..MAX_SIBLINGS {
        let Some(sibling) = membership else { return false };
        if sibling.service != service {
            let key = ipv4_key(client, client_port, sibling.service);
            let Some(home) = connection_table::home(&key) else {
                return false;
            };
            if home
                .find(&key)
                .is_some_and(|(_, value)| value.backend() == sibling.backend)
            {
                return true;
            }
        }
        membership = tables.next_membership(sibling);
    }
    false
}
