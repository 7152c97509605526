//! What lies in the maps, declared once for both sides. All addresses and ports are as in the packet (network order).
//!
//! Whatever describes the configuration exists in two copies, so that a change is one flip of [`Control::active`]: the
//! elements of copy 0 come first in each array, those of copy 1 after them.

use core::num::NonZeroU64;

use crate::checksum::Delta;
use crate::tcp_state::TimeoutClass;

/// The version of everything in this crate that both sides rely on. It is in the object's `lb_abi` section; a daemon
/// refuses an object of another version.
pub const ABI_VERSION: u32 = if cfg!(feature = "other-layout") { 1004 } else { 4 };

/// The section of the object that carries [`ABI_VERSION`], four bytes in the machine's order.
pub const ABI_SECTION: &str = "lb_abi";

/// Service numbers are 1 to 2,047: twice the 1,024 services that there may be, so that a number rests before it is
/// used again.
pub const SERVICE_NUMBERS: u32 = 2048;
/// Backend ids are 1 to 8,191: twice the 4,096 backends that there may be, for the same reason.
pub const BACKEND_IDS: u32 = 1 << crate::connection_table::entry::BACKEND_BITS;
/// Buckets of one copy of the service table, which has the VIPs as well: twice as many as there may be entries, with which all
/// find room.
pub const SERVICE_BUCKETS: u32 = 8192;
/// Buckets of one copy of the endpoint table, likewise.
pub const ENDPOINT_BUCKETS: u32 = 16_384;
/// [`SlotLine`]s of one copy of the slot pool: two million slots, current and previous ones. So 4,096 backends have 256 each in
/// the hash tables of their services, and as many in those before the last change.
pub const SLOT_LINES: u32 = 65_536;
/// Slots of a [`SlotLine`].
pub const SLOTS_PER_LINE: u32 = 32;
/// The most services that one endpoint may serve.
pub const MAX_SIBLINGS: u32 = 8;
/// Words of the daemon's notes: two halves of 2 MiB.
pub const NOTE_WORDS: u32 = 2 * 262_144;
/// Fragments of datagrams that are remembered at once.
pub const FRAGMENT_NOTES: u32 = 4096;

/// An address: its bytes as in the packet, as words in memory order, so that they are loaded as words. IPv4 is the low half of
/// the first.
pub type Address = [u64; 2];

/// An address from its bytes.
pub fn address(bytes: &[u8]) -> Address {
    let mut address = [0; 16];
    for (byte, given) in address.iter_mut().zip(bytes) {
        *byte = *given;
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].map(u64::from_ne_bytes)
}

macro_rules! stages {
    ($( $(#[doc = $meaning:literal])+ $variant:ident = $program:literal, )*) => {
        /// The programs that go on where the attached one does not, and their places in `PROGRAMS`. Each is looked at by the
        /// kernel's verifier by itself, and has a stack of its own.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Stage {
            $( $(#[doc = $meaning])+ $variant, )*
        }

        impl Stage {
            /// Every stage, in the order of their places.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name of the program.
            pub const fn program(self) -> &'static str {
                match self {
                    $( Self::$variant => $program, )*
                }
            }
        }
    };
}

stages! {
    /// IPv4 packets that are not ordinary.
    Ipv4 = "lb_ipv4",
    /// IPv6 packets that are not ordinary.
    Ipv6 = "lb_ipv6",
    /// IPv4 packets of services of several ports, whose keys need room for the port.
    Ipv4Wide = "lb_ipv4_wide",
    /// Clients' packets of connections that are not known, IPv4.
    NewIpv4 = "lb_new_ipv4",
    /// Likewise, of services of several ports.
    NewIpv4Wide = "lb_new_ipv4_wide",
    /// Likewise, IPv6.
    NewIpv6 = "lb_new_ipv6",
    /// Backends' packets of connections that are not known, IPv4.
    UntrackedIpv4 = "lb_untracked_ipv4",
    /// Likewise, of services of several ports.
    UntrackedIpv4Wide = "lb_untracked_ipv4_wide",
    /// Likewise, IPv6.
    UntrackedIpv6 = "lb_untracked_ipv6",
    /// ICMP over IPv4.
    Icmp = "lb_icmp",
    /// ICMPv6.
    Icmpv6 = "lb_icmpv6",
    /// Later IPv4 fragments.
    Ipv4Fragment = "lb_ipv4_fragment",
    /// Later IPv6 fragments.
    Ipv6Fragment = "lb_ipv6_fragment",
    /// IPv4 packets that are answered in a backend's stead.
    AnswerIpv4 = "lb_answer_ipv4",
    /// IPv6 packets that are answered in a backend's stead.
    AnswerIpv6 = "lb_answer_ipv6",
}

/// Where in `PROGRAMS` the attached program is, for whoever has nobody else to call.
pub const ATTACHED_PLACE: u32 = Stage::ALL.len() as u32;
/// Where in `PROGRAMS` the program is that decides while there is tracing; in the array of the instance that it is of, the one
/// that it leaves everything to.
pub const TRACED_PLACE: u32 = ATTACHED_PLACE + 1;
/// How many places there are.
pub const PLACES: u32 = TRACED_PLACE + 1;

/// The words that say which copy is active and how to look things up in it. One element.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Control {
    /// 0 or 1: the copy that packets are judged by.
    pub active: u64,
    /// Not 0: the program at [`TRACED_PLACE`] decides instead of the attached one.
    pub traced: u64,
    /// Until when, in jiffies, [`CopyHeader::MIGRATING`] is heeded: should the daemon die over it, new connections do not wait
    /// for the next one for ever.
    pub migrating_until: u64,
    /// Zero.
    pub reserved: u64,
    /// How each copy is looked up: each in one cache line.
    pub copies: [CopyHeader; 2],
}

/// What the daemon must know of a set of tables that an earlier one has left. One element; the program never looks at it.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableHeader {
    /// [`TableHeader::COMPLETE`] once the tables say everything that packets are to be judged by.
    pub complete: u64,
    /// The [`ABI_VERSION`] that the tables are laid out by.
    pub abi_version: u32,
    /// Zero.
    pub reserved: u32,
    /// What places connections in the tables; a secret.
    pub table_seed: u64,
    /// Which half of the notes holds, 0 or 1.
    pub notes: u64,
    /// [`TableHeader::PREPARED`] or [`TableHeader::UNDER_WAY`] while connections of an older set of tables are brought over.
    pub migrating: u64,
}

