//! Answering in a backend's stead: the frame becomes the RST to the segment that it carried.

use core::mem::offset_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use lb_common::outcome::Outcome;
use lb_common::wire::ethernet::Ethernet;
use lb_common::wire::{Frame as _, ipv4, reset, tcp};
use network_types::tcp::TcpHdr;

use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::rewrite;

/// Turns the frame into a RST to its sender; the outcome is `answered`, unless it was a RST itself (RFC 9293 section
/// 3.10.7.1: a RST is never answered).
#[inline(always)]
pub fn answer_with_rst(context: &XdpContext, segment: &Segment, answered: Outcome) -> Outcome {
    if segment.tcp.flags.resets() {
        return Outcome::RstForNobody;
    }
    if out_of_line(context.ctx) == 0 {
        answered
    } else {
        Outcome::Impossible
    }
}

/// 0: done. Out of line, and parsing anew, for the same reason as `new_connection`.
#[inline(never)]
fn out_of_line(context: *mut xdp_md) -> u32 {
    let context = XdpContext::new(context);
    match parse(&Packet::of(&context)) {
        Ok(segment) if write_rst(&context, &segment).is_some() => 0,
        _ => 1,
    }
}

#[inline(always)]
fn write_rst(context: &XdpContext, segment: &Segment) -> Option<()> {
    let packet = Packet::of(context);
    let header = packet.window::<{ tcp::LENGTH }>(segment.ipv4.transport_offset())?;
    let sequence = header.field::<u32, { offset_of!(TcpHdr, seq) }>();
    let acknowledgment = header.field::<u32, { offset_of!(TcpHdr, ack_seq) }>();
    let surplus = packet.length() as i32 - (ipv4::OFFSET + reset::LENGTH) as i32;
    // SAFETY: the helper checks the length; the frame is looked at anew below.
    if unsafe { bpf_xdp_adjust_tail(context.ctx, -surplus) } != 0 {
        return None;
    }
    let packet = Packet::of(context);
    let back = Ethernet {
        destination: segment.ethernet.source,
        source: segment.ethernet.destination,
    };
    rewrite::ethernet(&packet, back.to_words()).ok()?;
    let mut window = packet.window_mut::<{ reset::LENGTH }>(ipv4::OFFSET)?;
    window.set::<[u16; reset::LENGTH / 2], 0>(reset::answer(
        &segment.ipv4,
        &segment.tcp,
        sequence,
        acknowledgment,
    ));
    Some(())
}
