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

/// How many extension headers are looked through.
const EXTENSIONS: usize = 6;
/// How far into the frame the transport header may begin: the extension headers that this leaves room for are far more
/// than any that are seen, and the kernel's verifier wants a bound.
const FURTHEST: usize = 512;

/// Reads the header of a packet and looks through its extension headers.
///
/// # Errors
/// [`Outcome::MalformedIp`]: it contradicts itself or the frame. [`Outcome::ExtensionHeaders`]: there are too many of them, or
/// some that are not followed, see [`walk`].
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
        if network.transport_offset > offset + network.length {
            return Err(Outcome::MalformedIp);
        }
    }
    Ok(network)
}

#[inline(always)]
fn is_transport(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | ICMPV6)
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Where the extension headers end, packed: offset 16 bits, of which ten are used, protocol 8, fragment 8, identification 32.
/// An offset of [`CUT_OFF`] or [`NOT_FOLLOWED`] is none.
struct Extensions(u64);

const CUT_OFF: u64 = 0;
const NOT_FOLLOWED: u64 = 1;
/// The bits of an offset, [`FURTHEST`] at most. That is masked and not compared, because the kernel's verifier forgets a
/// comparison where the compared value is spilled (6.1), and refuses offsets that may be more than 65,535 with what is read there.
const OFFSET_BITS: u64 = 0x3ff;
const _: () = assert!(FURTHEST as u64 <= OFFSET_BITS);

impl Extensions {
    fn packed(offset: usize, protocol: u8, fragment: Fragment, identification: u32) -> u64 {
        if offset > FURTHEST {
            return NOT_FOLLOWED;
        }
        offset as u64 | u64::from(protocol) << 16 | (fragment as u64) << 24 | u64::from(identification) << 32
    }

    #[inline(always)]
    fn offset(&self) -> Result<usize, Outcome> {
        match self.0 & OFFSET_BITS {
            CUT_OFF => Err(Outcome::MalformedIp),
            NOT_FOLLOWED => Err(Outcome::ExtensionHeaders),
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

/// Looks through the extension headers (RFC 8200 section 4) from an offset on; what it gives is for [`parse_quoted`]. Not
/// followed are:
///
/// - more than six of them, or more than would leave the transport header within the frame's first 512 bytes;
/// - a routing header with a way still to go: the packet's destination is but a stop on it, and not what the transport
///   checksum was made for (RFC 8200 section 8.1);
/// - any behind the fragment header of a fragment: later fragments do not have what comes there, and whatever the first one
///   is taken for, they must be as well.
#[inline(always)]
pub fn walk<F: Frame + ?Sized>(frame: &F, offset: usize, next_header: u8) -> u64 {
    let (mut at, mut protocol) = (offset, next_header);
    let mut identification = 0;
    for _ in 0..EXTENSIONS {
        if at > FURTHEST {
            return NOT_FOLLOWED;
        }
        let unit = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8,
            AUTHENTICATION => 4,
            FRAGMENT => 0,
            // A transport protocol; or no next header, or one that is not known: nothing that could be balanced.
            _ => return Extensions::packed(at, protocol, Fragment::Whole, identification),
        };
        let Some(extension) = frame.window::<8>(at) else {
            return CUT_OFF;
        };
        if protocol == ROUTING && extension.field::<u8, 3>() != 0 {
            return NOT_FOLLOWED;
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
            identification = extension.field::<u32, 4>();
            // 13 bits of offset, two reserved ones, one that says that more follow. Neither: a packet that is whole all the
            // same (RFC 6946).
            let place = u16::from_be(extension.field::<u16, 2>());
            if place >> 3 != 0 || place & 1 != 0 {
                if is_extension(protocol) {
                    return NOT_FOLLOWED;
                }
                let fragment = if place >> 3 != 0 {
                    Fragment::Later
                } else {
                    Fragment::First
                };
                return Extensions::packed(at, protocol, fragment, identification);
            }
        }
    }
    if is_extension(protocol) {
        return NOT_FOLLOWED;
    }
    Extensions::packed(at, protocol, Fragment::Whole, identification)
}