impl TableHeader {
    /// Not to be had by chance.
    pub const COMPLETE: u64 = u64::from_le_bytes(*b"lb-table");
    /// Nobody looks at these tables yet: the older ones hold.
    pub const PREPARED: u64 = 1;
    /// Links are being changed: these tables hold, together with what the older ones have.
    pub const UNDER_WAY: u64 = 2;
}

/// How a copy's lookup tables were built, and what holds for all of its packets.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyHeader {
    /// What keys of the service table are multiplied by.
    pub service_multiplier: u64,
    /// What keys of the endpoint table are multiplied by.
    pub endpoint_multiplier: u64,
    /// Buckets of the service table in use, less one.
    pub service_mask: u32,
    /// Buckets of the endpoint table in use, less one.
    pub endpoint_mask: u32,
    /// The least MTU of the interfaces that packets leave by: one that is no longer needs no closer look. 0: look closer.
    pub smallest_mtu: u32,
    /// [`CopyHeader::SEVERAL_PORTS`] and so on.
    pub flags: u32,
}

impl CopyHeader {
    /// There are services of several ports.
    pub const SEVERAL_PORTS: u32 = 1;
    /// Connections are still being brought over from older tables: one that has no entry may have one there.
    pub const MIGRATING: u32 = 2;
}

/// What the service table says about an endpoint: the low 16 bits are the service's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener(pub NonZeroU64);

impl Listener {
    /// Of several ports: entries are in the wide table.
    pub const WIDE: u64 = 1 << 16;
    /// No entries: every packet is chosen for by hashing.
    pub const STATELESS: u64 = 1 << 17;
    /// A VIP's own entry.
    pub const VIP: u64 = 1 << 18;
    /// Of a VIP's own entry: echo requests are answered.
    pub const ANSWERS_ECHO: u64 = 1 << 19;

    /// A service's number and flags, which are not all zero.
    pub fn new(number: u16, flags: u64) -> Option<Self> {
        NonZeroU64::new(u64::from(number) | flags).map(Self)
    }

    /// The service's number; 0 of a VIP's own entry, whose protocol is the family's ICMP and whose port is 0.
    #[inline(always)]
    pub fn number(self) -> u16 {
        self.0.get() as u16
    }

    /// Whether it has a flag.
    #[inline(always)]
    pub fn is(self, flag: u64) -> bool {
        self.0.get() & flag != 0
    }
}

/// A service, as far as the choice of a backend needs it.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    /// Index of its first slot in the pool.
    pub first_slot: u32,
    /// How many slots it has; 0: nobody can take a connection.
    pub slots: u32,
    /// The slots before the last change, of a service that chooses by hashing; for packets of connections without an entry.
    pub previous_slot: u32,
    /// How many; 0: none.
    pub previous_slots: u32,
    /// [`Service::LEAVING`] and so on.
    pub flags: u32,
    /// A [`Choice`].
    pub choice: u32,
    /// The first and the last port of a service of several, in the machine's order.
    pub ports: [u16; 2],
}

