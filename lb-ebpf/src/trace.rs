//! Tracing: a second instance of this object is called instead of the attached one, decides in its stead, and sends what it
//! noted to the daemon.
//!
//! If the daemon dies over that, the kernel empties the second instance's array of programs. What it cannot call there it leaves
//! to the first instance's programs, which start over with parsing and so may be called from anywhere.

use core::hint::black_box;
use core::mem::offset_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{self, ATTACHED_PLACE, TRACED_PLACE};
use lb_common::explain::{HEAD, Notes, TraceFilter, TraceState};
use lb_common::family::{Family, Ipv4, Ipv6};
use lb_common::outcome::Outcome;
use lb_common::wire::Frame as _;
use lb_common::wire::ethernet::{self, Carries};
use lb_common::wire::segment::{self, Kind};

use crate::explain::{self, notes};
use crate::global;
use crate::maps::{CONTROL, LIVE_PROGRAMS, PROGRAMS, TRACE, TRACE_FILTER, TRACE_STATE, TRACED, element};
use crate::packet::Packet;

const SECOND: u64 = 1_000_000_000;

/// Lets the second instance decide about a frame, if there is one that traces. It does not come back.
#[inline(always)]
pub fn hand_over(context: &XdpContext, control: &abi::Control) {
    // SAFETY: a reference to an aligned word; the daemon changes it at any time.
    let traced = unsafe { (&raw const control.traced).read_volatile() };
    if traced != 0 && !explain::is_asked() {
        // SAFETY: the daemon has put the second instance's first program there. If there is none, the frame is ours.
        unsafe { PROGRAMS.tail_call(context, TRACED_PLACE) };
    }
}

/// Notes a frame as it came, and has the second instance's `lb` decide about it.
#[inline(always)]
pub fn begin(context: &XdpContext) -> Outcome {
    if let Some(notes) = notes() {
        note_frame(context, notes);
    }
    // SAFETY: the daemon has put this instance's `lb` there.
    unsafe { PROGRAMS.tail_call(context, TRACED_PLACE) };
    // The daemon is gone: it is over.
    if let Some(control) = element(&CONTROL, 0) {
        let control: *const abi::Control = control;
        // SAFETY: an aligned word of the map's.
        unsafe {
            control
                .cast::<u8>()
                .add(offset_of!(abi::Control, traced))
                .cast_mut()
                .cast::<u64>()
                .write_volatile(0);
        }
    }
    fall_back(context, ATTACHED_PLACE);
    Outcome::Impossible
}

/// Leaves a frame to a program of the first instance's; does not come back if there is one.
#[inline(always)]
pub fn fall_back(context: &XdpContext, place: u32) {
    if TRACE.load() != 0 {
        // SAFETY: the first instance's programs.
        unsafe { LIVE_PROGRAMS.tail_call(context, place) };
    }
}

#[inline(always)]
fn note_frame(context: &XdpContext, notes: &mut Notes) {
    let length = Packet::of(context).length();
    notes.count = 0;
    notes.rounds = 0;
    notes.length = length as u32;
    notes.interface_index = context.ingress_ifindex() as u32;
    notes.fits = global::fits(context.ctx);
    // SAFETY: the helper has no preconditions.
    notes.time = unsafe { bpf_ktime_get_ns() };
    // From 1 to HEAD, in a way that also 6.1's verifier sees, which learns nothing from a comparison with zero; hidden from LLVM,
    // which would find out that it is the same number.
    let kept = if length < HEAD { length } else { HEAD };
    let kept = (black_box(kept.wrapping_sub(1)) & (HEAD - 1)) + 1;
    // SAFETY: there is room for so many bytes.
    unsafe {
        bpf_xdp_load_bytes(context.ctx, 0, notes.head.as_mut_ptr().cast(), kept as u32);
    }
}

/// Sends what was noted about a frame, if somebody wants to know.
#[inline(always)]
pub fn end(context: *mut xdp_md, outcome: u32) -> u64 {
    let (Some(filter), Some(notes)) = (element(&TRACE_FILTER, 0), notes()) else {
        return 0;
    };
    let outcome = 1u64 << (outcome & 63);
    if filter.outcomes != 0 && filter.outcomes & outcome == 0 {
        return 0;
    }
    if notes.fits == 0 && global::fits(context) == 0 {
        return 0;
    }
    let Some(state) = TRACE_STATE.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
    let state: &mut TraceState = unsafe { &mut *state };
    if notes.time.wrapping_sub(state.since) >= SECOND {
        (state.since, state.packets) = (notes.time, 0);
    }
    state.packets += 1;
    if state.packets > filter.rate || TRACED.output::<Notes>(&*notes, 0).is_err() {
        state.left_out += 1;
    }
    0
}

/// Whether the filter wants the frame as it is now (1).
#[inline(always)]
pub fn fits(context: *mut xdp_md) -> u64 {
    let packet = Packet::of(&XdpContext::new(context));
    let Some(filter) = element(&TRACE_FILTER, 0) else {
        return 0;
    };
    let filter: &TraceFilter = filter;
    let anything =
        filter.address == [0; 2] && filter.port == 0 && filter.protocol == 0 && filter.version == 0;
    if anything {
        return 1;
    }
    match ethernet::parse(&packet) {
        Ok((_, Carries::Ipv4)) => u64::from(fits_family::<Ipv4>(&packet, filter)),
        Ok((_, Carries::Ipv6)) => u64::from(fits_family::<Ipv6>(&packet, filter)),
        Err(_) => 0,
    }
}

#[inline(always)]
fn fits_family<F: Family>(packet: &Packet, filter: &TraceFilter) -> bool {
    if filter.version != 0 && filter.version != F::VERSION {
        return false;
    }
    let Ok(network) = F::parse(packet) else {
        return false;
    };
    let (from, to) = (F::to_record(network.source), F::to_record(network.destination));
    if filter.address != [0; 2] && filter.address != from && filter.address != to {
        return false;
    }
    let icmp = filter.protocol == TraceFilter::ICMP && network.protocol == F::ICMP;
    if filter.protocol != 0 && filter.protocol != u16::from(network.protocol) && !icmp {
        return false;
    }
    if filter.port == 0 {
        return true;
    }
    if !matches!(segment::kind::<F>(&network), Ok(Kind::Segment)) {
        return false;
    }
    packet
        .window::<4>(network.transport_offset)
        .is_some_and(|ports| ports.field::<u16, 0>() == filter.port || ports.field::<u16, 2>() == filter.port)
}
