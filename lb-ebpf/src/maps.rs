//! Everything that the program shares with the daemon. Sizes are those of the smallest table; the daemon sets the real
//! ones when it loads the object.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use lb_common::abi::{
    BACKEND_IDS, Backend, BackendCounters, BackendState, Control, ENDPOINT_BUCKETS, Evictions,
    FRAGMENT_NOTES, FragmentKey, FragmentNote, ICMP_GROUPS, NOTE_WORDS, Outer, PLACES, PortEntry, Pressure,
    SERVICE_BUCKETS, SERVICE_NUMBERS, SLOT_LINES, Service, ServiceState, SlotLine, TableHeader,
};
use lb_common::connection_table::Bucket;
use lb_common::explain::{Notes, TraceFilter, TraceState};
use lb_common::hash::Seed;
use lb_common::lookup_table::LookupBucket;
use lb_common::outcome::Outcome;
use lb_common::return_hop::{HopSlot, RETURN_HOPS};

use crate::answer::Answer;
use crate::forward::RouteQuery;
use crate::word::SharedWord;

/// `BPF_F_MMAPABLE`: the daemon reads and writes these without a system call.
const MMAPABLE: u32 = 1 << 10;

/// An array whose elements are found by an index that cannot be out of range, or whose absence is handled.
#[inline(always)]
pub fn element<T>(map: &'static Array<T>, index: u32) -> Option<&'static T> {
    map.get(index)
}

/// What the tables are, for a daemon that finds them. Nothing here looks at it.
#[map]
pub static TABLE_HEADER: Array<TableHeader> = Array::with_max_entries(1, MMAPABLE);
/// What the daemon must not forget, so that it can say what the tables mean. Nothing here looks at it.
#[map]
pub static DAEMON_NOTES: Array<u64> = Array::with_max_entries(NOTE_WORDS, MMAPABLE);
/// Which copy is active and how it is looked up.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);
/// VIP endpoint → service number, both copies.
#[map]
pub static SERVICE_TABLE: Array<LookupBucket> = Array::with_max_entries(2 * SERVICE_BUCKETS, MMAPABLE);
/// Backend endpoint → membership, both copies.
#[map]
pub static ENDPOINT_TABLE: Array<LookupBucket> = Array::with_max_entries(2 * ENDPOINT_BUCKETS, MMAPABLE);
/// Further memberships of endpoints that serve several services, both copies; packed.
#[map]
pub static SIBLINGS: Array<u64> = Array::with_max_entries(2 * BACKEND_IDS, MMAPABLE);
/// By service number, both copies.
#[map]
pub static SERVICES: Array<Service> = Array::with_max_entries(2 * SERVICE_NUMBERS, MMAPABLE);
/// By backend id, both copies.
#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(2 * BACKEND_IDS, MMAPABLE);
/// By backend id, both copies; of `full-nat` and `ipip` backends only.
#[map]
pub static OUTERS: Array<Outer> = Array::with_max_entries(2 * BACKEND_IDS, MMAPABLE);
/// The pool of slots, both copies.
#[map]
pub static SLOTS: Array<SlotLine> = Array::with_max_entries(2 * SLOT_LINES, MMAPABLE);
/// By service number; written here, and the same for both copies.
#[map]
pub static SERVICE_STATES: Array<ServiceState<SharedWord>> =
    Array::with_max_entries(SERVICE_NUMBERS, MMAPABLE);
/// By backend id, the same for both copies.
#[map]
pub static BACKEND_STATES: Array<BackendState<SharedWord>> = Array::with_max_entries(BACKEND_IDS, MMAPABLE);
/// IPv4 connections to services of one port.
#[map]
pub static CONNECTIONS: Array<Bucket<SharedWord, 1>> = Array::with_max_entries(2, MMAPABLE);
/// All other connections.
#[map]
pub static WIDE_CONNECTIONS: Array<Bucket<SharedWord, 3>> = Array::with_max_entries(2, MMAPABLE);
/// The own ports of `full-nat` connections, and whose they are.
#[map]
pub static PORTS: Array<PortEntry<SharedWord>> = Array::with_max_entries(1, MMAPABLE);
/// Whether the table is being flooded.
#[map]
pub static PRESSURE: Array<Pressure<SharedWord>> = Array::with_max_entries(1, MMAPABLE);
/// What was decided about first fragments.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentNote> = LruHashMap::with_max_entries(FRAGMENT_NOTES, 0);
/// Half-open entries that made room on this CPU.
#[map]
pub static EVICTIONS: PerCpuArray<Evictions> = PerCpuArray::with_max_entries(1, 0);
/// When this CPU last answered one of a group of addresses with an ICMP error, in jiffies.
#[map]
pub static ICMP_SENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(ICMP_GROUPS, 0);
/// What this CPU answers.
#[map]
pub static ANSWER: PerCpuArray<Answer> = PerCpuArray::with_max_entries(1, 0);
/// What this CPU asks the routing table.
#[map]
pub static ROUTE_QUERY: PerCpuArray<RouteQuery> = PerCpuArray::with_max_entries(1, 0);
/// The other programs, by [`Stage`](lb_common::abi::Stage), and after them the ones at their places.
#[map]
pub static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(PLACES, 0);
/// Of the instance that traces: the other programs of the one that is traced. Else of no use.
#[map]
pub static LIVE_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(PLACES, 0);
/// Where clients' packets come from.
#[map]
pub static RETURN_HOP_TABLE: Array<HopSlot<SharedWord>> = Array::with_max_entries(RETURN_HOPS, MMAPABLE);
/// Packets by [`Outcome`].
#[map]
pub static OUTCOME_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::COUNT as u32, 0);
/// By backend id.
#[map]
pub static BACKEND_COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(BACKEND_IDS, 0);

