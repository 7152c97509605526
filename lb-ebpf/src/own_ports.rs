//! `full-nat`: the balancer's own ports towards a backend, and whose they are.
//!
//! An element of `PORTS` holds only while the entry of the connection that it names says the same; so nothing need be given
//! back, and nothing is lost when an entry is evicted, or times out, or this program is replaced.

use core::num::NonZeroU64;

use lb_common::abi::{Outer, PortEntry};
use lb_common::explain::Decision;
use lb_common::family::Family;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::{State, TimeoutClass};
use lb_common::tick::Tick;
use lb_common::word::Word as _;

use crate::backend_choice::random;
use crate::connection_table::{Table, jiffies};
use crate::maps::{BACKEND_STATES, PORTS, element};
use crate::parse::Segment;
use crate::pipeline::Path;
use crate::service_lookup::Tables;
use crate::word::SharedWord;
use crate::{explain, global};

/// How many ports are tried before they count as exhausted: first those whose turn it is, which have rested longest, then any,
/// since many in a row may be taken by connections that last. While nine of ten are taken, one connection in a million finds
/// none; of nineteen in twenty, one in a thousand.
const IN_TURN: u32 = 8;
const AT_RANDOM: u32 = 120;
/// For so many ticks after a port was given it is taken, whatever the table says: the entry may be still on its way, and
/// the backend may remember a connection that is over (RFC 9293 section 3.4.3).
const REST: u16 = 1;
const GIVEN: u64 = 1 << 16;

/// Who has a port: the client as the packet has it, and the VIP's port of a service of several.
pub struct Owner<A> {
    pub address: A,
    pub port: u16,
    pub service: u16,
    pub vip_port: u16,
}

impl<A> Owner<A> {
    #[inline(always)]
    fn pack(&self) -> u64 {
        u64::from(self.port) | u64::from(self.service) << 16 | u64::from(self.vip_port) << 32
    }
}

/// Gives a connection a port towards a backend, in the machine's order.
#[inline(always)]
pub fn allocate<F: Path<K>, const K: usize>(
    tables: &Tables,
    id: u16,
    owner: &Owner<F::Address>,
    now: Tick,
) -> Result<u16, Outcome> {
    let [low, high] = F::widened(owner.address);
    let which = tables.copy() | u32::from(id) << ID_SHIFT;
    let given = F::give_port(which, low, high, owner.pack(), now.0);
    explain::note(Decision::OwnPort, u64::from(id), given);
    match given as u16 {
        0 => Err(Outcome::PortsExhausted),
        port => Ok(port),
    }
}

/// Where in [`give`]'s first argument the backend's id lies, above the copy.
const ID_SHIFT: u32 = 1;

/// What [`allocate`] calls: a port, or 0 if there is none. `which`: the copy of the tables and the backend's id.
#[inline(always)]
pub fn give(which: u32, low: u64, high: u64, owner: u64, now: u16, take: Take) -> u64 {
    let id = (which >> ID_SHIFT) as u16;
    let Ok(tables) = Tables::of(which & 1) else {
        return 0;
    };
    let (Ok(outer), Some(state)) = (tables.outer(id), element(&BACKEND_STATES, u32::from(id))) else {
        return 0;
    };
    let Some(count) = NonZeroU64::new(u64::from(outer.ports)) else {
        return 0;
    };
    let jiffies = jiffies();
    if state.exhausted.load() == jiffies {
        return 0;
    }
    for attempt in 0..IN_TURN + AT_RANDOM {
        let place = if attempt < IN_TURN {
            state.port_cursor.fetch_increment_after(|| u64::from(attempt))
        } else {
            u64::from(random())
        };
        let offset = (place % count) as u32;
        let port = outer.first_port.wrapping_add(offset as u16);
        let which = u64::from(outer.first_element + offset) << 16 | u64::from(port);
        if take(which, low, high, owner, now) != 0 {
            return u64::from(port);
        }
    }
    state.exhausted.store(jiffies);
    0
}

/// [`take`] of a kind of connections, as a function of its own.
type Take = extern "C" fn(u64, u64, u64, u64, u16) -> u64;

/// [`give`] to IPv4 connections to services of one port.
#[inline(always)]
pub fn give_narrow(which: u32, low: u64, high: u64, owner: u64, now: u16) -> u64 {
    give(which, low, high, owner, now, global::take_port)
}

/// [`give`] to all other connections.
#[inline(always)]
pub fn give_wide(which: u32, low: u64, high: u64, owner: u64, now: u16) -> u64 {
    give(which, low, high, owner, now, global::take_port_wide)
}

/// Takes the port that an element stands for, if nobody has it (1). `which`: the element and the port; then the owner's
/// address and the rest of what an element says of it.
#[inline(always)]
pub fn take<F: Table<K>, const K: usize>(which: u64, low: u64, high: u64, owner: u64, now: u16) -> u64 {
    let port = which as u16;
    let Some(entry) = element(&PORTS, (which >> 16) as u32) else {
        return 0;
    };
    let taken = entry.taken.load();
    if taken != 0 {
        let age = now.wrapping_sub(taken as u16);
        if age <= REST || is_in_use::<F, K>(entry, port) {
            return 0;
        }
    }
    if !entry.taken.compare_exchange(taken, GIVEN | u64::from(now)) {
        return 0;
    }
    entry.address[0].store(low);
    entry.address[1].store(high);
    entry.connection.publish(owner);
    1
}

/// Whether the connection that an element names has an entry that says so too, whichever backend that has: those that lead to
/// one server from one address share elements. One that is over is forgotten: its client's last packets must not get into the
/// connection that has the port next. So is one that is still half-open: it had seconds, and must make room as in the table.
#[inline(always)]
fn is_in_use<F: Table<K>, const K: usize>(entry: &PortEntry<SharedWord>, port: u16) -> bool {
    let owner = read::<F>(entry);
    let key = F::key(owner.address, owner.port, owner.service, owner.vip_port);
    let Some((way, value)) = F::find(&key) else {
        return false;
    };
    let state = value.state();
    let makes_room = state == State::Closed || state.timeout_class() == TimeoutClass::HalfOpen;
    value.port() == port && !(makes_room && way.remove(value))
}

/// Who has the port that a backend's packet is for, if it is one of the balancer's towards that backend.
#[inline(always)]
pub fn owner<F: Family>(outer: &Outer, segment: &Segment<F>) -> Option<Owner<F::Address>> {
    owner_of::<F>(
        outer,
        segment.network.destination,
        segment.transport.destination_port,
    )
}

/// The same for an address and a port as in a packet.
#[inline(always)]
pub fn owner_of<F: Family>(outer: &Outer, address: F::Address, port: u16) -> Option<Owner<F::Address>> {
    let offset = u16::from_be(port).wrapping_sub(outer.first_port);
    if offset >= outer.ports || address != F::of_record(&outer.source) {
        return None;
    }
    let entry = element(&PORTS, outer.first_element + u32::from(offset))?;
    Some(read::<F>(entry))
}

#[inline(always)]
fn read<F: Family>(entry: &PortEntry<SharedWord>) -> Owner<F::Address> {
    let (low, high) = (entry.address[0].load(), entry.address[1].load());
    let connection = entry.connection.load();
    Owner {
        address: F::narrowed([low, high]),
        port: connection as u16,
        service: (connection >> 16) as u16,
        vip_port: (connection >> 32) as u16,
    }
}
