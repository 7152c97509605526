//! IPv4 (RFC 791).

use core::mem::offset_of;

use network_types::ip::Ipv4Hdr;

use super::network::{Fragment, Network};
use super::{Frame, ethernet};
use crate::outcome::Outcome;

/// Offset of the header in a frame without tags.
pub const OFFSET: usize = ethernet::LENGTH;
/// Length of the header without options, in bytes.
pub const LENGTH: usize = Ipv4Hdr::LEN;

/// The first byte of a header without options: the version, and the length in words.
const PLAIN: u8 = 4 << 4 | (LENGTH / 4) as u8;
const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
const FRAGMENT_OFFSET: u16 = 0x1fffu16.to_be();

/// Reads the header of a packet.
///
/// # Errors
/// [`Outcome::MalformedIp`]: it contradicts itself or the frame.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Network<u32>, Outcome> {
    let network = parse_quoted(frame, OFFSET).ok_or(Outcome::MalformedIp)?;
    if OFFSET + network.length > frame.length() {
        return Err(Outcome::MalformedIp);
    }
    Ok(network)
}

/// Whether the header is one without options, of a whole datagram.
#[inline(always)]
pub fn is_plain<F: Frame + ?Sized>(frame: &F) -> bool {
    frame.window::<LENGTH>(OFFSET).is_some_and(|header| {
        header.field::<u8, { offset_of!(Ipv4Hdr, vihl) }>() == PLAIN
            && header.field::<u16, { offset_of!(Ipv4Hdr, frags) }>() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0
    })
}

/// Reads the header of a packet of which only the beginning is there, at an offset of the frame: what an ICMP error quotes.
#[inline(always)]
pub fn parse_quoted<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Network<u32>> {
    let header = frame.window::<LENGTH>(offset)?;
    let version_and_length = header.field::<u8, { offset_of!(Ipv4Hdr, vihl) }>();
    let header_length = (version_and_length & 0xf) as usize * 4;
    let length = u16::from_be(header.field::<u16, { offset_of!(Ipv4Hdr, tot_len) }>()) as usize;
    if version_and_length >> 4 != 4 || header_length < LENGTH || length < header_length {
        return None;
    }
    let fragment = header.field::<u16, { offset_of!(Ipv4Hdr, frags) }>();
    Some(Network {
        source: header.field::<u32, { offset_of!(Ipv4Hdr, src_addr) }>(),
        destination: header.field::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>(),
        protocol: header.field::<u8, { offset_of!(Ipv4Hdr, proto) }>(),
        fragment: if fragment & FRAGMENT_OFFSET != 0 {
            Fragment::Later
        } else if fragment & MORE_FRAGMENTS != 0 {
            Fragment::First
        } else {
            Fragment::Whole
        },
        time_to_live: header.field::<u8, { offset_of!(Ipv4Hdr, ttl) }>(),
        transport_offset: offset + header_length,
        length,
        identification: u32::from(header.field::<u16, { offset_of!(Ipv4Hdr, id) }>()),
    })
}

/// Whether the sender forbids routers to cut the packet into fragments.
#[inline(always)]
pub fn must_not_be_fragmented<F: Frame + ?Sized>(frame: &F) -> bool {
    frame
        .window::<LENGTH>(OFFSET)
        .is_some_and(|header| header.field::<u16, { offset_of!(Ipv4Hdr, frags) }>() & DONT_FRAGMENT != 0)
}
