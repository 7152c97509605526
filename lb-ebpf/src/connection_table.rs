//! The connection table in the kernel: where a key lives, what time it is, and what a packet changes in its entry.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::abi::Backend;
use lb_common::connection_table::{self as table, Home, Value, Way};
use lb_common::return_hop::{self, Hop, HopSlot};
use lb_common::tcp_state::{Flags, Sender};
use lb_common::tick::Tick;
use lb_common::wire::ethernet::Ethernet;

use crate::maps::{
    CONNECTION_BUCKETS, CONNECTIONS, LEARN_RETURN_HOPS, RETURN_HOP_TABLE, TABLE_SEED, TICK_SHIFT, element,
};
use crate::word::SharedWord;

/// The two buckets of a key. Both addresses are known before either is read: neither cache miss has to wait for the other.
#[inline(always)]
pub fn home(key: &[u64; 1]) -> Option<Home<'static, SharedWord, 1>> {
    let [first, second] = table::home(&TABLE_SEED.load(), key, CONNECTION_BUCKETS.load());
    let (first, second) = (element(&CONNECTIONS, first), element(&CONNECTIONS, second));
    Some(Home::new(first?, second?))
}

/// What time it is in the table.
#[inline(always)]
pub fn now() -> Tick {
    // SAFETY: the helper has no preconditions.
    Tick::from_jiffies(unsafe { bpf_jiffies64() }, TICK_SHIFT.load())
}

/// Notes a segment in its connection's entry: usually there is nothing to change, once a tick the deadline. `hop`: where
/// it came from if from the client; 0 if that cannot be remembered, so that answers do not go where the client was before.
#[inline(always)]
pub fn note(
    home: &Home<'static, SharedWord, 1>,
    key: &[u64; 1],
    (way, value): (&'static Way<SharedWord, 1>, Value),
    backend: &Backend,
    (sender, flags): (Sender, Flags),
    hop: Option<u16>,
) {
    let now = now();
    let (mut way, mut value) = (way, value);
    // The other direction may change the entry on another CPU at the same moment; a FIN must not get lost over that.
    for _ in 0..3 {
        let state = value.state().after(sender, flags);
        let hop = hop.unwrap_or(value.hop());
        let next = value.with(state, hop, now.after(backend.timeout(state.timeout_class())));
        if next == value || way.update(value, next) {
            return;
        }
        match home.find(key) {
            Some(found) => (way, value) = found,
            None => return,
        }
    }
}

/// The number of the hop that a client's frame came from; `known` is what its connection remembers. 0: not to be known.
#[inline(always)]
pub fn return_hop(frame: &Ethernet, interface_index: u32, known: u16) -> u16 {
    if LEARN_RETURN_HOPS.load() == 0 {
        return 0;
    }
    let hop = Hop::new(*frame, interface_index);
    if known != 0 && hop_slot(u32::from(known)).and_then(HopSlot::read) == Some(hop) {
        return known;
    }
    return_hop::intern(&hop, hop_slot)
}

/// A place in the table of hops.
#[inline(always)]
pub fn hop_slot(number: u32) -> Option<&'static HopSlot<SharedWord>> {
    element(&RETURN_HOP_TABLE, number)
}
