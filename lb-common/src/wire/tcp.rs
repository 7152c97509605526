//! TCP (RFC 9293 section 3.1).

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use super::Frame;
use super::ipv4::Ipv4;
use crate::outcome::Outcome;
use crate::tcp_state::Flags;

/// Length of the header without options, in bytes.
pub const LENGTH: usize = TcpHdr::LEN;
/// Offset of the byte with the data offset; the flags follow.
pub const DATA_OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);

/// What the data path needs of a header. Ports are as in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The flags.
    pub flags: Flags,
    /// Length of the header with its options, 20 to 60 bytes.
    pub header_length: usize,
}

/// Reads the header of the segment that a packet carries.
///
/// # Errors
/// [`Outcome::MalformedTcp`]: it is cut off, or its data offset points outside.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, ipv4: &Ipv4) -> Result<Tcp, Outcome> {
    let header = frame
        .window::<LENGTH>(ipv4.transport_offset())
        .ok_or(Outcome::MalformedTcp)?;
    let header_length = (header.field::<u8, DATA_OFFSET>() >> 4) as usize * 4;
    if header_length < LENGTH || ipv4.header_length + header_length > ipv4.total_length {
        return Err(Outcome::MalformedTcp);
    }
    Ok(Tcp {
        source_port: header.field::<u16, { offset_of!(TcpHdr, source) }>(),
        destination_port: header.field::<u16, { offset_of!(TcpHdr, dest) }>(),
        flags: Flags(header.field::<u8, { DATA_OFFSET + 1 }>()),
        header_length,
    })
}
