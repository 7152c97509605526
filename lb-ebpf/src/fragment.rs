//! Fragments: the first one of a datagram has the ports and goes the way of any packet; what was decided is noted for the
//! later ones, which have none.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, FragmentKey, FragmentNote, Mode};
use lb_common::checksum::Delta;
use lb_common::explain::Decision;
use lb_common::family::Family;
use lb_common::hash::Seed;
use lb_common::outcome::Outcome;
use lb_common::wire::network::{Fragment, Network};
use lb_common::wire::{Frame as _, ethernet};

use crate::connection_table::{jiffies, known_hop};
use crate::counters;
use crate::encapsulate::{encapsulate, overhead};
use crate::explain::{self, is_dry};
use crate::forward::{How, Route, Verdict};
use crate::maps::{FRAGMENTS, TICK_SHIFT};
use crate::mtu::{self, Otherwise};
use crate::packet::Packet;
use crate::pipeline::{Path, Towards, leave, way_back};
use crate::rewrite;
use crate::service_lookup::Tables;

/// For how many ticks a first fragment is remembered: about as long as Linux waits for the rest of a datagram (30 s).
const REMEMBERED_TICKS: u64 = 8;
const CHECK: Seed = Seed::new(0x6672_6167_6d65_6e74);

/// Notes where a client's first fragment goes. The packet must still be as it came.
#[inline(always)]
pub fn note_to_backend<F: Path<K>, const K: usize>(context: &XdpContext, towards: Towards) {
    F::note_fragment(context.ctx, Noted::to_backend(towards.id), 0, 0);
}

/// Notes where a backend's first fragment goes. The packet must still be as it came.
#[inline(always)]
pub fn note_to_client<F: Path<K>, const K: usize>(
    context: &XdpContext,
    id: u16,
    hop: u16,
    client: F::Address,
) {
    let [low, high] = F::to_record(client);
    F::note_fragment(context.ctx, Noted::to_client(id, hop), low, high);
}

/// Notes that a first fragment is the kernel's, if it is for a VIP: else its later ones would not be.
#[inline(always)]
pub fn note_passed<F: Path<K>, const K: usize>(
    context: &XdpContext,
    tables: &Tables,
    destination: F::Address,
) {
    if tables.vip::<F>(destination).is_some() {
        F::note_fragment(context.ctx, Noted::PASSED, 0, 0);
    }
}

/// What is noted beside addresses, packed: backend's id, number of the hop, direction.
struct Noted;

impl Noted {
    const PASSED: u64 = (FragmentNote::PASSED as u64) << 32;

    #[inline(always)]
    fn to_backend(id: u16) -> u64 {
        u64::from(id) | u64::from(FragmentNote::TO_BACKEND) << 32
    }

    #[inline(always)]
    fn to_client(id: u16, hop: u16) -> u64 {
        u64::from(id) | u64::from(hop) << 16 | u64::from(FragmentNote::TO_CLIENT) << 32
    }
}

