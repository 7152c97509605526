//! Which service a packet is for, or which backend it is from: the active copy of what the daemon wrote.

use core::num::NonZeroU64;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::abi::{
    BACKEND_IDS, Backend, Control, CopyHeader, ENDPOINT_BUCKETS, Listener, Membership, Outer,
    SERVICE_BUCKETS, SERVICE_NUMBERS, SLOT_LINES, SLOTS_PER_LINE, Service,
};
use lb_common::family::Family;
use lb_common::lookup_table::bucket_index;
use lb_common::outcome::Outcome;

use crate::maps::{
    BACKENDS, CONTROL, ENDPOINT_TABLE, OUTERS, SERVICE_TABLE, SERVICES, SIBLINGS, SLOTS, element,
};

/// The port that stands for all those of a service of several.
const SEVERAL: u16 = 0;

/// The copy that this packet is judged by, from its first lookup to its last.
#[derive(Clone, Copy)]
pub struct Tables {
    copy: u32,
    header: &'static CopyHeader,
}

/// The words that say which copy is active, and whether there is tracing.
#[inline(always)]
pub fn control() -> Result<&'static Control, Outcome> {
    element(&CONTROL, 0).ok_or(Outcome::Impossible)
}

impl Tables {
    /// The active copy.
    #[inline(always)]
    pub fn active() -> Result<Self, Outcome> {
        Ok(Self::of_control(control()?))
    }

    /// The same, where the words that say so are at hand.
    #[inline(always)]
    pub fn of_control(control: &'static Control) -> Self {
        // SAFETY: a reference to an aligned word; the daemon flips it at any time, so it is loaded exactly once.
        let copy = unsafe { (&raw const control.active).read_volatile() } as u32;
        Self::in_copy(control, copy)
    }

    /// A copy, 0 or 1, that was the active one when the packet came.
    #[inline(always)]
    pub fn of(copy: u32) -> Result<Self, Outcome> {
        Ok(Self::in_copy(control()?, copy))
    }

    #[inline(always)]
    fn in_copy(control: &'static Control, copy: u32) -> Self {
        let copy = copy & 1;
        let header = if copy == 0 {
            &control.copies[0]
        } else {
            &control.copies[1]
        };
        Self { copy, header }
    }

    /// Which copy it is.
    #[inline(always)]
    pub fn copy(&self) -> u32 {
        self.copy
    }

    /// The least MTU of the interfaces that packets leave by.
    #[inline(always)]
    pub fn smallest_mtu(&self) -> u32 {
        self.header.smallest_mtu
    }

    /// Whether entries are still being brought over from older tables, so that a connection may have one that is not here yet.
    #[inline(always)]
    pub fn is_migrating(&self) -> bool {
        if self.header.flags & CopyHeader::MIGRATING == 0 {
            return false;
        }
        // SAFETY: the helper has no preconditions.
        control().is_ok_and(|control| unsafe { bpf_jiffies64() } < control.migrating_until)
    }

    /// What is said of a backend's packet that belongs to no connection.
    #[inline(always)]
    pub fn no_connection(&self) -> Outcome {
        if self.is_migrating() {
            Outcome::Migrating
        } else {
            Outcome::NoConnection
        }
    }

    /// Who listens on an endpoint: on this very port, or on several.
    #[inline(always)]
    pub fn listener<F: Family>(&self, address: F::Address, port: u16, protocol: u8) -> Option<Listener> {
        if let Some(found) = self.listener_at(F::endpoint(address, port, protocol)) {
            return Some(found);
        }
        if self.has_several_ports() {
            return self.listener_at(F::endpoint(address, SEVERAL, protocol));
        }
        None
    }

    /// What is said about an address as such, if it is a VIP.
    #[inline(always)]
    pub fn vip<F: Family>(&self, address: F::Address) -> Option<Listener> {
        self.listener_at(F::endpoint(address, SEVERAL, F::ICMP))
    }

    #[inline(always)]
    fn listener_at(&self, key: u64) -> Option<Listener> {
        let index = bucket_index(self.header.service_multiplier, key, self.header.service_mask);
        element(&SERVICE_TABLE, self.copy * SERVICE_BUCKETS + index)?
            .find(key)
            .map(Listener)
    }

    #[inline(always)]
    fn has_several_ports(&self) -> bool {
        self.header.flags & CopyHeader::SEVERAL_PORTS != 0
    }

    /// The first of the services that an endpoint serves, packed: unpacked, LLVM would have registers copied that nothing has
    /// been written to if there is none, which the kernel's verifier refuses.
    #[inline(always)]
    pub fn membership<F: Family>(&self, address: F::Address, port: u16, protocol: u8) -> Option<NonZeroU64> {
        if let Some(found) = self.membership_at(F::endpoint(address, port, protocol)) {
            return Some(found);
        }
        if self.has_several_ports() {
            return self.membership_at(F::endpoint(address, SEVERAL, protocol));
        }
        None
    }

    #[inline(always)]
    fn membership_at(&self, key: u64) -> Option<NonZeroU64> {
        let index = bucket_index(self.header.endpoint_multiplier, key, self.header.endpoint_mask);
        element(&ENDPOINT_TABLE, self.copy * ENDPOINT_BUCKETS + index)?.find(key)
    }

    /// The next of the services that an endpoint serves.
    #[inline(always)]
    pub fn next_membership(&self, membership: Membership) -> Option<NonZeroU64> {
        if membership.next == 0 {
            return None;
        }
        NonZeroU64::new(*element(
            &SIBLINGS,
            self.copy * BACKEND_IDS + u32::from(membership.next),
        )?)
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

    /// What stands in front of, or in place of, the client's address of a backend's packets.
    #[inline(always)]
    pub fn outer(&self, id: u16) -> Result<&'static Outer, Outcome> {
        element(&OUTERS, self.copy * BACKEND_IDS + u32::from(id)).ok_or(Outcome::Impossible)
    }

    /// The backend id in a slot of the pool.
    #[inline(always)]
    pub fn slot(&self, position: u32) -> Result<u16, Outcome> {
        let line = self.copy * SLOT_LINES + position / SLOTS_PER_LINE;
        let line = element(&SLOTS, line).ok_or(Outcome::Impossible)?;
        Ok(line.slots[(position % SLOTS_PER_LINE) as usize])
    }
}
