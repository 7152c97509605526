//! Ethernet II (IEEE 802.3 clause 3.2.6).

use core::mem::offset_of;

use network_types::eth::{EthHdr, EtherType};

use super::Frame;
use crate::outcome::Outcome;

/// Length of the header in bytes.
pub const LENGTH: usize = EthHdr::LEN;

/// A MAC address: its six bytes as they lie in the frame are the low six bytes of the word (little-endian machines, like
/// the kernel program's target).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub u64);

impl Mac {
    /// From the bytes as written.
    #[inline(always)]
    pub const fn from_bytes([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The bytes as written.
    pub const fn to_bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

/// The addresses of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Whom it was sent to.
    pub destination: Mac,
    /// Who sent it on this link.
    pub source: Mac,
}

impl Ethernet {
    /// The first twelve bytes of a frame with these addresses, as three words in memory order.
    #[inline(always)]
    pub fn to_words(self) -> [u32; 3] {
        let (destination, source) = (self.destination.0, self.source.0);
        [
            destination as u32,
            (destination >> 32) as u32 | (source as u32) << 16,
            (source >> 16) as u32,
        ]
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;
/// IEEE 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [EtherType::Ieee8021q as u16, EtherType::Ieee8021ad as u16];

/// Reads the header of a unicast frame that carries IP.
///
/// # Errors
/// The outcome of a frame that is none.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<(Ethernet, Carries), Outcome> {
    let header = frame.window::<LENGTH>(0).ok_or(Outcome::NotIp)?;
    let carries = match header.field::<u16, { offset_of!(EthHdr, ether_type) }>() {
        IPV4 => Carries::Ipv4,
        IPV6 => Carries::Ipv6,
        tag if tag == TAGS[0] || tag == TAGS[1] => return Err(Outcome::VlanTagged),
        _ => return Err(Outcome::NotIp),
    };
    // Whole words, not six bytes each: the addresses are compared and written as words.
    let words = [
        header.field::<u32, 0>(),
        header.field::<u32, 4>(),
        header.field::<u32, 8>(),
    ];
    let destination = Mac(u64::from(words[0]) | u64::from(words[1] & 0xffff) << 32);
    if destination.0 & 1 != 0 {
        return Err(Outcome::Multicast);
    }
    let ethernet = Ethernet {
        destination,
        source: Mac(u64::from(words[1] >> 16) | u64::from(words[2]) << 16),
    };
    Ok((ethernet, carries))
}
