//! The connection table in the kernel: where a key lives, what time it is, and what a packet changes in its entry.

use core::hint::black_box;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::maps::Array;
use lb_common::abi::{Backend, Mode, Pressure};
use lb_common::connection_table::{self as table, Bucket, Home, Value, Way};
use lb_common::family::{Ipv4, Ipv6, Keys};
use lb_common::return_hop::{self, Hop, HopSlot};
use lb_common::tcp_state::{Flags, Sender, State, TimeoutClass};
use lb_common::tick::{Tick, slack};
use lb_common::wire::{Frame, ethernet};
use lb_common::word::Word as _;

use crate::global;
use crate::maps::{
    CONNECTION_BUCKETS, CONNECTIONS, LEARN_RETURN_HOPS, PRESSURE, RETURN_HOP_TABLE, TABLE_SEED, TICK_SHIFT,
    WIDE_BUCKETS, WIDE_CONNECTIONS, element,
};
use crate::pipeline::Path;
use crate::service_lookup::Tables;
use crate::word::SharedWord;

/// For how many ticks the table counts as flooded after it was, and answers without an entry are rewritten: about half a
/// minute.
const RECENT_TICKS: u16 = 8;

/// Entries that have lived for no more ticks are young: but seconds old.
pub const YOUNG_TICKS: u16 = 1;

/// So many of a client's segments after the first one say that the connection goes on, where answers are not seen: the end of the
/// handshake, a request, what acknowledges the response. A flood of as many for each address could as well wait for the next tick.
const GOES_ON: u16 = 3;

/// The connections of a family whose keys have `K` words.
pub trait Table<const K: usize>: Keys<K> {
    /// The two buckets of a key. Both addresses are known before either is read: neither cache miss has to wait for the
    /// other.
    fn home(key: &[u64; K]) -> Option<Home<'static, SharedWord, K>>;

    /// The entry of a key, with its value at the time. The second bucket is looked for only if it is not in the first.
    fn find(key: &[u64; K]) -> Option<(&'static Way<SharedWord, K>, Value)>;
}

impl Table<1> for Ipv4 {
    #[inline(always)]
    fn home(key: &[u64; 1]) -> Option<Home<'static, SharedWord, 1>> {
        let [first, second] = table::home(&TABLE_SEED.load(), key, CONNECTION_BUCKETS.load());
        let (first, second) = (element(&CONNECTIONS, first), element(&CONNECTIONS, second));
        Some(Home::new(first?, second?))
    }

    #[inline(always)]
    fn find(key: &[u64; 1]) -> Option<(&'static Way<SharedWord, 1>, Value)> {
        find_in(&CONNECTIONS, &CONNECTION_BUCKETS, key)
    }
}

impl Table<3> for Ipv4 {
    #[inline(always)]
    fn home(key: &[u64; 3]) -> Option<Home<'static, SharedWord, 3>> {
        wide_home(key)
    }

    #[inline(always)]
    fn find(key: &[u64; 3]) -> Option<(&'static Way<SharedWord, 3>, Value)> {
        find_in(&WIDE_CONNECTIONS, &WIDE_BUCKETS, key)
    }
}

impl Table<3> for Ipv6 {
    #[inline(always)]
    fn home(key: &[u64; 3]) -> Option<Home<'static, SharedWord, 3>> {
        wide_home(key)
    }

    #[inline(always)]
    fn find(key: &[u64; 3]) -> Option<(&'static Way<SharedWord, 3>, Value)> {
        find_in(&WIDE_CONNECTIONS, &WIDE_BUCKETS, key)
    }
}

#[inline(always)]
fn wide_home(key: &[u64; 3]) -> Option<Home<'static, SharedWord, 3>> {
    let [first, second] = table::home(&TABLE_SEED.load(), key, WIDE_BUCKETS.load());
    let (first, second) = (
        element(&WIDE_CONNECTIONS, first),
        element(&WIDE_CONNECTIONS, second),
    );
    Some(Home::new(first?, second?))
}