impl Service {
    /// Removed from the configuration: existing connections go on, everything else is not ours.
    pub const LEAVING: u32 = 1;
    /// While there are no slots packets are dropped silently.
    pub const SILENT: u32 = 2;
}

/// How the slot of a new connection is chosen.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The next one in the round.
    Cursor = 0,
    /// By a hash of the client's address and port.
    Hash = 1,
    /// By a hash of the client's address.
    Source = 2,
    /// The one of two whose backend has fewer connections.
    Least = 3,
    /// Any.
    Random = 4,
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
    /// The backend's address.
    pub address: Address,
    /// The VIP.
    pub vip: Address,
    /// The backend's port; 0: the packet's own.
    pub port: [u8; 2],
    /// The VIP's port; 0: the packet's own.
    pub vip_port: [u8; 2],
    /// Destination and source MAC address of a frame to the backend, as they come in the frame, in words: bytes would be
    /// loaded one by one.
    pub ethernet: [u32; 3],
    /// The interface to the backend; 0: unknown, the kernel is asked.
    pub interface_index: u32,
    /// What VIP → backend changes in the IPv4 header checksum.
    pub network_delta: Delta,
    /// What VIP:port → backend:port changes in the transport checksum.
    pub transport_delta: Delta,
    /// [`Backend::KNOWN`] and so on.
    pub flags: u8,
    /// A [`Mode`].
    pub mode: u8,
    /// Idle timeouts in ticks: half-open, established (UDP: once answered), closing.
    pub timeouts: [u16; 3],
}

/// How packets get to a backend.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Destination rewritten; undone on the way back.
    Nat = 0,
    /// Source as well.
    FullNat = 1,
    /// MAC addresses only.
    Dsr = 2,
    /// Put into another packet.
    Ipip = 3,
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
    /// Its address is IPv6, whatever the VIP's is.
    pub const IPV6: u8 = 16;
    /// Its packets are entered nowhere.
    pub const STATELESS: u8 = 32;
    /// Removed from the configuration: datagrams of connections that it has go on, and new connections go elsewhere.
    pub const LEAVING: u8 = 64;

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

/// What the balancer puts in front of, or in place of, a client's address: by backend id, of `full-nat` and `ipip`
/// backends only.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outer {
    /// The balancer's own address, of the backend's family.
    pub source: Address,
    /// `ipip` over IPv4: the one's-complement sum of the outer header's words that are the same in every packet (all but
    /// type of service, total length and checksum). In memory order, not complemented.
    pub header_sum: u16,
    /// `full-nat`: the first of the own ports, in the machine's order.
    pub first_port: u16,
    /// `full-nat`: how many there are.
    pub ports: u16,
    /// Zero.
    pub reserved: u16,
    /// `full-nat`: the element of `PORTS` that stands for the first port.
    pub first_element: u32,
}

/// One of the balancer's own ports towards one backend, and whose it is. Written by the program; self-validating: what it
/// says holds only while the entry of the connection that it names says this port and this backend.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct PortEntry<W> {
    /// The client's address, as the words of a wide key have it.
    pub address: [W; 2],
    /// Client port (16 bits, as in the packet), service number (16), VIP's port (16, as in the packet).
    pub connection: W,
    /// The tick of the allocation (16 bits), and one bit above that says that there ever was one.
    pub taken: W,
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
    /// [`Membership::WIDE`] and so on.
    pub flags: u16,
}

impl Membership {
    /// Of a service of several ports.
    pub const WIDE: u16 = 1;
    /// Of a service without entries.
    pub const STATELESS: u16 = 2;
    /// Of a `full-nat` service: whose answer it is stands in `PORTS`.
    pub const FULL_NAT: u16 = 4;

    /// As stored.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        u64::from(self.service)
            | u64::from(self.backend) << 16
            | u64::from(self.next) << 32
            | u64::from(self.flags) << 48
    }

    /// As packed.
    #[inline(always)]
    pub fn unpack(packed: u64) -> Self {
        Self {
            service: packed as u16,
            backend: (packed >> 16) as u16,
            next: (packed >> 32) as u16,
            flags: (packed >> 48) as u16,
        }
    }

    /// Whether it has a flag.
    #[inline(always)]
    pub fn is(self, flag: u16) -> bool {
        self.flags & flag != 0
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

/// What outlives every copy of the configuration, one for each backend id.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct BackendState<W> {
    /// Connections, for the choice of the least loaded: the program adds one for each that it opens, the daemon sets it
    /// right about once a second.
    pub load: W,
    /// The weight that `load` is divided by, 1 to 2,560; written by the daemon.
    pub weight: W,
    /// Counts the ports tried, for `full-nat`: the next one is its remainder.
    pub port_cursor: W,
    /// When all ports that were tried were taken, in jiffies, for `full-nat`: nobody tries again in the same one.
    pub exhausted: W,
}

