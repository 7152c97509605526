//! A client's packets of connections that are not known: each gets a backend, and mostly an entry.
//!
//! This is a program of its own, which starts over with parsing. That costs a new connection some ns, and saves them with
//! every packet of a known one: in between, the compiler need not keep anything for this.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, Choice, Evictions, Listener, Mode, Service};
use lb_common::connection_table::{Inserted, Value};
use lb_common::explain::{Decision, Entered};
use lb_common::family::{Ipv4, Ipv6};
use lb_common::outcome::Outcome;
use lb_common::tcp_state::{State, TimeoutClass};
use lb_common::tick::Tick;

use crate::answer::answer;
use crate::backend_choice::{By, Slots, choose, hash_of, hashes};
use crate::connection_table::{
    Table, YOUNG_TICKS, answers_are_seen, is_flooded, is_long_flooded, note_flood, note_tick, now,
};
use crate::explain::is_dry;
use crate::forward::Verdict;
use crate::maps::{BACKEND_STATES, EVICTIONS, SERVICE_STATES, element};
use crate::own_ports::{self, Owner};
use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::pipeline::{Opening, Path, Towards, is_forwardable, return_hop, stays, to_backend, vip_port};
use crate::service_lookup::Tables;
use crate::{counters, explain, fragment};

/// Decides about a packet and changes it accordingly.
#[inline(always)]
pub fn run<F: Path<K>, const K: usize>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let segment = parse::<F>(&Packet::of(context))?;
    let tables = Tables::active()?;
    let (network, transport) = (&segment.network, &segment.transport);
    let protocol = network.protocol;
    if let Some(listener) = tables.listener::<F>(network.destination, transport.destination_port, protocol) {
        return from_client::<F, K>(context, &segment, &tables, listener);
    }
    Err(Outcome::NotOurs)
}

#[inline(always)]
fn from_client<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    listener: Listener,
) -> Result<Verdict, Outcome> {
    match choose_and_remember(context, segment, tables, listener) {
        Ok((towards, outcome)) => {
            let backend = tables.backend(towards.id).ok_or(Outcome::Impossible)?;
            let towards = (towards, backend, backend.mode);
            to_backend(context, segment, tables, towards, outcome, None)
        }
        Err(Outcome::NotOurs) if segment.is_fragment() => {
            fragment::note_passed::<F, K>(context, tables, segment.network.destination);
            Err(Outcome::NotOurs)
        }
        Err(outcome) if is_answered(outcome) => Err(answer::<F, K>(context, outcome, 0)),
        Err(outcome) => Err(outcome),
    }
}

/// Whether the client is told.
#[inline(always)]
fn is_answered(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::RefusedNoBackend | Outcome::FullNatUnknown)
}

