//! Packets of connections that are not known: a client's gets a backend, and mostly an entry; a backend's is an answer only if
//! its service has connections without entries.
//!
//! This is a program of its own, which starts over with parsing. That costs a new connection some ns, and saves them with
//! every packet of a known one: in between, the compiler need not keep anything for this.

use core::num::NonZeroU64;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, Choice, Listener, Membership, Mode, Service};
use lb_common::connection_table::{Inserted, Value};
use lb_common::outcome::Outcome;
use lb_common::tcp_state::{State, TimeoutClass};
use lb_common::tick::Tick;
use lb_common::wire::Frame as _;
use lb_common::word::Word as _;

use crate::answer::answer;
use crate::backend_choice::{By, Slots, choose, hash_of, hashes};
use crate::connection_table::{self, is_flooded, pressure};
use crate::counters;
use crate::forward::{How, Verdict, route};
use crate::fragment;
use crate::maps::{BACKEND_STATES, SERVICE_STATES, element};
use crate::own_ports::{self, Owner};
use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::pipeline::{
    Client, Path, Towards, is_forwardable, keeps, leave, return_hop, rewrite_to_client, to_backend, vip_port,
};
use crate::service_lookup::Tables;

/// Decides about a packet and changes it accordingly.
#[inline(always)]
pub fn run<F: Path<K>, const K: usize>(context: &XdpContext) -> Verdict {
    judge::<F, K>(context).unwrap_or_else(Verdict::from)
}

#[inline(always)]
fn judge<F: Path<K>, const K: usize>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let segment = parse::<F>(&Packet::of(context))?;
    let tables = Tables::active()?;
    let (network, transport) = (&segment.network, &segment.transport);
    let protocol = network.protocol;
    if let Some(listener) = tables.listener::<F>(network.destination, transport.destination_port, protocol) {
        return from_client::<F, K>(context, &segment, &tables, listener);
    }
    if let Some(membership) = tables.membership::<F>(network.source, transport.source_port, protocol) {
        let membership = Membership::unpack(membership.get());
        return Err(Outcome::NoConnection);
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
            to_backend(context, segment, tables, towards, backend, outcome)
        }
        Err(outcome) if is_answered(outcome) => Err(answer::<F, K>(context, outcome, 0)),
        Err(outcome) => Err(outcome),
    }
}