/// What is true of the whole table. One element; written by the program.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Pressure<W> {
    /// One more than the tick in which [`Evictions::FLOOD`] half-open entries that were but seconds old had to make room, or
    /// would have had to, on one CPU; 0: never. While that is recent, all choices are made by hashing, so that a lost entry
    /// does not change the backend.
    pub flooded: W,
    /// One more than the tick in which that began. Young entries keep their places until all that there are were chosen for
    /// by hashing.
    pub since: W,
}

/// Half-open entries that made room before their timeout, on one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evictions {
    /// All of them.
    pub all: u64,
    /// Those that were but seconds old, or were spared since they were, since `tick`.
    pub young: u64,
    /// The tick that `young` counts.
    pub tick: u64,
}

impl Evictions {
    /// So many young ones in a tick (about four seconds) are a flood; fewer happen to a table that is merely rather full.
    pub const FLOOD: u64 = 64;
}

/// ICMP errors are limited in rate for each of so many groups of addresses that they are sent to.
pub const ICMP_GROUPS: u32 = 256;

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

/// What a datagram's later fragments are recognised by.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// The source.
    pub source: Address,
    /// The destination.
    pub destination: Address,
    /// The datagram's identification, as in the packet.
    pub identification: u32,
    /// The transport protocol, and 4 or 6 for the family: `protocol << 8 | version`.
    pub protocol: u32,
}

/// What was decided about a datagram's first fragment.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FragmentNote {
    /// When, in jiffies.
    pub jiffies: u64,
    /// The backend's id.
    pub backend: u16,
    /// To the client: where to.
    pub hop: u16,
    /// [`FragmentNote::TO_BACKEND`] and so on.
    pub direction: u16,
    /// A part of the key's hash: the kernel may give the memory of a note that is being read to another datagram.
    pub check: u16,
    /// To the client: its address, which is not the packet's destination with `full-nat`.
    pub client: Address,
}

impl FragmentNote {
    /// From a client.
    pub const TO_BACKEND: u16 = 1;
    /// From a backend.
    pub const TO_CLIENT: u16 = 2;
    /// To a VIP, but to no service: the kernel's.
    pub const PASSED: u16 = 3;
}

const _: () = {
    assert!(size_of::<Control>() == 128);
    assert!(core::mem::offset_of!(Control, traced) < 64);
    assert!(size_of::<TableHeader>() == 64);
    assert!(size_of::<CopyHeader>() == 32);
    assert!(core::mem::offset_of!(Control, copies) % 32 == 0);
    assert!(size_of::<Service>() == 64);
    assert!(size_of::<SlotLine>() == 64);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<Outer>() == 64);
    assert!(size_of::<PortEntry<u64>>() == 32);
    assert!(size_of::<BackendState<u64>>() == 32);
    assert!(core::mem::offset_of!(Backend, ethernet) == 36);
    assert!(core::mem::offset_of!(Backend, interface_index) == 48);
    assert!(core::mem::offset_of!(Backend, flags) == 56);
    assert!(core::mem::offset_of!(Backend, timeouts) == 58);
    assert!(size_of::<BackendCounters>() == 40);
    assert!(size_of::<Evictions>() == 24);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentNote>() == 32);
    assert!(crate::outcome::Outcome::COUNT < 256);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn memberships_round_trip(service: u16, backend: u16, next: u16, flags: u16) {
            let membership = Membership { service, backend, next, flags };
            prop_assert_eq!(Membership::unpack(membership.pack()), membership);
            for flag in [Membership::WIDE, Membership::STATELESS, Membership::FULL_NAT] {
                prop_assert_eq!(membership.is(flag), flags & flag != 0);
            }
        }

        #[test]
        fn a_listeners_number_and_flags_do_not_overlap(number: u16, flags in 0u64..16) {
            let flags = flags << 16;
            match Listener::new(number, flags) {
                None => prop_assert_eq!((number, flags), (0, 0)),
                Some(listener) => {
                    prop_assert_eq!(listener.number(), number);
                    let all = [Listener::WIDE, Listener::STATELESS, Listener::VIP, Listener::ANSWERS_ECHO];
                    for flag in all {
                        prop_assert_eq!(listener.is(flag), flags & flag != 0);
                    }
                }
            }
        }

        #[test]
        fn an_address_is_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut expected = bytes.clone();
            expected.resize(16, 0);
            prop_assert_eq!(address(&bytes).map(u64::to_ne_bytes).concat(), expected);
        }
    }

    #[test]
    fn stages_are_in_order_and_their_programs_differ() {
        let mut names = std::collections::HashSet::new();
        for (index, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(*stage as usize, index);
            assert!(names.insert(stage.program()), "{stage:?}");
        }
    }
}
