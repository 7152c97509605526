//! What lies in the maps, declared once for both sides. All addresses and ports are as in the packet (network order).
//!
//! Whatever describes the configuration exists in two copies, so that a change is one flip of [`Control::active`]: the
//! elements of copy 0 come first in each array, those of copy 1 after them.

use crate::checksum::Delta;
use crate::tcp_state::TimeoutClass;

/// The version of everything in this crate that both sides rely on. It is in the object's `lb_abi` section; a daemon
/// refuses an object of another version.
pub const ABI_VERSION: u32 = 1;

/// The section of the object that carries [`ABI_VERSION`], four bytes in the machine's order.
pub const ABI_SECTION: &str = "lb_abi";

/// Service numbers are 1 to 2,047: twice the 1,024 services that there may be, so that a number rests before it is
/// used again.
pub const SERVICE_NUMBERS: u32 = 2048;
/// Backend ids are 1 to 8,191: twice the 4,096 backends that there may be, for the same reason.
pub const BACKEND_IDS: u32 = 1 << crate::connection_table::entry::BACKEND_BITS;
/// Buckets of one copy of the service table.
pub const SERVICE_BUCKETS: u32 = 2048;
/// Buckets of one copy of the endpoint table.
pub const ENDPOINT_BUCKETS: u32 = 8192;
/// [`SlotLine`]s of one copy of the slot pool.
pub const SLOT_LINES: u32 = 4096;
/// Slots of a [`SlotLine`].
pub const SLOTS_PER_LINE: u32 = 32;
/// The most services that one endpoint may serve.
pub const MAX_SIBLINGS: u32 = 8;

/// The words that say which copy is active and how to look things up in it. One element.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Control {
    /// 0 or 1: the copy that packets are judged by.
    pub active: u64,
    /// How each copy is looked up.
    pub copies: [CopyHeader; 2],
}

/// How a copy's lookup tables were built.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyHeader {
    /// Seed of the service table.
    pub service_seed: u64,
    /// Seed of the endpoint table.
    pub endpoint_seed: u64,
    /// Buckets of the service table in use, less one.
    pub service_mask: u32,
    /// Buckets of the endpoint table in use, less one.
    pub endpoint_mask: u32,
}

/// A service, as far as the choice of a backend needs it.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    /// Index of its first slot in the pool.
    pub first_slot: u32,
    /// How many slots it has; 0: nobody can take a connection.
    pub slots: u32,
    /// [`Service::LEAVING`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

impl Service {
    /// Removed from the configuration: existing connections go on, everything else is not ours.
    pub const LEAVING: u32 = 1;
}

/// Backend ids, a cache line of the pool that all services' slots lie in.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotLine {
    /// Backend ids.
    pub slots: [u16; SLOTS_PER_LINE as usize],
}

/// A backend of one service: all that a packet of an established connection needs, in one cache line. A server behind
/// two services is two of these.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The backend's address, IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// The VIP, IPv4 in the first four bytes.
    pub vip: [u8; 16],
    /// The backend's port.
    pub port: [u8; 2],
    /// The VIP's port.
    pub vip_port: [u8; 2],
    /// Destination and source MAC address of a frame to the backend, as they come in the frame.
    pub ethernet: [u8; 12],
    /// The interface to the backend; 0: unknown, the kernel is asked.
    pub interface_index: u32,
    /// What VIP → backend changes in the IPv4 header checksum.
    pub network_delta: Delta,
    /// What VIP:port → backend:port changes in the TCP checksum.
    pub transport_delta: Delta,
    /// [`Backend::KNOWN`] and so on.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// Idle timeouts in ticks: half-open, established, closing.
    pub timeouts: [u16; 3],
}

impl Backend {
    /// There is a backend with this id.
    pub const KNOWN: u8 = 1;
    /// It is up: a SYN on an existing entry stays with it.
    pub const UP: u8 = 2;
    /// The client's next packet is answered with a RST.
    pub const RESET: u8 = 4;
    /// Its endpoint serves other services as well.
    pub const SHARED: u8 = 8;

    /// The idle timeout that holds, in ticks.
    #[inline(always)]
    pub fn timeout(&self, class: TimeoutClass) -> u16 {
        match class {
            TimeoutClass::HalfOpen => self.timeouts[0],
            TimeoutClass::Established => self.timeouts[1],
            TimeoutClass::Closing => self.timeouts[2],
        }
    }
}

/// One of the services that an endpoint belongs to: the value of the endpoint table, and an element of the sibling table,
/// which chains the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The service's number.
    pub service: u16,
    /// The id that the backend has in this service.
    pub backend: u16,
    /// Index of the next one in the sibling table; 0: none.
    pub next: u16,
}

impl Membership {
    /// As stored.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        u64::from(self.service) | u64::from(self.backend) << 16 | u64::from(self.next) << 32
    }

    /// As packed.
    #[inline(always)]
    pub fn unpack(packed: u64) -> Self {
        Self {
            service: packed as u16,
            backend: (packed >> 16) as u16,
            next: (packed >> 32) as u16,
        }
    }
}

/// What outlives every copy of the configuration, one for each service number. Written by the program.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServiceState<W> {
    /// Counts the choices made; the slot is its remainder.
    pub cursor: W,
    /// One more than the tick in which a connection was last served without an entry; 0: never.
    pub untracked: W,
}

/// Counters of one backend id on one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Connections opened.
    pub opened: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, Ethernet header included.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, Ethernet header included.
    pub bytes_out: u64,
}

const _: () = {
    assert!(size_of::<Control>() == 64);
    assert!(size_of::<CopyHeader>() == 24);
    assert!(size_of::<Service>() == 64);
    assert!(size_of::<SlotLine>() == 64);
    assert!(size_of::<Backend>() == 64);
    assert!(core::mem::offset_of!(Backend, ethernet) == 36);
    assert!(core::mem::offset_of!(Backend, interface_index) == 48);
    assert!(core::mem::offset_of!(Backend, flags) == 56);
    assert!(core::mem::offset_of!(Backend, timeouts) == 58);
    assert!(size_of::<BackendCounters>() == 40);
    assert!(crate::outcome::Outcome::COUNT < 256);
};