/// Whether the client is told.
#[inline(always)]
fn is_answered(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::RefusedNoBackend | Outcome::FullNatUnknown | Outcome::ResetBackendDown
    )
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
    let key = &key_of(listener, segment);
    let home = F::home(key).ok_or(Outcome::Impossible)?;
    if !listener.is(Listener::STATELESS)
        && let Some((way, value)) = home.find(key)
        && let Some(backend) = keeps(tables, segment, value)
    {
        is_forwardable(segment)?;
        if backend.flags & Backend::RESET != 0 {
            way.update(value, value.with(State::Closed, value.hop(), value.deadline()));
            return Err(Outcome::ResetBackendDown);
        }
        // Another CPU has just made an entry: whatever it decided holds.
        return Ok((Towards::of(value), Outcome::ToBackend));
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
    let now = connection_table::now();
    let opens = segment.opens();
    let by = if opens && !listener.is(Listener::STATELESS) && !is_flooded(now) {
        By::Service
    } else {
        By::Hash
    };
    let mut id = choose::<F, K>(context, tables, number, by)?;
    let mut outcome = Outcome::ToBackend;
    if listener.is(Listener::STATELESS) {
        return Ok((Towards { id, port: 0 }, Outcome::ToBackendStateless));
    }
    if !opens {
        (id, outcome) = mid_flow(tables, service, segment, id)?;
    }
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
        own_ports::allocate::<F, K>(tables, id, &owner, now)?
    } else {
        0
    };
    let state = if opens && segment.is_tcp() {
        State::SynSeen
    } else {
        State::Unconfirmed
    };
    let deadline = now.after(backend.timeout(state.timeout_class()));
    let value = Value::new(state, id, return_hop(context, segment, 0), deadline).with_port(own_port);
    match F::store(context.ctx, tables.copy(), listener.0.get(), value.0) {
        STORED => {}
        FULL if full_nat => return Err(Outcome::TableFull),
        FULL => {
            let state = element(&SERVICE_STATES, u32::from(number)).ok_or(Outcome::Impossible)?;
            state.untracked.store(u64::from(now.0) + 1);
            let id = choose::<F, K>(context, tables, number, By::Hash)?;
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

/// What [`store`] gives but for another CPU's value, which is never so small.
const STORED: u64 = 0;
const FULL: u64 = 1;

/// Enters a packet's connection with a value, in the place of the entry that the client's port had before. [`STORED`],
/// [`FULL`], or the value that another CPU has just entered, which holds.
#[inline(always)]
pub fn store<F: Path<K>, const K: usize>(context: *mut xdp_md, copy: u32, listener: u64, value: u64) -> u64 {
    let context = XdpContext::new(context);
    let Ok(segment) = parse::<F>(&Packet::of(&context)) else {
        return FULL;
    };
    let Ok(tables) = Tables::of(copy) else { return FULL };
    let Some(listener) = NonZeroU64::new(listener).map(Listener) else {
        return FULL;
    };
    let key = &key_of(listener, &segment);
    let Some(home) = F::home(key) else { return FULL };
    let value = Value(value);
    if let Some((way, before)) = home.find(key) {
        if keeps(&tables, &segment, before).is_some() {
            return before.0;
        }
        if way.replace(before, key, value) {
            return STORED;
        }
    }
    let now = connection_table::now();
    match home.insert(key, value, now) {
        Inserted::Stored => STORED,
        Inserted::StoredEvicting(left) => {
            if let Some(backend) = tables.backend(value.backend()) {
                note_eviction(left, backend, now);
            }
            STORED
        }
        Inserted::Exists(_, value) => value.0,
        Inserted::Full => FULL,
    }
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

/// Where a packet from the middle of a connection without an entry goes. With a service that hashes: where both the present
/// and the previous slots say; where they differ, to where it would have gone before, while that is up.
#[inline(always)]
fn mid_flow<F: Path<K>, const K: usize>(
    tables: &Tables,
    service: &Service,
    segment: &Segment<F>,
    id: u16,
) -> Result<(u16, Outcome), Outcome> {
    if !hashes(service) {
        return Ok((id, Outcome::ToBackendAtRisk));
    }
    let Some(before) = Slots::before(service) else {
        return Ok((id, Outcome::ToBackend));
    };
    let before = before.by_hash(tables, hash_of(service, segment))?;
    if before == id {
        return Ok((id, Outcome::ToBackend));
    }
    let is_up = tables
        .backend(before)
        .is_some_and(|backend| backend.flags & Backend::UP != 0);
    Ok((if is_up { before } else { id }, Outcome::ToBackendAtRisk))
}

/// A half-open entry had to make room. If it was but seconds old, the table is being flooded.
#[inline(always)]
fn note_eviction(left: u16, backend: &Backend, now: Tick) {
    let Some(pressure) = pressure() else { return };
    pressure.evicted.fetch_increment();
    // Its own service's timeout is not at hand; this one's stands for it.
    if left + 1 >= backend.timeout(TimeoutClass::HalfOpen) {
        pressure.flooded.store(u64::from(now.0) + 1);
    }
}

/// An answer without an entry: of a stateless service; or else while its service has connections without entries, or the
/// table is flooded; only from an endpoint of a single service, and never to the host itself.
#[inline(always)]
fn without_entry<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    membership: Membership,
) -> Result<Verdict, Outcome> {
    let stateless = membership.is(Membership::STATELESS);
    let state = element(&SERVICE_STATES, u32::from(membership.service)).ok_or(Outcome::Impossible)?;
    let now = connection_table::now();
    if membership.next != 0
        || membership.is(Membership::FULL_NAT)
        || !(stateless
            || connection_table::is_recent(state.untracked.load(), now)
            || connection_table::is_flooded(now))
    {
        return Err(Outcome::NoConnection);
    }
    is_forwardable(segment)?;
    let backend = tables.backend(membership.backend).ok_or(Outcome::Impossible)?;
    if !F::is(segment.network.source, &backend.address) {
        return Err(Outcome::NotOurs);
    }
    let (vip, client) = (F::of_record(&backend.vip), segment.network.destination);
    let route = route::<F>(context, vip, client, segment.network.length);
    if route.how == How::NotForwarded {
        return Err(Outcome::NoConnection);
    }
    if segment.is_fragment() {
        fragment::note_to_client(segment, membership.backend, 0, client);
    }
    let packet = Packet::of(context);
    counters::to_client(membership.backend, packet.length());
    let client = Client {
        address: client,
        port: segment.transport.destination_port,
        is_hidden: false,
    };
    rewrite_to_client(&packet, segment, backend, &client)?;
    let outcome = if stateless {
        Outcome::ToClientStateless
    } else {
        Outcome::ToClientUntracked
    };
    leave(&packet, route, outcome, Outcome::ToClientByKernel)
}
