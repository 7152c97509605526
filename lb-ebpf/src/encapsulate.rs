//! `ipip`: a packet in another one, to a backend that unpacks it (RFC 2003, RFC 2473, RFC 4213).

use core::mem::offset_of;

use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, Outer};
use lb_common::checksum::{Delta, fold};
use lb_common::family::{Family, Ipv4, Ipv6};
use lb_common::outcome::Outcome;
use lb_common::wire::{Frame as _, ethernet, ipv4, ipv6};
use network_types::eth::EtherType;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::packet::{Packet, Writable as _};
use crate::rewrite::{self, Rewrite};

/// Protocol numbers of a packet in a packet.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const TIME_TO_LIVE: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000u16.to_be();

/// By how much a packet to a backend grows.
#[inline(always)]
pub fn overhead(backend: &Backend) -> usize {
    if backend.flags & Backend::IPV6 != 0 {
        ipv6::LENGTH
    } else {
        ipv4::LENGTH
    }
}

/// Puts the frame's packet, of `length` bytes, into one to the backend; `ethernet`: the frame's addresses on the way there.
#[inline(always)]
pub fn encapsulate<F: Rewrite>(
    context: &XdpContext,
    length: usize,
    backend: &Backend,
    outer: &Outer,
    ethernet: [u32; 3],
) -> Result<(), Outcome> {
    let packet = Packet::of(context);
    F::route(&packet, None, None, Delta::ZERO)?;
    let class = traffic_class::<F>(&packet)?;
    let inside = if F::VERSION == 4 { IPV4_INSIDE } else { IPV6_INSIDE };
    let growth = overhead(backend);
    // SAFETY: the helper checks that there is room; the frame is looked at anew below.
    if unsafe { bpf_xdp_adjust_head(context.ctx, -(growth as i32)) } != 0 {
        return Err(Outcome::Impossible);
    }
    let packet = Packet::of(context);
    rewrite::ethernet(&packet, ethernet)?;
    let mut kind = packet
        .window_mut::<2>(ethernet_type_offset())
        .ok_or(Outcome::Impossible)?;
    if backend.flags & Backend::IPV6 != 0 {
        kind.set::<u16, 0>(EtherType::Ipv6 as u16);
        ipv6_header(&packet, length, class, inside, backend, outer)
    } else {
        kind.set::<u16, 0>(EtherType::Ipv4 as u16);
        ipv4_header(&packet, length, class, inside, backend, outer)
    }
}

#[inline(always)]
const fn ethernet_type_offset() -> usize {
    ethernet::LENGTH - 2
}

/// Type of service or traffic class, which the outer header has as well.
#[inline(always)]
fn traffic_class<F: Family>(packet: &Packet) -> Result<u8, Outcome> {
    let header = packet.window::<2>(ethernet::LENGTH).ok_or(Outcome::Impossible)?;
    let (first, second) = (header.field::<u8, 0>(), header.field::<u8, 1>());
    Ok(if F::VERSION == 4 {
        second
    } else {
        first << 4 | second >> 4
    })
}

#[inline(always)]
fn ipv4_header(
    packet: &Packet,
    length: usize,
    class: u8,
    inside: u8,
    backend: &Backend,
    outer: &Outer,
) -> Result<(), Outcome> {
    let mut header = packet
        .window_mut::<{ ipv4::LENGTH }>(ipv4::OFFSET)
        .ok_or(Outcome::Impossible)?;
    let total = ((length + ipv4::LENGTH) as u16).to_be();
    header.set::<u16, 0>(u16::from_ne_bytes([0x45, class]));
    header.set::<u16, { offset_of!(Ipv4Hdr, tot_len) }>(total);
    header.set::<u16, { offset_of!(Ipv4Hdr, id) }>(0);
    header.set::<u16, { offset_of!(Ipv4Hdr, frags) }>(DONT_FRAGMENT);
    header.set::<u16, { offset_of!(Ipv4Hdr, ttl) }>(u16::from_ne_bytes([TIME_TO_LIVE, inside]));
    let sum = u32::from(outer.header_sum) + u32::from(total) + u32::from(u16::from_ne_bytes([0, class]));
    header.set::<u16, { offset_of!(Ipv4Hdr, check) }>(!fold(sum));
    header.set::<u32, { offset_of!(Ipv4Hdr, src_addr) }>(Ipv4::of_record(&outer.source));
    header.set::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>(Ipv4::of_record(&backend.address));
    Ok(())
}

#[inline(always)]
fn ipv6_header(
    packet: &Packet,
    length: usize,
    class: u8,
    inside: u8,
    backend: &Backend,
    outer: &Outer,
) -> Result<(), Outcome> {
    let mut header = packet
        .window_mut::<{ ipv6::LENGTH }>(ipv6::OFFSET)
        .ok_or(Outcome::Impossible)?;
    header.set::<u16, 0>(u16::from_ne_bytes([0x60 | class >> 4, class << 4]));
    header.set::<u16, 2>(0);
    header.set::<u16, { offset_of!(Ipv6Hdr, payload_len) }>((length as u16).to_be());
    header.set::<u16, { offset_of!(Ipv6Hdr, next_hdr) }>(u16::from_ne_bytes([inside, TIME_TO_LIVE]));
    header.set::<[u64; 2], { offset_of!(Ipv6Hdr, src_addr) }>(Ipv6::of_record(&outer.source));
    header.set::<[u64; 2], { offset_of!(Ipv6Hdr, dst_addr) }>(Ipv6::of_record(&backend.address));
    Ok(())
}
