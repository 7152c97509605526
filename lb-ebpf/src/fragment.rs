//! Fragments: the first one of a datagram has the ports and goes the way of any packet; what was decided is noted for the
//! later ones, which have none.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, FragmentKey, FragmentNote, Mode};
use lb_common::checksum::Delta;
use lb_common::family::Family;
use lb_common::outcome::Outcome;
use lb_common::wire::ethernet;
use lb_common::wire::network::{Fragment, Network};

use crate::connection_table::{jiffies, known_hop};
use crate::encapsulate::{encapsulate, overhead};
use crate::forward::{How, Route, Verdict, route};
use crate::maps::{FRAGMENTS, TICK_SHIFT};
use crate::mtu::{self, Fit};
use crate::packet::Packet;
use crate::parse::Segment;
use crate::pipeline::{Path, Towards, leave, words};
use crate::rewrite;
use crate::service_lookup::Tables;

/// For how many ticks a first fragment is remembered: about as long as Linux waits for the rest of a datagram (30 s).
const REMEMBERED_TICKS: u64 = 8;

/// Notes where a client's first fragment went.
#[inline(always)]
pub fn note_to_backend<F: Family>(segment: &Segment<F>, towards: Towards) {
    note::<F>(
        &segment.network,
        &FragmentNote {
            jiffies: jiffies(),
            backend: towards.id,
            direction: FragmentNote::TO_BACKEND,
            ..FragmentNote::default()
        },
    );
}

/// Notes where a backend's first fragment went.
#[inline(always)]
pub fn note_to_client<F: Family>(segment: &Segment<F>, id: u16, hop: u16, client: F::Address) {
    note::<F>(
        &segment.network,
        &FragmentNote {
            jiffies: jiffies(),
            backend: id,
            hop,
            direction: FragmentNote::TO_CLIENT,
            client: F::to_record(client),
            ..FragmentNote::default()
        },
    );
}

#[inline(always)]
fn note<F: Family>(network: &Network<F::Address>, what: &FragmentNote) {
    insert(&key::<F>(network), what);
}

/// Out of line: few packets are fragments, and the key and the note lie on the stack.
#[inline(never)]
fn insert(key: &FragmentKey, what: &FragmentNote) {
    // A full table makes room by itself; whatever fails here costs a datagram, which the later fragments' outcome tells.
    let _ = FRAGMENTS.insert(key, what, 0);
}

#[inline(always)]
fn key<F: Family>(network: &Network<F::Address>) -> FragmentKey {
    FragmentKey {
        source: F::to_record(network.source),
        destination: F::to_record(network.destination),
        identification: network.identification,
        protocol: u32::from(network.protocol) << 8 | F::VERSION,
    }
}

/// Decides about a later fragment and changes it accordingly.
#[inline(always)]
pub fn run<F: Path<K>, const K: usize>(context: &XdpContext) -> Verdict {
    judge::<F, K>(context).unwrap_or_else(Verdict::from)
}

#[inline(always)]
fn judge<F: Path<K>, const K: usize>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let packet = Packet::of(context);
    ethernet::parse(&packet)?;
    let network = F::parse(&packet)?;
    if !matches!(network.fragment, Fragment::Later) {
        return Err(Outcome::Impossible);
    }
    let tables = Tables::active()?;
    // SAFETY: whoever changes an element meanwhile writes a note on the same datagram.
    let note = unsafe { FRAGMENTS.get(&key::<F>(&network)) };
    let fresh = |note: &&FragmentNote| {
        (jiffies().wrapping_sub(note.jiffies)) >> (TICK_SHIFT.load() & 63) <= REMEMBERED_TICKS
    };
    let Some(note) = note.filter(fresh) else {
        return Err(if tables.vip::<F>(network.destination).is_some() {
            Outcome::FragmentUnmatched
        } else {
            Outcome::FragmentOfNobody
        });
    };
    if network.time_to_live <= 1 {
        return Err(Outcome::TimeToLiveOver);
    }
    let backend = tables.backend(note.backend).ok_or(Outcome::Impossible)?;
    if note.direction == FragmentNote::TO_BACKEND {
        to_backend::<F, K>(context, &network, &tables, note.backend, backend)
    } else {
        to_client::<F, K>(context, &network, &tables, note, backend)
    }
}

#[inline(always)]
fn to_backend<F: Path<K>, const K: usize>(
    context: &XdpContext,
    network: &Network<F::Address>,
    tables: &Tables,
    id: u16,
    backend: &Backend,
) -> Result<Verdict, Outcome> {
    let tunnels = backend.mode == Mode::Ipip as u8;
    let growth = if tunnels { overhead(backend) } else { 0 };
    let mut by_kernel = backend.interface_index == 0;
    if (network.length + growth) as u32 > tables.smallest_mtu() {
        let fit = mtu::fit::<F, K>(context, backend.interface_index, growth)?;
        by_kernel |= matches!(fit, Fit::InFragments);
    }
    if by_kernel && backend.mode != Mode::Nat as u8 {
        return Err(Outcome::NeighbourUnknown);
    }
    let ethernet = words(&backend.ethernet);
    let verdict = Verdict {
        outcome: Outcome::FragmentToBackend,
        interface_index: backend.interface_index,
    };
    if tunnels {
        encapsulate::<F>(context, network.length, backend, tables.outer(id)?, ethernet)?;
        return Ok(verdict);
    }
    let packet = Packet::of(context);
    let destination = Some(F::of_record(&backend.address));
    if backend.mode == Mode::FullNat as u8 {
        let own = F::of_record(&tables.outer(id)?.source);
        let delta = backend.network_delta.and(F::delta(network.source, own));
        F::route(&packet, Some(own), destination, delta)?;
    } else if backend.mode == Mode::Nat as u8 {
        F::route(&packet, None, destination, backend.network_delta)?;
    }
    if by_kernel {
        return Err(Outcome::ToBackendByKernel);
    }
    rewrite::ethernet(&packet, ethernet)?;
    Ok(verdict)
}

#[inline(always)]
fn to_client<F: Path<K>, const K: usize>(
    context: &XdpContext,
    network: &Network<F::Address>,
    tables: &Tables,
    note: &FragmentNote,
    backend: &Backend,
) -> Result<Verdict, Outcome> {
    let known = known_hop(note.hop);
    let client = F::of_record(&note.client);
    let vip = F::of_record(&backend.vip);
    let mut by_kernel = false;
    if network.length as u32 > tables.smallest_mtu() {
        by_kernel = matches!(mtu::fit::<F, K>(context, known.interface_index(), 0)?, Fit::InFragments);
    }
    let route = if by_kernel {
        Route::other(How::Kernel)
    } else if known.is_known() {
        Route::known(known.answer().to_words(), known.interface_index())
    } else {
        route::<F>(context, vip, client, network.length)
    };
    let packet = Packet::of(context);
    let moved = if client == network.destination {
        Delta::ZERO
    } else {
        F::delta(network.destination, client)
    };
    let delta = backend.network_delta.inverse().and(moved);
    F::route(&packet, Some(vip), Some(client), delta)?;
    leave(&packet, route, Outcome::FragmentToClient, Outcome::ToClientByKernel)
}