#[inline(always)]
fn find_in<const K: usize>(
    map: &'static Array<Bucket<SharedWord, K>>,
    buckets: &Global<u32>,
    key: &[u64; K],
) -> Option<(&'static Way<SharedWord, K>, Value)> {
    let [first, _] = table::home(&TABLE_SEED.load(), key, buckets.load());
    if let Some(found) = element(map, first)?.find(key) {
        return Some(found);
    }
    // Hashed anew, behind the compiler's back, so that nobody computes a second bucket who does not need it.
    let [_, second] = table::home(&TABLE_SEED.load(), &black_box(*key), buckets.load());
    element(map, second)?.find(key)
}

/// What time it is in the table.
#[inline(always)]
pub fn now() -> Tick {
    Tick::from_jiffies(jiffies(), TICK_SHIFT.load())
}

/// The kernel's clock.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

/// Notes that something happens now, for [`is_recent`]. Once a tick: other CPUs have the line in their caches.
#[inline(always)]
pub fn note_tick(noted: &SharedWord, now: Tick) {
    let this_tick = u64::from(now.0) + 1;
    if noted.load() != this_tick {
        noted.store(this_tick);
    }
}

/// Whether something that is noted as one more than its tick, 0 for never, happened a short time ago.
#[inline(always)]
pub fn is_recent(noted: u64, now: Tick) -> bool {
    noted != 0 && age(noted, now) <= RECENT_TICKS
}

/// How many ticks ago something was that is noted as one more than its tick.
#[inline(always)]
fn age(noted: u64, now: Tick) -> u16 {
    now.0.wrapping_sub((noted as u16).wrapping_sub(1))
}

/// Whether many living half-open entries had to make room a short time ago.
#[inline(always)]
pub fn is_flooded(now: Tick) -> bool {
    pressure().is_some_and(|pressure| is_recent(pressure.flooded.load(), now))
}

/// Whether that has been so for long enough that all entries which are but seconds old were chosen for by hashing.
#[inline(always)]
pub fn is_long_flooded(now: Tick) -> bool {
    pressure().is_some_and(|pressure| {
        is_recent(pressure.flooded.load(), now) && age(pressure.since.load(), now) > YOUNG_TICKS
    })
}

/// Notes that it is so now.
#[inline(always)]
pub fn note_flood(now: Tick) {
    let Some(pressure) = pressure() else { return };
    if !is_recent(pressure.flooded.load(), now) {
        note_tick(&pressure.since, now);
    }
    note_tick(&pressure.flooded, now);
}

/// What is true of the whole table.
#[inline(always)]
pub fn pressure() -> Option<&'static Pressure<SharedWord>> {
    element(&PRESSURE, 0)
}

/// What a packet says to its connection's entry, in a word: flags (8 bits), then whether a backend sent it, and in the upper half
/// the hop that it came from if a client did.
struct Seen(u32);

const FROM_BACKEND: u32 = 1 << 8;
const HOP_SHIFT: u32 = 16;

impl Seen {
    #[inline(always)]
    fn new(sender: Sender, flags: Flags, hop: u16) -> Self {
        let sender = match sender {
            Sender::Client => 0,
            Sender::Backend => FROM_BACKEND,
        };
        Self(u32::from(flags.0) | sender | u32::from(hop) << HOP_SHIFT)
    }

    #[inline(always)]
    fn flags(&self) -> Flags {
        Flags(self.0 as u8)
    }

    /// The state after it, and the hop that the client's last packet came from.
    #[inline(always)]
    fn after(&self, value: Value) -> (State, u16) {
        if self.0 & FROM_BACKEND != 0 {
            (value.state().after(Sender::Backend, self.flags()), value.hop())
        } else {
            let hop = (self.0 >> HOP_SHIFT) as u16;
            (value.state().after(Sender::Client, self.flags()), hop)
        }
    }
}

