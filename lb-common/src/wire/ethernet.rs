//! Ethernet II (IEEE 802.3 clause 3.2.6).

use core::mem::offset_of;

use network_types::eth::{EthHdr, EtherType};

use super::Frame;
use crate::outcome::Outcome;

/// Length of the header in bytes.
pub const LENGTH: usize = EthHdr::LEN;

/// The addresses of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Whom it was sent to.
    pub destination: [u8; 6],
    /// Who sent it on this link.
    pub source: [u8; 6],
}

/// Reads the header of a unicast frame that carries IPv4.
///
/// # Errors
/// The outcome of a frame that is none.
#[inline(always)]
pub fn parse_ipv4_frame<F: Frame + ?Sized>(frame: &F) -> Result<Ethernet, Outcome> {
    let header = frame.window::<LENGTH>(0).ok_or(Outcome::NotIpv4)?;
    if header.field::<u16, { offset_of!(EthHdr, ether_type) }>() != EtherType::Ipv4 as u16 {
        return Err(Outcome::NotIpv4);
    }
    let destination = header.field::<[u8; 6], { offset_of!(EthHdr, dst_addr) }>();
    if destination[0] & 1 != 0 {
        return Err(Outcome::Multicast);
    }
    Ok(Ethernet {
        destination,
        source: header.field::<[u8; 6], { offset_of!(EthHdr, src_addr) }>(),
    })
}