/// Chooses a backend and remembers it, in the place of the entry that the client's port had before.
#[inline(always)]
fn choose_and_remember<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    listener: Listener,
) -> Result<(Towards, Outcome), Outcome> {
    let number = listener.number();
    let service = tables.service(number)?;
    if !listener.is(Listener::STATELESS) && tables.is_migrating() {
        return Err(Outcome::Migrating);
    }
    let port = u16::from_be(segment.transport.destination_port);
    let [first, last] = service.ports;
    if service.flags & Service::LEAVING != 0 || port < first || port > last {
        return Err(Outcome::NotOurs);
    }
    is_forwardable(segment)?;
    if Slots::of(service).is_none() {
        return Err(if service.flags & Service::SILENT != 0 {
            Outcome::DroppedNoBackend
        } else {
            Outcome::RefusedNoBackend
        });
    }
    if listener.is(Listener::STATELESS) {
        let id = choose(context, segment, tables, number, By::Hash, 0)?;
        return Ok((Towards { id, port: 0 }, Outcome::ToBackendStateless));
    }
    let now = now();
    let opens = segment.opens();
    let flooded = is_flooded(now);
    if flooded {
        explain::note(Decision::Flooded, 0, 0);
    }
    let by = if opens && !flooded { By::Service } else { By::Hash };
    let (mut id, outcome) = match by {
        By::Service => (
            choose(context, segment, tables, number, by, 0)?,
            Outcome::ToBackend,
        ),
        By::Hash => choose_for_good(context, segment, tables, number)?,
    };
    let backend = tables.backend(id).ok_or(Outcome::Impossible)?;
    if !F::is(segment.network.destination, &backend.vip) {
        return Err(Outcome::NotOurs);
    }
    let full_nat = backend.mode == Mode::FullNat as u8;
    if !opens && full_nat {
        return Err(Outcome::FullNatUnknown);
    }
    if segment.transport.flags.resets() {
        // The end of a connection that is not known: nothing to remember.
        return Ok((Towards { id, port: 0 }, outcome));
    }
    let own_port = if full_nat {
        let owner = Owner {
            address: segment.network.source,
            port: segment.transport.source_port,
            service: number,
            vip_port: vip_port(listener, segment),
        };
        match own_ports::allocate::<F, K>(tables, id, &owner, now) {
            Ok(port) => port,
            Err(_) => {
                id = choose(context, segment, tables, number, by, id)?;
                own_ports::allocate::<F, K>(tables, id, &owner, now)?
            }
        }
    } else {
        0
    };
    let state = if opens && segment.is_tcp() {
        State::SynSeen
    } else {
        State::Unconfirmed
    };
    let deadline = now.after(backend.timeout(state.timeout_class()));
    let hop = if answers_are_seen(backend.mode) {
        return_hop(context, &Packet::of(context), 0)
    } else {
        0
    };
    let value = Value::new(state, id, hop, deadline).with_port(own_port);
    let which = tables.copy() | Opening::of(segment).0 << OPENING_SHIFT;
    let stored = F::store(which, key_of(listener, segment), value.0);
    note_entered(stored, value);
    match stored {
        STORED => {}
        FULL if full_nat => return Err(Outcome::TableFull),
        FULL => {
            let state = element(&SERVICE_STATES, u32::from(number)).ok_or(Outcome::Impossible)?;
            note_tick(&state.untracked, now);
            if by == By::Service {
                (id, _) = choose_for_good(context, segment, tables, number)?;
            }
            let backend = tables.backend(id).ok_or(Outcome::Impossible)?;
            if backend.mode == Mode::Nat as u8 && backend.flags & Backend::SHARED != 0 {
                // Without an entry nobody could tell whose answers are the connection's.
                return Err(Outcome::TableFull);
            }
            return Ok((Towards { id, port: 0 }, Outcome::ToBackendUntracked));
        }
        other => return Ok((Towards::of(Value(other)), outcome)),
    }
    if opens {
        counters::opened(id);
        if service.choice == Choice::Least as u32
            && let Some(state) = element(&BACKEND_STATES, u32::from(id))
        {
            state.load.fetch_increment();
        }
    }
    Ok((Towards { id, port: own_port }, outcome))
}

#[inline(always)]
fn note_entered(stored: u64, value: Value) {
    let (entered, holds) = match stored {
        STORED => (Entered::Stored, value.0),
        FULL => (Entered::Full, 0),
        other => (Entered::Exists, other),
    };
    explain::note(Decision::Entered, entered as u64, holds);
}

/// [`store`] of an IPv4 connection to a service of one port.
#[inline(always)]
pub fn store_narrow(which: u32, key: u64, value: u64) -> u64 {
    store::<Ipv4, 1>(which, [key], value)
}

/// [`store`] of any other connection.
#[inline(always)]
pub fn store_wide(which: u32, a: u64, b: u64, c: u64, value: u64) -> u64 {
    store::<Ipv6, 3>(which, [a, b, c], value)
}

/// What [`store`] gives but for another CPU's value, which is never so small.
const STORED: u64 = 0;
const FULL: u64 = 1;
/// In [`store`]'s first argument.
const OPENING_SHIFT: u32 = 1;