/// Notes a segment in its connection's entry: usually there is nothing to change, now and then the deadline. `hop`: where
/// it came from if from the client; 0 if that cannot be remembered, so that answers do not go where the client was before. Of
/// a backend's packet, the one that the entry has. Where answers are not seen nobody asks for it, and it counts the segments of a
/// connection that is not established yet.
#[inline(always)]
pub fn note<F: Path<K>, const K: usize>(
    key: [u64; K],
    value: Value,
    (tables, backend, mode): (&Tables, &Backend, u8),
    (sender, flags): (Sender, Flags),
    hop: u16,
) {
    let hop_after = if answers_are_seen(mode) { hop } else { GOES_ON };
    // Nearly all packets are from the middle of an established connection.
    let timeout = backend.timeout(TimeoutClass::Established);
    if flags.is_ordinary() && value.stays_as_it_is(hop_after, now(), timeout) {
        return;
    }
    let seen = Seen::new(sender, flags, hop);
    // The other direction may change the entry on another CPU at the same moment; a FIN must not get lost over that.
    for _ in 0..3 {
        if F::note_change(key, seen.0, tables.copy()) == 0 {
            return;
        }
    }
}

/// [`note_change`] of an IPv4 connection to a service of one port.
#[inline(always)]
pub fn note_narrow(key: u64, seen: u32, copy: u32) -> u64 {
    note_change::<Ipv4, 1>([key], seen, copy)
}

/// [`note_change`] of any other connection.
#[inline(always)]
pub fn note_wide(a: u64, b: u64, c: u64, seen: u32, copy: u32) -> u64 {
    note_change::<Ipv6, 3>([a, b, c], seen, copy)
}

/// Changes an entry as a packet says ([`Seen`]), unless somebody else changes it at this moment (1).
#[inline(always)]
fn note_change<F: Table<K>, const K: usize>(key: [u64; K], seen: u32, copy: u32) -> u64 {
    let (seen, now) = (Seen(seen), now());
    let Some((way, value)) = F::find(&key) else {
        return 0;
    };
    let Some(backend) = Tables::of(copy)
        .ok()
        .and_then(|tables| tables.backend(value.backend()))
    else {
        return 0;
    };
    let (state, hop) = if answers_are_seen(backend.mode) {
        seen.after(value)
    } else {
        after_alone(value, seen.flags(), backend, now)
    };
    let class = state.timeout_class();
    let timeout = backend.timeout(class);
    let spare = if class == TimeoutClass::Established {
        slack(timeout)
    } else {
        0
    };
    let next = value.with(state, hop, now.after(timeout).after(spare));
    u64::from(next != value && !way.update(value, next))
}

/// Whether answers of backends with such a mode come by here.
#[inline(always)]
pub fn answers_are_seen(mode: u8) -> bool {
    mode <= Mode::FullNat as u8
}

/// The state after a segment, and how many there were.
#[inline(always)]
fn after_alone(value: Value, flags: Flags, backend: &Backend, now: Tick) -> (State, u16) {
    let state = value.state();
    let this_tick = now.after(backend.timeout(state.timeout_class()));
    let segments = if value.hop() < GOES_ON {
        value.hop() + 1
    } else {
        GOES_ON
    };
    let later = value.deadline() != this_tick || segments == GOES_ON;
    (state.after_alone(flags, later), segments)
}

/// The number of the hop that a client's frame came from; `known` is what its connection remembers. 0: not to be known.
#[inline(always)]
pub fn return_hop<F: Frame>(frame: &F, interface_index: u32, known: u16) -> u16 {
    if LEARN_RETURN_HOPS.load() == 0 {
        return 0;
    }
    if known != 0 && known_hop(known).sent(frame, interface_index) {
        return known;
    }
    let Ok((ethernet, _)) = ethernet::parse(frame) else {
        return 0;
    };
    let (neighbour, own) = Hop::new(ethernet, interface_index).words();
    global::intern(neighbour, own) as u16
}

/// The number of a hop of which these are the words; see [`return_hop::intern`].
#[inline(always)]
pub fn intern(neighbour: u64, own: u64) -> u64 {
    return_hop::intern(&Hop::of_words(neighbour, own), hop_slot).into()
}

/// The hop with a number.
#[inline(always)]
pub fn known_hop(number: u16) -> Hop {
    hop_slot(u32::from(number)).map_or(Hop::UNKNOWN, HopSlot::read)
}

/// A place in the table of hops.
#[inline(always)]
fn hop_slot(number: u32) -> Option<&'static HopSlot<SharedWord>> {
    element(&RETURN_HOP_TABLE, number)
}
