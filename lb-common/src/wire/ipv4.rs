//! IPv4 (RFC 791).

use core::mem::offset_of;

use network_types::ip::Ipv4Hdr;

use super::{Frame, ethernet};
use crate::outcome::Outcome;

/// Offset of the header in a frame without tags.
pub const OFFSET: usize = ethernet::LENGTH;
/// Length of the header without options, in bytes.
pub const LENGTH: usize = Ipv4Hdr::LEN;
/// TCP's protocol number.
pub const PROTOCOL_TCP: u8 = 6;

const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
const FRAGMENT_OFFSET: u16 = 0x1fffu16.to_be();

/// What the data path needs of a header. Addresses are as in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// The source address.
    pub source: u32,
    /// The destination address.
    pub destination: u32,
    /// Length of the header with its options, 20 to 60 bytes.
    pub header_length: usize,
    /// Length of header and payload in bytes, at least `header_length` and at most what the frame holds.
    pub total_length: usize,
    /// The time to live.
    pub time_to_live: u8,
    /// Whether this is the first of several fragments.
    pub first_fragment: bool,
}

impl Ipv4 {
    /// Where the transport header begins in the frame.
    #[inline(always)]
    pub fn transport_offset(&self) -> usize {
        OFFSET + self.header_length
    }
}

/// Reads the header of a packet that carries the beginning of a TCP segment.
///
/// # Errors
/// The outcome of a packet that does not.
#[inline(always)]
pub fn parse_tcp_packet<F: Frame + ?Sized>(frame: &F) -> Result<Ipv4, Outcome> {
    let header = frame.window::<LENGTH>(OFFSET).ok_or(Outcome::MalformedIpv4)?;
    let version_and_length = header.field::<u8, { offset_of!(Ipv4Hdr, vihl) }>();
    let header_length = (version_and_length & 0xf) as usize * 4;
    let total_length = u16::from_be(header.field::<u16, { offset_of!(Ipv4Hdr, tot_len) }>()) as usize;
    if version_and_length >> 4 != 4
        || header_length < LENGTH
        || total_length < header_length
        || OFFSET + total_length > frame.length()
    {
        return Err(Outcome::MalformedIpv4);
    }
    if header.field::<u8, { offset_of!(Ipv4Hdr, proto) }>() != PROTOCOL_TCP {
        return Err(Outcome::NotTcp);
    }
    let fragment = header.field::<u16, { offset_of!(Ipv4Hdr, frags) }>();
    if fragment & FRAGMENT_OFFSET != 0 {
        return Err(Outcome::LaterFragment);
    }
    Ok(Ipv4 {
        source: header.field::<u32, { offset_of!(Ipv4Hdr, src_addr) }>(),
        destination: header.field::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>(),
        header_length,
        total_length,
        time_to_live: header.field::<u8, { offset_of!(Ipv4Hdr, ttl) }>(),
        first_fragment: fragment & MORE_FRAGMENTS != 0,
    })
}