/// Notes what is [`Noted`] of a packet, and the client's address. A function of its own: few packets are fragments, and the
/// key and the note need room on the stack.
#[inline(always)]
pub fn note<F: Family>(context: *mut xdp_md, noted: u64, low: u64, high: u64) -> u64 {
    let Ok(network) = F::parse(&Packet::of(&XdpContext::new(context))) else {
        return 0;
    };
    let key = key::<F>(&network);
    let note = FragmentNote {
        jiffies: jiffies(),
        backend: noted as u16,
        hop: (noted >> 16) as u16,
        direction: (noted >> 32) as u16,
        check: check(&key),
        client: [low, high],
    };
    if is_dry() {
        return 0;
    }
    // A full table makes room by itself; whatever fails here costs a datagram, which the later fragments' outcome tells.
    let _ = FRAGMENTS.insert(key, note, 0);
    0
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

#[inline(always)]
fn check(key: &FragmentKey) -> u16 {
    let words = [
        key.source[0],
        key.source[1],
        key.destination[0],
        key.destination[1],
        u64::from(key.identification) | u64::from(key.protocol) << 32,
    ];
    CHECK.hash(&words) as u16
}

/// Decides about a later fragment and changes it accordingly.
#[inline(always)]
pub fn run<F: Path<K>, const K: usize>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let packet = Packet::of(context);
    ethernet::parse(&packet)?;
    let network = F::parse(&packet)?;
    if !matches!(network.fragment, Fragment::Later) {
        return Err(Outcome::Impossible);
    }
    let tables = Tables::active()?;
    let key = key::<F>(&network);
    // SAFETY: a copy, which is checked below: the kernel may give the memory to another datagram's note at any time.
    let note = unsafe { FRAGMENTS.get(key).copied() }.unwrap_or_default();
    let age = jiffies().wrapping_sub(note.jiffies) >> (TICK_SHIFT.load() & 63);
    let holds = note.direction != 0 && note.check == check(&key) && age <= REMEMBERED_TICKS;
    if holds && note.direction == FragmentNote::PASSED {
        return Err(Outcome::FragmentOfNobody);
    }
    let Some(backend) = tables.backend(note.backend).filter(|_| holds) else {
        return Err(if tables.vip::<F>(network.destination).is_some() {
            Outcome::FragmentUnmatched
        } else {
            Outcome::FragmentOfNobody
        });
    };
    explain::note(Decision::Concerns, u64::from(note.backend), 0);
    if network.time_to_live <= 1 {
        return Err(Outcome::TimeToLiveOver);
    }
    if note.direction == FragmentNote::TO_BACKEND {
        to_backend::<F, K>(context, &network, &tables, note.backend, backend)
    } else {
        to_client::<F, K>(context, &network, &tables, &note, backend)
    }
}

/// What may be done with a later fragment that does not fit. No IPv4 error is ever sent about one (RFC 1122 section 3.2.2): the
/// first one has been answered.
#[inline(always)]
fn otherwise<F: Family>(cut: bool) -> Otherwise {
    Otherwise {
        cut,
        answer: F::VERSION == 6,
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
    let mut route = Route::known(backend.ethernet, backend.interface_index);
    if backend.interface_index == 0 {
        route = Route::other(How::Kernel);
    }
    if (network.length + growth) as u32 > tables.smallest_mtu() {
        let cut = backend.mode == Mode::Nat as u8;
        route = mtu::fitting::<F, K>(context, route, growth, otherwise::<F>(cut))?;
    }
    let by_kernel = route.how != How::Known;
    if by_kernel && backend.mode != Mode::Nat as u8 {
        return Err(Outcome::NeighbourUnknown);
    }
    counters::to_backend(id, Packet::of(context).length());
    let leaves = || Verdict::leaves(context, Outcome::FragmentToBackend, route.interface_index);
    if tunnels {
        encapsulate::<F>(
            context,
            network.length,
            backend,
            tables.outer(id)?,
            route.ethernet,
        )?;
        return Ok(leaves());
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
    rewrite::ethernet(&packet, route.ethernet)?;
    Ok(leaves())
}

#[inline(always)]
fn to_client<F: Path<K>, const K: usize>(
    context: &XdpContext,
    network: &Network<F::Address>,
    tables: &Tables,
    note: &FragmentNote,
    backend: &Backend,
) -> Result<Verdict, Outcome> {
    let client = F::of_record(&note.client);
    let vip = F::of_record(&backend.vip);
    let mut route = way_back::<F>(context, known_hop(note.hop), vip, client);
    if network.length as u32 > tables.smallest_mtu() {
        route = mtu::fitting::<F, K>(context, route, 0, otherwise::<F>(true))?;
    }
    let packet = Packet::of(context);
    counters::to_client(note.backend, packet.length());
    let moved = if client == network.destination {
        Delta::ZERO
    } else {
        F::delta(network.destination, client)
    };
    let delta = backend.network_delta.inverse().and(moved);
    F::route(&packet, Some(vip), Some(client), delta)?;
    leave(
        context,
        route,
        Outcome::FragmentToClient,
        Outcome::ToClientByKernel,
    )
}
