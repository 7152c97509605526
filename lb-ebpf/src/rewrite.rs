//! Changing a packet's addresses, ports and checksums in place. Checksums change by what is known to change (RFC 1624),
//! so a packet that arrives damaged leaves damaged.

use core::mem::offset_of;

use lb_common::checksum::Delta;
use lb_common::family::{Family, Ipv4, Ipv6};
use lb_common::outcome::Outcome;
use lb_common::wire::transport::{TCP_CHECKSUM, UDP_CHECKSUM};
use lb_common::wire::{ipv4, ipv6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::packet::{Packet, Writable};
use crate::parse::Segment;

/// Bytes of the Ethernet header that carry addresses.
const ADDRESSES: usize = 12;

/// The network layer of a packet, changed.
pub trait Rewrite: Family {
    /// Replaces addresses where there is something to replace them by; `delta` is what that changes in the header's
    /// checksum. Takes one off the time to live as well (RFC 1812 section 5.3.1): the balancer is a router on the packet's
    /// way.
    fn route(
        frame: &impl Writable,
        source: Option<Self::Address>,
        destination: Option<Self::Address>,
        delta: Delta,
    ) -> Result<(), Outcome>;

    /// Gives the packet a time to live of its own: it is no longer the one that came.
    fn renew(packet: &Packet, time_to_live: u8) -> Result<(), Outcome>;
}

impl Rewrite for Ipv4 {
    #[inline(always)]
    fn route(
        frame: &impl Writable,
        source: Option<u32>,
        destination: Option<u32>,
        delta: Delta,
    ) -> Result<(), Outcome> {
        let mut header = frame
            .window_mut::<{ ipv4::LENGTH }>(ipv4::OFFSET)
            .ok_or(Outcome::Impossible)?;
        if let Some(source) = source {
            header.set::<u32, { offset_of!(Ipv4Hdr, src_addr) }>(source);
        }
        if let Some(destination) = destination {
            header.set::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>(destination);
        }
        let old = header.field::<u16, { offset_of!(Ipv4Hdr, ttl) }>();
        let new = old.wrapping_sub(1); // the time to live is the low byte of the word in memory
        header.set::<u16, { offset_of!(Ipv4Hdr, ttl) }>(new);
        let checksum = header.field::<u16, { offset_of!(Ipv4Hdr, check) }>();
        let delta = delta.and(Delta::ONE_LESS); // of a word that has the protocol as well
        header.set::<u16, { offset_of!(Ipv4Hdr, check) }>(delta.apply(checksum));
        Ok(())
    }

    #[inline(always)]
    fn renew(packet: &Packet, time_to_live: u8) -> Result<(), Outcome> {
        let mut header = packet
            .window_mut::<{ ipv4::LENGTH }>(ipv4::OFFSET)
            .ok_or(Outcome::Impossible)?;
        let old = header.field::<u16, { offset_of!(Ipv4Hdr, ttl) }>();
        let [_, protocol] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([time_to_live, protocol]);
        header.set::<u16, { offset_of!(Ipv4Hdr, ttl) }>(new);
        let checksum = header.field::<u16, { offset_of!(Ipv4Hdr, check) }>();
        let delta = Delta::of_word(old, new);
        header.set::<u16, { offset_of!(Ipv4Hdr, check) }>(delta.apply(checksum));
        Ok(())
    }
}

impl Rewrite for Ipv6 {
    #[inline(always)]
    fn route(
        frame: &impl Writable,
        source: Option<[u64; 2]>,
        destination: Option<[u64; 2]>,
        _: Delta,
    ) -> Result<(), Outcome> {
        let mut header = frame
            .window_mut::<{ ipv6::LENGTH }>(ipv6::OFFSET)
            .ok_or(Outcome::Impossible)?;
        // Word by word: LLVM would have a function copy all of it, byte by byte.
        if let Some([low, high]) = source {
            header.set::<u64, { offset_of!(Ipv6Hdr, src_addr) }>(low);
            header.set::<u64, { offset_of!(Ipv6Hdr, src_addr) + 8 }>(high);
        }
        if let Some([low, high]) = destination {
            header.set::<u64, { offset_of!(Ipv6Hdr, dst_addr) }>(low);
            header.set::<u64, { offset_of!(Ipv6Hdr, dst_addr) + 8 }>(high);
        }
        let hop_limit = header.field::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>();
        header.set::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>(hop_limit.wrapping_sub(1));
        Ok(())
    }

    #[inline(always)]
    fn renew(packet: &Packet, time_to_live: u8) -> Result<(), Outcome> {
        let mut header = packet
            .window_mut::<{ ipv6::LENGTH }>(ipv6::OFFSET)
            .ok_or(Outcome::Impossible)?;
        header.set::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>(time_to_live);
        Ok(())
    }
}

/// Replaces ports, where there is something to replace them by (as in the packet; 0: nothing), and brings the checksum up
/// to date.
#[inline(always)]
pub fn transport<F: Family>(
    frame: &impl Writable,
    segment: &Segment<F>,
    source: u16,
    destination: u16,
    delta: Delta,
) -> Result<(), Outcome> {
    let at = segment.network.transport_offset;
    let mut ports = frame.window_mut::<4>(at).ok_or(Outcome::Impossible)?;
    if source != 0 {
        ports.set::<u16, 0>(source);
    }
    if destination != 0 {
        ports.set::<u16, 2>(destination);
    }
    if segment.is_tcp() {
        let mut checksum = frame
            .window_mut::<2>(at + TCP_CHECKSUM)
            .ok_or(Outcome::Impossible)?;
        let old = checksum.field::<u16, 0>();
        checksum.set::<u16, 0>(delta.apply(old));
    } else {
        let mut checksum = frame
            .window_mut::<2>(at + UDP_CHECKSUM)
            .ok_or(Outcome::Impossible)?;
        let old = checksum.field::<u16, 0>();
        checksum.set::<u16, 0>(delta.apply_to_udp(old));
    }
    Ok(())
}

/// The frame's addresses, destination first, as three words in memory order.
#[inline(always)]
pub fn ethernet(frame: &impl Writable, [first, second, third]: [u32; 3]) -> Result<(), Outcome> {
    let mut window = frame.window_mut::<ADDRESSES>(0).ok_or(Outcome::Impossible)?;
    window.set::<u32, 0>(first);
    window.set::<u32, 4>(second);
    window.set::<u32, 8>(third);
    Ok(())
}
