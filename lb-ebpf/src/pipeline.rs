//! The stages of a packet's life, in order.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, MAX_SIBLINGS, Membership};
use lb_common::connection_table::Value;
use lb_common::connection_table::entry::ipv4_key;
use lb_common::outcome::Outcome;
use lb_common::return_hop::HopSlot;
use lb_common::tcp_state::{Sender, State};
use lb_common::wire::Frame as _;
use lb_common::word::Word as _;

use crate::connection_table::{self, hop_slot};
use crate::forward::{Route, Verdict, route};
use crate::maps::{SERVICE_STATES, element};
use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::refuse::answer_with_rst;
use crate::service_lookup::Tables;
use crate::{counters, new_connection, rewrite};

/// For how many ticks after an untracked connection answers without an entry are rewritten: about half a minute.
const UNTRACKED_TICKS: u16 = 8;

/// Decides about a packet and changes it accordingly.
#[inline(always)]
pub fn run(context: &XdpContext) -> Verdict {
    judge(context).unwrap_or_else(Verdict::from)
}

#[inline(always)]
fn judge(context: &XdpContext) -> Result<Verdict, Outcome> {
    let segment = parse(&Packet::of(context))?;
    let tables = Tables::active()?;
    if let Some(service) = tables.service_number(segment.ipv4.destination, segment.tcp.destination_port) {
        return from_client(context, &segment, &tables, service);
    }
    if let Some(membership) = tables.membership(segment.ipv4.source, segment.tcp.source_port) {
        return from_backend(context, &segment, &tables, membership);
    }
    Err(Outcome::NotOurs)
}

/// Whether a packet may be sent on at all.
#[inline(always)]
pub fn is_forwardable(segment: &Segment) -> Result<(), Outcome> {
    if segment.ipv4.first_fragment {
        Err(Outcome::FragmentOfService)
    } else if segment.ipv4.time_to_live <= 1 {
        Err(Outcome::TimeToLiveOver)
    } else {
        Ok(())
    }
}

/// A packet to a service: it keeps its backend, or gets one.
#[inline(always)]
fn from_client(
    context: &XdpContext,
    segment: &Segment,
    tables: &Tables,
    number: u16,
) -> Result<Verdict, Outcome> {
    let key = ipv4_key(segment.ipv4.source, segment.tcp.source_port, number);
    let home = connection_table::home(&key).ok_or(Outcome::Impossible)?;
    if let Some(entry) = home.find(&key)
        && let Some(backend) = keeps(tables, segment, entry.1)
    {
        is_forwardable(segment)?;
        if backend.flags & Backend::RESET != 0 {
            let closed = entry.1.with(State::Closed, entry.1.hop(), entry.1.deadline());
            entry.0.update(entry.1, closed);
            return Err(answer_with_rst(context, segment, Outcome::ResetBackendDown));
        }
        let hop = return_hop(context, segment, entry.1.hop());
        connection_table::note(
            &home,
            &key,
            entry,
            backend,
            (Sender::Client, segment.tcp.flags),
            Some(hop),
        );
        return to_backend(context, segment, entry.1.backend(), backend, Outcome::ToBackend);
    }
    let (id, outcome) = match new_connection::decide(context, tables, number) {
        Ok(decided) => decided,
        Err(Outcome::RefusedNoBackend) => {
            return Err(answer_with_rst(context, segment, Outcome::RefusedNoBackend));
        }
        Err(outcome) => return Err(outcome),
    };
    let backend = tables.backend(id).ok_or(Outcome::Impossible)?;
    to_backend(context, segment, id, backend, outcome)
}

/// The backend of a known connection, unless this is a new connection from the same port, or its backend cannot take a
/// new one, or is gone.
#[inline(always)]
pub fn keeps(tables: &Tables, segment: &Segment, value: Value) -> Option<&'static Backend> {
    let backend = tables.backend(value.backend())?;
    if segment.tcp.flags.opens() && (value.state().is_over() || backend.flags & Backend::UP == 0) {
        return None;
    }
    Some(backend)
}

#[inline(always)]
pub fn return_hop(context: &XdpContext, segment: &Segment, known: u16) -> u16 {
    connection_table::return_hop(&segment.ethernet, context.ingress_ifindex() as u32, known)
}

/// Sends a client's packet to its backend.
#[inline(always)]
fn to_backend(
    context: &XdpContext,
    segment: &Segment,
    id: u16,
    backend: &Backend,
    outcome: Outcome,
) -> Result<Verdict, Outcome> {
    let packet = Packet::of(context);
    counters::to_backend(id, packet.length());
    rewrite::to_backend(&packet, segment, backend)?;
    if backend.interface_index == 0 {
        let route = route(
            context,
            segment.ipv4.source,
            ipv4_address(&backend.address),
            segment.ipv4.total_length,
        );
        return leave(&packet, route, outcome, Outcome::ToBackendByKernel);
    }
    rewrite::ethernet(&packet, words(&backend.ethernet))?;
    Ok(Verdict {
        outcome,
        interface_index: backend.interface_index,
    })
}

