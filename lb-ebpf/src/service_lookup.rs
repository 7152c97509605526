//! Which service a packet is for, or which backend it is from: the active copy of what the daemon wrote.

use lb_common::abi::{
    self, BACKEND_IDS, Backend, CopyHeader, ENDPOINT_BUCKETS, Membership, SERVICE_BUCKETS, SERVICE_NUMBERS,
    SLOT_LINES, SLOTS_PER_LINE, Service,
};
use lb_common::lookup_table::{bucket_index, ipv4_endpoint};
use lb_common::outcome::Outcome;
use lb_common::wire::ipv4::PROTOCOL_TCP;

use crate::maps::{BACKENDS, CONTROL, ENDPOINT_TABLE, SERVICE_TABLE, SERVICES, SIBLINGS, SLOTS, element};

/// The copy that this packet is judged by, from its first lookup to its last.
#[derive(Clone, Copy)]
pub struct Tables {
    copy: u32,
    header: &'static CopyHeader,
}

impl Tables {
    /// The active copy.
    #[inline(always)]
    pub fn active() -> Result<Self, Outcome> {
        let control: &'static abi::Control = element(&CONTROL, 0).ok_or(Outcome::Impossible)?;
        // SAFETY: a reference to an aligned word; the daemon flips it at any time, so it is loaded exactly once.
        let copy = unsafe { (&raw const control.active).read_volatile() } as u32;
        Self::of(copy)
    }

    /// A copy, 0 or 1, that was the active one when the packet came.
    #[inline(always)]
    pub fn of(copy: u32) -> Result<Self, Outcome> {
        let control: &'static abi::Control = element(&CONTROL, 0).ok_or(Outcome::Impossible)?;
        let copy = copy & 1;
        let header = if copy == 0 {
            &control.copies[0]
        } else {
            &control.copies[1]
        };
        Ok(Self { copy, header })
    }

    /// Which copy it is.
    #[inline(always)]
    pub fn copy(&self) -> u32 {
        self.copy
    }

    /// The number of the service that listens on an endpoint.
    #[inline(always)]
    pub fn service_number(&self, address: u32, port: u16) -> Option<u16> {
        let key = ipv4_endpoint(address, port, PROTOCOL_TCP);
        let index = bucket_index(self.header.service_seed, key, self.header.service_mask);
        element(&SERVICE_TABLE, self.copy * SERVICE_BUCKETS + index)?
            .find(key)
            .map(|number| number as u16)
    }

    /// The first of the services that an endpoint serves.
    #[inline(always)]
    pub fn membership(&self, address: u32, port: u16) -> Option<Membership> {
        let key = ipv4_endpoint(address, port, PROTOCOL_TCP);
        let index = bucket_index(self.header.endpoint_seed, key, self.header.endpoint_mask);
        element(&ENDPOINT_TABLE, self.copy * ENDPOINT_BUCKETS + index)?
            .find(key)
            .map(Membership::unpack)
    }

    /// The next of the services that an endpoint serves.
    #[inline(always)]
    pub fn next_membership(&self, membership: Membership) -> Option<Membership> {
        if membership.next == 0 {
            return None;
        }
        let packed = element(&SIBLINGS, self.copy * BACKEND_IDS + u32::from(membership.next))?;
        Some(Membership::unpack(*packed))
    }

    /// A service.
    #[inline(always)]
    pub fn service(&self, number: u16) -> Result<&'static Service, Outcome> {
        element(&SERVICES, self.copy * SERVICE_NUMBERS + u32::from(number)).ok_or(Outcome::Impossible)
    }

    /// A backend, if there is one with this id.
    #[inline(always)]
    pub fn backend(&self, id: u16) -> Option<&'static Backend> {
        let backend = element(&BACKENDS, self.copy * BACKEND_IDS + u32::from(id))?;
        if backend.flags & Backend::KNOWN != 0 {
            Some(backend)
        } else {
            None
        }
    }

    /// The backend id in a slot of the pool.
    #[inline(always)]
    pub fn slot(&self, position: u32) -> Result<u16, Outcome> {
        let line = self.copy * SLOT_LINES + position / SLOTS_PER_LINE;
        let line = element(&SLOTS, line).ok_or(Outcome::Impossible)?;
        Ok(line.slots[(position % SLOTS_PER_LINE) as usize])
    }
}