/// Enters a connection with a value, in the place of the entry that the client's port had before. [`STORED`], [`FULL`], or the
/// value that another CPU has just entered, which holds. `which`: the copy of the tables, and above that the packet's
/// [`Opening`].
#[inline(always)]
fn store<F: Table<K>, const K: usize>(which: u32, key: [u64; K], value: u64) -> u64 {
    let Some(home) = F::home(&key) else { return FULL };
    let Ok(tables) = Tables::of(which & 1) else {
        return FULL;
    };
    let opening = Opening(which >> OPENING_SHIFT);
    let value = Value(value);
    if let Some((way, before)) = home.find(&key) {
        if tables
            .backend(before.backend())
            .is_some_and(|backend| stays(backend, before, opening))
        {
            return before.0;
        }
        explain::note_within(Decision::NotKept, before.0, 0);
        // What a dry run does not write, it cannot read back.
        let holds = if is_dry() {
            value
        } else {
            home.renew(&key, (way, before), value)
        };
        if holds == value {
            return STORED;
        }
        if holds != Value::EMPTY {
            return holds.0;
        }
    }
    let now = now();
    let spare = |found: Value| spares(&tables, value, now) && is_young(&tables, found, now);
    match home.insert_sparing(&key, value, now, spare) {
        Inserted::Stored => STORED,
        Inserted::StoredEvicting(evicted) => {
            note_eviction(1, is_young(&tables, evicted, now), now);
            STORED
        }
        Inserted::Exists(_, value) => value.0,
        Inserted::Full => FULL,
        Inserted::Spared => {
            note_eviction(0, true, now);
            FULL
        }
    }
}

/// Whether half-open entries that are but seconds old keep their places, and a new connection does without an entry: until all
/// that there are were chosen for by hashing, since losing one of the others may take its client to another backend. Not for one
/// that cannot do without.
#[inline(always)]
fn spares(tables: &Tables, value: Value, now: Tick) -> bool {
    let can_do_without = tables
        .backend(value.backend())
        .is_some_and(|backend| backend.mode != Mode::FullNat as u8 && backend.flags & Backend::SHARED == 0);
    can_do_without && !is_long_flooded(now)
}

/// Whether a half-open entry is but seconds old.
#[inline(always)]
fn is_young(tables: &Tables, value: Value, now: Tick) -> bool {
    tables.backend(value.backend()).is_some_and(|backend| {
        let lived = now
            .after(backend.timeout(TimeoutClass::HalfOpen))
            .until(value.deadline());
        lived <= YOUNG_TICKS as i16
    })
}

#[inline(always)]
fn key_of<F: Path<K>, const K: usize>(listener: Listener, segment: &Segment<F>) -> [u64; K] {
    F::key(
        segment.network.source,
        segment.transport.source_port,
        listener.number(),
        vip_port(listener, segment),
    )
}

/// The backend of a packet whose choice is not remembered, or may be forgotten: from the middle of a connection without an
/// entry, or while the table is full or flooded. Always the same for a client, by hashing. With a service that hashes anyway:
/// where both the present and the previous slots say; where they differ, to where it would have gone before, while that is up.
#[inline(always)]
fn choose_for_good<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    number: u16,
) -> Result<(u16, Outcome), Outcome> {
    let service = tables.service(number)?;
    let id = choose(context, segment, tables, number, By::Hash, 0)?;
    let at_risk = if segment.opens() {
        Outcome::ToBackend
    } else {
        Outcome::ToBackendAtRisk
    };
    if !hashes(service) {
        return Ok((id, at_risk));
    }
    let Some(before) = Slots::before(service) else {
        return Ok((id, Outcome::ToBackend));
    };
    let before = before.by_hash(tables, hash_of(service, segment))?;
    if before == id {
        return Ok((id, Outcome::ToBackend));
    }
    explain::note(Decision::Differ, u64::from(id), u64::from(before));
    let is_up = tables
        .backend(before)
        .is_some_and(|backend| backend.flags & Backend::UP != 0);
    Ok((if is_up { before } else { id }, at_risk))
}

/// So many half-open entries had to make room, one or none since it was spared. If many of those are but seconds old, the table is
/// being flooded.
#[inline(always)]
fn note_eviction(evicted: u64, young: bool, now: Tick) {
    let Some(evictions) = EVICTIONS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
    let evictions = unsafe { &mut *evictions };
    evictions.all += evicted;
    if !young {
        return;
    }
    if evictions.tick != u64::from(now.0) {
        (evictions.tick, evictions.young) = (u64::from(now.0), 0);
    }
    evictions.young += 1;
    if evictions.young >= Evictions::FLOOD {
        note_flood(now);
    }
}