/// A packet from a backend's endpoint: the answer to a client, or nothing of ours.
#[inline(always)]
fn from_backend(
    context: &XdpContext,
    segment: &Segment,
    tables: &Tables,
    first: Membership,
) -> Result<Verdict, Outcome> {
    let mut membership = Some(first);
    for _ in 0..MAX_SIBLINGS {
        let Some(candidate) = membership else { break };
        let key = ipv4_key(
            segment.ipv4.destination,
            segment.tcp.destination_port,
            candidate.service,
        );
        let home = connection_table::home(&key).ok_or(Outcome::Impossible)?;
        if let Some(entry) = home.find(&key)
            && entry.1.backend() == candidate.backend
        {
            if segment.tcp.flags.accepts() && entry.1.state().is_over() {
                // The client talks to the backend directly, from a port whose balanced connection is over.
                entry.0.remove(entry.1);
                return Err(Outcome::NoConnection);
            }
            is_forwardable(segment)?;
            let backend = tables.backend(candidate.backend).ok_or(Outcome::Impossible)?;
            connection_table::note(
                &home,
                &key,
                entry,
                backend,
                (Sender::Backend, segment.tcp.flags),
                None,
            );
            return to_client(context, segment, candidate.backend, backend, entry.1.hop());
        }
        membership = tables.next_membership(candidate);
    }
    untracked_to_client(context, segment, tables, first)
}

/// Sends a backend's packet back the way that the client's last one came.
#[inline(always)]
fn to_client(
    context: &XdpContext,
    segment: &Segment,
    id: u16,
    backend: &Backend,
    hop: u16,
) -> Result<Verdict, Outcome> {
    let packet = Packet::of(context);
    counters::to_client(id, packet.length());
    rewrite::to_client(&packet, segment, backend)?;
    let Some(hop) = hop_slot(u32::from(hop)).and_then(HopSlot::read) else {
        let route = route(
            context,
            ipv4_address(&backend.vip),
            segment.ipv4.destination,
            segment.ipv4.total_length,
        );
        return leave(&packet, route, Outcome::ToClient, Outcome::ToClientByKernel);
    };
    rewrite::ethernet(&packet, hop.answer().to_words())?;
    Ok(Verdict {
        outcome: Outcome::ToClient,
        interface_index: hop.interface_index(),
    })
}

/// An answer without an entry: only while its service has connections without entries, only from an endpoint of a single
/// service, and never to the host itself.
#[inline(always)]
fn untracked_to_client(
    context: &XdpContext,
    segment: &Segment,
    tables: &Tables,
    membership: Membership,
) -> Result<Verdict, Outcome> {
    let state = element(&SERVICE_STATES, u32::from(membership.service)).ok_or(Outcome::Impossible)?;
    let last = state.untracked.load();
    let age = connection_table::now()
        .0
        .wrapping_sub((last as u16).wrapping_sub(1));
    if last == 0 || age > UNTRACKED_TICKS || membership.next != 0 {
        return Err(Outcome::NoConnection);
    }
    is_forwardable(segment)?;
    let backend = tables.backend(membership.backend).ok_or(Outcome::Impossible)?;
    let route = route(context, 0, segment.ipv4.destination, segment.ipv4.total_length);
    if matches!(route, Route::NotForwarded) {
        return Err(Outcome::NoConnection);
    }
    let packet = Packet::of(context);
    counters::to_client(membership.backend, packet.length());
    rewrite::to_client(&packet, segment, backend)?;
    leave(
        &packet,
        route,
        Outcome::ToClientUntracked,
        Outcome::ToClientByKernel,
    )
}

/// Sends a rewritten packet where the routing table says, if need be by the kernel.
#[inline(always)]
fn leave(packet: &Packet, route: Route, outcome: Outcome, by_kernel: Outcome) -> Result<Verdict, Outcome> {
    match route {
        Route::Known(ethernet, interface_index) => {
            rewrite::ethernet(packet, ethernet.to_words())?;
            Ok(Verdict {
                outcome,
                interface_index,
            })
        }
        Route::Kernel | Route::NotForwarded => Err(by_kernel),
    }
}

#[inline(always)]
fn ipv4_address(padded: &[u8; 16]) -> u32 {
    let [a, b, c, d, ..] = *padded;
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn words(bytes: &[u8; 12]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
    ]
}
