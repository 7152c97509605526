//! A backend's packets of connections that are not known: answers only if the service has connections without entries,
//! else nothing of ours.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::Membership;
use lb_common::explain::Decision;
use lb_common::outcome::Outcome;
use lb_common::wire::Frame as _;
use lb_common::word::Word as _;

use crate::connection_table::{is_flooded, is_recent, now};
use crate::forward::{How, Verdict, route};
use crate::fragment;
use crate::maps::{SERVICE_STATES, element};
use crate::mtu::{self, Otherwise};
use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::pipeline::{Client, Path, is_forwardable, leave, rewrite_to_client};
use crate::service_lookup::Tables;
use crate::{counters, explain};

/// Decides about a packet and changes it accordingly.
#[inline(always)]
pub fn run<F: Path<K>, const K: usize>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let segment = parse::<F>(&Packet::of(context))?;
    let tables = Tables::active()?;
    let (network, transport) = (&segment.network, &segment.transport);
    match tables.membership::<F>(network.source, transport.source_port, network.protocol) {
        Some(membership) => {
            without_entry::<F, K>(context, &segment, &tables, Membership::unpack(membership.get()))
        }
        None => Err(Outcome::NotOurs),
    }
}

/// Whether what has to do with an endpoint may belong to a connection without an entry: of a stateless service; or else while
/// its service has connections without entries; or if it `opens` one, whose entry may already be lost, while the table is
/// flooded. Only if the endpoint serves a single service.
#[inline(always)]
pub fn answers_without_entry(membership: Membership, opens: bool) -> Result<bool, Outcome> {
    if membership.next != 0 || membership.is(Membership::FULL_NAT) {
        return Ok(false);
    }
    let state = element(&SERVICE_STATES, u32::from(membership.service)).ok_or(Outcome::Impossible)?;
    let now = now();
    Ok(membership.is(Membership::STATELESS)
        || is_recent(state.untracked.load(), now)
        || opens && is_flooded(now))
}

/// An answer without an entry; never to the host itself.
#[inline(always)]
fn without_entry<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    membership: Membership,
) -> Result<Verdict, Outcome> {
    let opens = !segment.is_tcp() || segment.transport.flags.accepts();
    if tables.is_migrating() && !membership.is(Membership::STATELESS) {
        return Err(Outcome::Migrating);
    }
    let answers = answers_without_entry(membership, opens)?;
    explain::note(Decision::Untracked, membership.pack(), u64::from(answers));
    if !answers {
        return Err(Outcome::NoConnection);
    }
    is_forwardable(segment)?;
    let backend = tables.backend(membership.backend).ok_or(Outcome::Impossible)?;
    if !F::is(segment.network.source, &backend.address) {
        return Err(Outcome::NotOurs);
    }
    let (vip, client) = (F::of_record(&backend.vip), segment.network.destination);
    let mut route = route::<F>(context, vip, client);
    if route.how == How::NotForwarded {
        return Err(Outcome::NoConnection);
    }
    if segment.network.length as u32 > tables.smallest_mtu() {
        route = mtu::fitting::<F, K>(context, route, 0, Otherwise::ANYTHING)?;
    }
    if segment.is_fragment() {
        fragment::note_to_client::<F, K>(context, membership.backend, 0, client);
    }
    let packet = Packet::of(context);
    counters::to_client(membership.backend, packet.length());
    let client = Client {
        address: client,
        port: segment.transport.destination_port,
        is_hidden: false,
    };
    rewrite_to_client(&packet, segment, backend, &client)?;
    let outcome = if membership.is(Membership::STATELESS) {
        Outcome::ToClientStateless
    } else {
        Outcome::ToClientUntracked
    };
    leave(context, route, outcome, Outcome::ToClientByKernel)
}
