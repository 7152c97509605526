//! Changing a packet's addresses, ports and checksums in place. Checksums change by what is known to change (RFC 1624),
//! so a packet that arrives damaged leaves damaged.

use core::mem::offset_of;

use lb_common::abi::Backend;
use lb_common::checksum::Delta;
use lb_common::outcome::Outcome;
use lb_common::wire::{ipv4, tcp};
use network_types::ip::Ipv4Hdr;
use network_types::tcp::TcpHdr;

use crate::packet::{Packet, WindowMut};
use crate::parse::Segment;

/// Bytes of the Ethernet header that carry addresses.
const ADDRESSES: usize = 12;

/// Destination: from the VIP to the backend.
#[inline(always)]
pub fn to_backend(packet: &Packet, segment: &Segment, backend: &Backend) -> Result<(), Outcome> {
    let mut network = network(packet)?;
    let mut transport = transport(packet, segment)?;
    let [a, b, c, d, ..] = backend.address;
    network.set::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>(u32::from_ne_bytes([a, b, c, d]));
    transport.set::<u16, { offset_of!(TcpHdr, dest) }>(u16::from_ne_bytes(backend.port));
    update_checksums(
        &mut network,
        &mut transport,
        backend.network_delta,
        backend.transport_delta,
    );
    Ok(())
}

/// Source: from the backend to the VIP.
#[inline(always)]
pub fn to_client(packet: &Packet, segment: &Segment, backend: &Backend) -> Result<(), Outcome> {
    let mut network = network(packet)?;
    let mut transport = transport(packet, segment)?;
    let [a, b, c, d, ..] = backend.vip;
    network.set::<u32, { offset_of!(Ipv4Hdr, src_addr) }>(u32::from_ne_bytes([a, b, c, d]));
    transport.set::<u16, { offset_of!(TcpHdr, source) }>(u16::from_ne_bytes(backend.vip_port));
    let (network_delta, transport_delta) =
        (backend.network_delta.inverse(), backend.transport_delta.inverse());
    update_checksums(&mut network, &mut transport, network_delta, transport_delta);
    Ok(())
}

/// The frame's addresses, destination first, as three words in memory order.
#[inline(always)]
pub fn ethernet(packet: &Packet, [first, second, third]: [u32; 3]) -> Result<(), Outcome> {
    let mut window = packet.window_mut::<ADDRESSES>(0).ok_or(Outcome::Impossible)?;
    window.set::<u32, 0>(first);
    window.set::<u32, 4>(second);
    window.set::<u32, 8>(third);
    Ok(())
}

#[inline(always)]
fn network(packet: &Packet) -> Result<WindowMut<{ ipv4::LENGTH }>, Outcome> {
    packet.window_mut(ipv4::OFFSET).ok_or(Outcome::Impossible)
}

#[inline(always)]
fn transport(packet: &Packet, segment: &Segment) -> Result<WindowMut<{ tcp::LENGTH }>, Outcome> {
    packet
        .window_mut(segment.ipv4.transport_offset())
        .ok_or(Outcome::Impossible)
}

/// Takes one off the time to live as well (RFC 1812 section 5.3.1): the balancer is a router on the packet's way.
#[inline(always)]
fn update_checksums(
    network: &mut WindowMut<{ ipv4::LENGTH }>,
    transport: &mut WindowMut<{ tcp::LENGTH }>,
    network_delta: Delta,
    transport_delta: Delta,
) {
    let old = network.field::<u16, { offset_of!(Ipv4Hdr, ttl) }>();
    let new = old.wrapping_sub(1); // the time to live is the low byte of the word in memory
    network.set::<u16, { offset_of!(Ipv4Hdr, ttl) }>(new);
    let delta = network_delta.and(Delta::of_word(old, new));
    let checksum = network.field::<u16, { offset_of!(Ipv4Hdr, check) }>();
    network.set::<u16, { offset_of!(Ipv4Hdr, check) }>(delta.apply(checksum));
    let checksum = transport.field::<u16, { offset_of!(TcpHdr, check) }>();
    transport.set::<u16, { offset_of!(TcpHdr, check) }>(transport_delta.apply(checksum));
}
