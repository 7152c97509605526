//! A packet to a service that no connection's entry says anything about: it gets a backend, and mostly an entry.
//!
//! All of it is one function out of line, which starts over with parsing. That costs a new connection some ns, and saves
//! them with every packet of a known one: in between, the compiler need not keep anything for this.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, Service};
use lb_common::connection_table::entry::ipv4_key;
use lb_common::connection_table::{Inserted, Value};
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_common::word::Word as _;

use crate::backend_choice::{Slots, collides};
use crate::connection_table;
use crate::counters;
use crate::maps::{SERVICE_STATES, element};
use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::pipeline::{is_forwardable, keeps, return_hop};
use crate::service_lookup::Tables;

/// How often another slot is tried when a shared endpoint collides.
const CHOICES: u32 = 4;
/// Above a backend's id in what the function out of line returns lies the outcome's index.
const OUTCOME_SHIFT: u32 = 16;

/// The backend that a packet goes to, and under which name; or why to none.
#[inline(always)]
pub fn decide(context: &XdpContext, tables: &Tables, service: u16) -> Result<(u16, Outcome), Outcome> {
    let packed = out_of_line(context.ctx, tables.copy(), u32::from(service));
    let outcome = Outcome::from_index((packed >> OUTCOME_SHIFT) as u32).unwrap_or(Outcome::Impossible);
    match packed as u16 {
        0 => Err(outcome),
        id => Ok((id, outcome)),
    }
}

/// Only scalars and the context cross the border: anything by reference would have to lie on the caller's stack.
#[inline(never)]
fn out_of_line(context: *mut xdp_md, copy: u32, service: u32) -> u64 {
    let context = XdpContext::new(context);
    let decided = Tables::of(copy).and_then(|tables| choose_and_remember(&context, &tables, service as u16));
    match decided {
        Ok((id, outcome)) => u64::from(id) | (outcome as u64) << OUTCOME_SHIFT,
        Err(outcome) => (outcome as u64) << OUTCOME_SHIFT,
    }
}

/// Chooses a backend and remembers it, in the place of the entry that the client's port had before.
#[inline(always)]
fn choose_and_remember(
    context: &XdpContext,
    tables: &Tables,
    number: u16,
) -> Result<(u16, Outcome), Outcome> {
    let segment = &parse(&Packet::of(context))?;
    let key = &ipv4_key(segment.ipv4.source, segment.tcp.source_port, number);
    let home = connection_table::home(key).ok_or(Outcome::Impossible)?;
    let old = home.find(key);
    if let Some((_, value)) = old
        && keeps(tables, segment, value).is_some()
    {
        is_forwardable(segment)?;
        // Another CPU has just made an entry: whatever it decided holds.
        return Ok((value.backend(), Outcome::ToBackend));
    }
    let service = tables.service(number)?;
    if service.flags & Service::LEAVING != 0 {
        return Err(Outcome::NotOurs);
    }
    is_forwardable(segment)?;
    let slots = Slots::of(service).ok_or(Outcome::RefusedNoBackend)?;
    let opens = segment.tcp.flags.opens();
    if !opens && segment.tcp.flags.resets() {
        // The end of a connection that is not known: nothing to remember.
        return Ok((slots.by_hash(tables, key)?, Outcome::ToBackendAtRisk));
    }
    let id = choose(segment, tables, slots, number, key)?;
    let (state, outcome) = if opens {
        (State::SynSeen, Outcome::ToBackend)
    } else {
        (State::Unconfirmed, Outcome::ToBackendAtRisk)
    };
    let now = connection_table::now();
    let backend = tables.backend(id).ok_or(Outcome::Impossible)?;
    let deadline = now.after(backend.timeout(state.timeout_class()));
    let value = Value::new(state, id, return_hop(context, segment, 0), deadline);
    let inserted = match old {
        Some((way, before)) if way.replace(before, key, value) => Inserted::Stored,
        // Another CPU has just changed the entry: whatever it decided holds.
        Some(_) => match home.find(key) {
            Some((way, value)) => Inserted::Exists(way, value),
            None => home.insert(key, value, now),
        },
        None => home.insert(key, value, now),
    };
    match inserted {
        Inserted::Stored | Inserted::StoredEvicting => {
            if opens {
                counters::opened(id);
            }
            Ok((id, outcome))
        }
        Inserted::Exists(_, value) => Ok((value.backend(), outcome)),
        Inserted::Full => {
            let state = element(&SERVICE_STATES, u32::from(number)).ok_or(Outcome::Impossible)?;
            state.untracked.store(u64::from(now.0) + 1);
            Ok((slots.by_hash(tables, key)?, Outcome::ToBackendUntracked))
        }
    }
}

/// A slot for a connection: the next one in the round for one that opens, the one that hashing gives for one that went on
/// before, and another if the client's port already talks to that endpoint through another service.
#[inline(always)]
fn choose(
    segment: &Segment,
    tables: &Tables,
    slots: Slots,
    number: u16,
    key: &[u64; 1],
) -> Result<u16, Outcome> {
    if !segment.tcp.flags.opens() {
        return slots.by_hash(tables, key);
    }
    for _ in 0..CHOICES {
        let id = slots.by_cursor(tables, number)?;
        let backend = tables.backend(id).ok_or(Outcome::Impossible)?;
        if backend.flags & Backend::SHARED == 0
            || !collides(tables, number, id, segment.ipv4.source, segment.tcp.source_port)
        {
            return Ok(id);
        }
    }
    Err(Outcome::SharedEndpointCollision)
}