/// What was decided about a packet, where that is asked for.
#[map]
pub static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// What is traced.
#[map]
pub static TRACE_FILTER: Array<TraceFilter> = Array::with_max_entries(1, MMAPABLE);
/// How much was traced.
#[map]
pub static TRACE_STATE: PerCpuArray<TraceState> = PerCpuArray::with_max_entries(1, 0);
/// [`Notes`] on traced packets, on their way to the daemon.
#[map]
pub static TRACED: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Buckets of [`CONNECTIONS`].
#[unsafe(no_mangle)]
pub static CONNECTION_BUCKETS: Global<u32> = Global::new(2);
/// Buckets of [`WIDE_CONNECTIONS`].
#[unsafe(no_mangle)]
pub static WIDE_BUCKETS: Global<u32> = Global::new(2);
/// Places connections; secret, made with the table.
#[unsafe(no_mangle)]
pub static TABLE_SEED: Global<Seed> = Global::new(Seed::new(0));
/// Chooses backends where no entry says which; the same on every balancer of a fleet.
#[unsafe(no_mangle)]
pub static SELECTION_SEED: Global<Seed> = Global::new(Seed::new(0));
/// A tick is `1 << TICK_SHIFT` jiffies.
#[unsafe(no_mangle)]
pub static TICK_SHIFT: Global<u32> = Global::new(10);
/// Whether answers go back where the client's last packet came from (1), or where the routing table says (0).
#[unsafe(no_mangle)]
pub static LEARN_RETURN_HOPS: Global<u8> = Global::new(1);
/// Whether decisions are noted (1).
#[unsafe(no_mangle)]
pub static EXPLAIN: Global<u8> = Global::new(0);
/// Whether what was noted is sent to the daemon (1).
#[unsafe(no_mangle)]
pub static TRACE: Global<u8> = Global::new(0);
/// Whether nothing is written to what is shared (1).
#[unsafe(no_mangle)]
pub static DRY_RUN: Global<u8> = Global::new(0);
