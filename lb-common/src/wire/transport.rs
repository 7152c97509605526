//! TCP (RFC 9293 section 3.1) and UDP (RFC 768).

use core::mem::offset_of;

use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use super::Frame;
use super::network::{Fragment, Network, TCP};
use crate::outcome::Outcome;
use crate::tcp_state::Flags;

/// Length of a TCP header without options, in bytes.
pub const TCP_LENGTH: usize = TcpHdr::LEN;
/// Length of a UDP header, in bytes.
pub const UDP_LENGTH: usize = UdpHdr::LEN;
/// Offset of TCP's checksum.
pub const TCP_CHECKSUM: usize = offset_of!(TcpHdr, check);
/// Offset of UDP's checksum.
pub const UDP_CHECKSUM: usize = offset_of!(UdpHdr, check);
/// Offset of TCP's byte with the data offset; the flags follow.
const DATA_OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);

/// What the data path needs of a header. Ports are as in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The flags; none of UDP.
    pub flags: Flags,
    /// Length of the header with its options, 20 to 60 bytes; of UDP 8.
    pub header_length: usize,
}

/// Reads the TCP or UDP header that a packet carries.
///
/// # Errors
/// [`Outcome::MalformedTransport`]: it is cut off, or contradicts itself or the packet.
#[inline(always)]
pub fn parse<F: Frame + ?Sized, A>(
    frame: &F,
    network: &Network<A>,
    packet_offset: usize,
) -> Result<Transport, Outcome> {
    let payload = packet_offset + network.length;
    if network.protocol == TCP {
        let header = frame
            .window::<TCP_LENGTH>(network.transport_offset)
            .ok_or(Outcome::MalformedTransport)?;
        let header_length = (header.field::<u8, DATA_OFFSET>() >> 4) as usize * 4;
        if header_length < TCP_LENGTH || network.transport_offset + header_length > payload {
            return Err(Outcome::MalformedTransport);
        }
        return Ok(Transport {
            source_port: header.field::<u16, { offset_of!(TcpHdr, source) }>(),
            destination_port: header.field::<u16, { offset_of!(TcpHdr, dest) }>(),
            flags: Flags(header.field::<u8, { DATA_OFFSET + 1 }>()),
            header_length,
        });
    }
    let header = frame
        .window::<UDP_LENGTH>(network.transport_offset)
        .ok_or(Outcome::MalformedTransport)?;
    let length = u16::from_be(header.field::<u16, { offset_of!(UdpHdr, len) }>()) as usize;
    let fits = network.transport_offset + length <= payload || !matches!(network.fragment, Fragment::Whole);
    if length < UDP_LENGTH || !fits || network.transport_offset + UDP_LENGTH > payload {
        return Err(Outcome::MalformedTransport);
    }
    Ok(Transport {
        source_port: header.field::<u16, { offset_of!(UdpHdr, src) }>(),
        destination_port: header.field::<u16, { offset_of!(UdpHdr, dst) }>(),
        flags: Flags::NONE,
        header_length: UDP_LENGTH,
    })
}
