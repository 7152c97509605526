//! IPv6 (RFC 8200).

use core::hint::black_box;
use core::mem::offset_of;

use network_types::ip::Ipv6Hdr;

use super::network::{Fragment, ICMPV6, Network, TCP, UDP};
use super::{Frame, ethernet};
use crate::outcome::Outcome;

/// Offset of the header in a frame without tags.
pub const OFFSET: usize = ethernet::LENGTH;
/// Length of the header without extensions, in bytes.
pub const LENGTH: usize = Ipv6Hdr::LEN;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Where a routing header says how many nodes are still to be passed.
const SEGMENTS_LEFT: usize = 3;

/// How many extension headers are looked through.
const EXTENSIONS: usize = 6;
/// How far into the frame the transport header may begin: the extension headers that this leaves room for are far more
/// than any that are seen, and the kernel's verifier wants a bound.
const FURTHEST: usize = 512;

/// Reads the header of a packet and looks through its extension headers.
///
/// # Errors
/// [`Outcome::MalformedIp`]: it contradicts itself or the frame. [`Outcome::ExtensionHeaders`]: too many of them, or this is
/// not where the packet ends.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Network<[u64; 2]>, Outcome> {
    let network = parse_quoted(frame, OFFSET)?;
    if OFFSET + network.length > frame.length() {
        return Err(Outcome::MalformedIp);
    }
    Ok(network)
}

/// Reads the header of a packet of which only the beginning is there, at an offset of the frame: what an ICMP error quotes.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_quoted<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Network<[u64; 2]>, Outcome> {
    let header = frame.window::<LENGTH>(offset).ok_or(Outcome::MalformedIp)?;
    if header.field::<u8, 0>() >> 4 != 6 {
        return Err(Outcome::MalformedIp);
    }
    let mut network = Network {
        source: header.field::<[u64; 2], { offset_of!(Ipv6Hdr, src_addr) }>(),
        destination: header.field::<[u64; 2], { offset_of!(Ipv6Hdr, dst_addr) }>(),
        protocol: header.field::<u8, { offset_of!(Ipv6Hdr, next_hdr) }>(),
        fragment: Fragment::Whole,
        time_to_live: header.field::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>(),
        transport_offset: offset + LENGTH,
        length: LENGTH + u16::from_be(header.field::<u16, { offset_of!(Ipv6Hdr, payload_len) }>()) as usize,
        identification: 0,
    };
    if !is_transport(network.protocol) {
        let end = Extensions(frame.walk_extensions(network.transport_offset, network.protocol));
        network.transport_offset = end.offset()?;
        network.protocol = end.protocol();
        network.fragment = end.fragment();
        network.identification = end.identification();
    }
    Ok(network)
}

#[inline(always)]
fn is_transport(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | ICMPV6)
}

/// Where the extension headers end, packed: offset 16 bits, protocol 8, fragment 8, identification 32. An offset of
/// [`CUT_OFF`] or [`TOO_MANY`] is none.
struct Extensions(u64);

const CUT_OFF: u64 = 0;
const TOO_MANY: u64 = 1;

impl Extensions {
    fn new(offset: usize, protocol: u8, fragment: Fragment, identification: u32) -> u64 {
        offset as u64
            | u64::from(protocol) << 16
            | (fragment as u64) << 24
            | u64::from(identification) << 32
    }

    #[inline(always)]
    fn offset(&self) -> Result<usize, Outcome> {
        match self.0 & 0xffff {
            CUT_OFF => Err(Outcome::MalformedIp),
            TOO_MANY => Err(Outcome::ExtensionHeaders),
            offset if offset > FURTHEST as u64 => Err(Outcome::ExtensionHeaders),
            offset => Ok(offset as usize),
        }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    fn fragment(&self) -> Fragment {
        match (self.0 >> 24) as u8 {
            0 => Fragment::Whole,
            1 => Fragment::First,
            _ => Fragment::Later,
        }
    }

    #[inline(always)]
    fn identification(&self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Looks through the extension headers (RFC 8200 section 4) from an offset on; what it gives is for [`parse_quoted`]. After
/// the fragment header of a later fragment there is nothing to look at.
#[inline(always)]
pub fn walk<F: Frame + ?Sized>(frame: &F, offset: usize, next_header: u8) -> u64 {
    let (mut at, mut protocol) = (offset, next_header);
    let (mut fragment, mut identification) = (Fragment::Whole, 0);
    // After the last header that is looked through, once more: for what it says that comes next.
    for _ in 0..=EXTENSIONS {
        if at > FURTHEST {
            return TOO_MANY;
        }
        let unit = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8,
            AUTHENTICATION => 4,
            FRAGMENT => 0,
            // A transport protocol; or no next header, or one that is not known: nothing that could be balanced.
            _ => return Extensions::new(at, protocol, fragment, identification),
        };
        let Some(extension) = frame.window::<8>(at) else {
            return CUT_OFF;
        };
        if protocol == ROUTING && extension.field::<u8, SEGMENTS_LEFT>() != 0 {
            // On its way to somewhere else, whose address the checksums are about (RFC 8200 section 8.1).
            return TOO_MANY;
        }
        protocol = extension.field::<u8, 0>();
        let length = extension.field::<u8, 1>() as usize;
        // Hidden from LLVM, which else keeps the address in place of the offset, and cannot get the offset back in a way
        // that the kernel's verifier allows.
        at = black_box(
            at + match unit {
                8 => (length + 1) * 8,
                4 => (length + 2) * 4,
                _ => 8,
            },
        );
        if unit == 0 {
            // 13 bits of offset, two reserved ones, one that says that more follow.
            let place = u16::from_be(extension.field::<u16, 2>());
            identification = extension.field::<u32, 4>();
            if place >> 3 != 0 {
                return Extensions::new(at, protocol, Fragment::Later, identification);
            }
            if place & 1 != 0 {
                fragment = Fragment::First;
            }
        }
    }
    TOO_MANY
}
