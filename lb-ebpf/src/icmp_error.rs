//! ICMP errors that the balancer sends itself: "too big" (RFC 792, RFC 4443 section 3.2) and "port unreachable". The frame
//! that they are about becomes the error.

use core::hint::black_box;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_common::abi::ICMP_GROUPS;
use lb_common::checksum::{fold, fold_wide};
use lb_common::family::{Family, Ipv4, Ipv6};
use lb_common::hash::{Seed, scale_high};
use lb_common::wire::ethernet::{self, Ethernet};
use lb_common::wire::network::ICMPV6;
use lb_common::wire::{Frame as _, ipv4, ipv6};
use network_types::eth::EtherType;

use crate::connection_table::jiffies;
use crate::explain::is_dry;
use crate::maps::ICMP_SENT;
use crate::packet::{Packet, Writable as _};
use crate::rewrite;

/// Bytes of an ICMP error's own header.
const ICMP_HEADER: usize = 8;
/// Bytes of a large packet that its error quotes: enough for every header that is of use, and a multiple of four. Also of a
/// small IPv6 packet with extension headers.
const LONG_QUOTE: usize = 128;
/// Bytes of a small IPv4 packet with options that its error quotes: the longest header and 8 bytes more.
const OPTIONS_QUOTE: usize = 68;
const TIME_TO_LIVE: u8 = 64;
/// Tells the groups apart that errors are limited for.
const GROUPS: Seed = Seed::new(0x6963_6d70);

/// What an error says.
#[derive(Clone, Copy)]
pub enum Says {
    /// Longer than this many bytes cannot be sent on.
    TooBig(u32),
    /// Nobody listens there.
    PortUnreachable,
}

/// A family's ICMP.
pub trait IcmpError: Family {
    /// Bytes of a small packet without options or extension headers that its error quotes: the header and 8 bytes more.
    const SHORT_QUOTE: usize = Self::HEADER_LENGTH + 8;

    /// Type, code, and the last four bytes of the error's header.
    fn header(says: Says) -> (u8, u8, u32);

    /// Writes the IP header of an error of `length` bytes at its place, and gives what it adds to the ICMP checksum's sum.
    fn put_header(
        packet: &Packet,
        source: Self::Address,
        destination: Self::Address,
        length: usize,
    ) -> Option<u32>;

    /// The frame's type.
    const ETHER_TYPE: u16;
}

impl IcmpError for Ipv4 {
    const ETHER_TYPE: u16 = EtherType::Ipv4 as u16;

    #[inline(always)]
    fn header(says: Says) -> (u8, u8, u32) {
        match says {
            // RFC 1191 section 4: the next hop's MTU lies in the low 16 bits.
            Says::TooBig(mtu) => (3, 4, (mtu & 0xffff).to_be()),
            Says::PortUnreachable => (3, 3, 0),
        }
    }

    #[inline(always)]
    fn put_header(packet: &Packet, source: u32, destination: u32, length: usize) -> Option<u32> {
        let mut header = packet.window_mut::<{ ipv4::LENGTH }>(ipv4::OFFSET)?;
        let words = [
            0x4500u16.to_be(),
            (length as u16).to_be(),
            0,
            0,
            (u16::from(TIME_TO_LIVE) << 8 | u16::from(Self::ICMP)).to_be(),
            0,
            source as u16,
            (source >> 16) as u16,
            destination as u16,
            (destination >> 16) as u16,
        ];
        let mut sum = 0;
        for word in words {
            sum += u32::from(word);
        }
        header.set::<[u16; 10], 0>(words);
        header.set::<u16, 10>(!fold(sum));
        Some(0)
    }
}

impl IcmpError for Ipv6 {
    const ETHER_TYPE: u16 = EtherType::Ipv6 as u16;

    #[inline(always)]
    fn header(says: Says) -> (u8, u8, u32) {
        match says {
            Says::TooBig(mtu) => (2, 0, mtu.to_be()),
            Says::PortUnreachable => (1, 4, 0),
        }
    }

    #[inline(always)]
    fn put_header(packet: &Packet, source: [u64; 2], destination: [u64; 2], length: usize) -> Option<u32> {
        let mut header = packet.window_mut::<{ ipv6::LENGTH }>(ipv6::OFFSET)?;
        let payload = ((length - ipv6::LENGTH) as u16).to_be();
        header.set::<u32, 0>(0x6000_0000u32.to_be());
        header.set::<u16, 4>(payload);
        header.set::<u16, 6>(u16::from_ne_bytes([ICMPV6, TIME_TO_LIVE]));
        header.set::<[u64; 2], 8>(source);
        header.set::<[u64; 2], 24>(destination);
        let mut sum = u64::from(payload) + u64::from(u16::from(ICMPV6).to_be());
        for word in [source[0], source[1], destination[0], destination[1]] {
            sum += (word >> 32) + (word & 0xffff_ffff);
        }
        Some(u32::from(fold_wide(sum)))
    }
}

/// Turns the frame into an error to its sender; whether it could. Errors are limited to one in each jiffy (1 to 10 ms) for
/// each of 256 groups of addresses on each CPU, so that nobody can use up everybody's, and none is sent about what may not
/// be answered: that is for the caller to know.
#[inline(always)]
pub fn answer<F: IcmpError>(context: &XdpContext, says: Says) -> bool {
    let packet = Packet::of(context);
    let Ok((ethernet, _)) = ethernet::parse(&packet) else {
        return false;
    };
    let Ok(network) = F::parse(&packet) else {
        return false;
    };
    if !may_send::<F>(network.source) {
        return false;
    }
    let back = Ethernet {
        destination: ethernet.source,
        source: ethernet.destination,
    };
    let ends = (network.destination, network.source);
    let is_plain = network.transport_offset == ethernet::LENGTH + F::HEADER_LENGTH;
    let length = network.length;
    let written = if length >= LONG_QUOTE || F::VERSION == 6 && !is_plain {
        write::<F, LONG_QUOTE>(context, length, back, ends, says)
    } else if F::VERSION == 6 {
        write::<F, { Ipv6::SHORT_QUOTE }>(context, length, back, ends, says)
    } else if is_plain {
        write::<F, { Ipv4::SHORT_QUOTE }>(context, length, back, ends, says)
    } else {
        write::<F, OPTIONS_QUOTE>(context, length, back, ends, says)
    };
    written.is_some()
}

/// Whether somebody at an address may be told now.
#[inline(always)]
fn may_send<F: Family>(to: F::Address) -> bool {
    let group = scale_high(GROUPS.hash(&F::widened(to)), ICMP_GROUPS);
    let Some(last) = ICMP_SENT.get_ptr_mut(group) else {
        return false;
    };
    let now = jiffies();
    // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
    unsafe {
        if *last == now {
            return false;
        }
        if !is_dry() {
            *last = now;
        }
    }
    true
}

/// A packet that is shorter than its quote is filled up with zeros, as RFC 4884 section 4 has it; the kernel adds them.
#[inline(always)]
fn write<F: IcmpError, const QUOTE: usize>(
    context: &XdpContext,
    length: usize,
    back: Ethernet,
    (source, destination): (F::Address, F::Address),
    says: Says,
) -> Option<()> {
    let growth = F::HEADER_LENGTH + ICMP_HEADER;
    let kept = if length < QUOTE { length } else { QUOTE };
    // Hidden from LLVM, which else subtracts addresses as if they were 32 bits wide; the kernel's verifier refuses that.
    let surplus = black_box(Packet::of(context).length()) as i32 - (ethernet::LENGTH + kept) as i32;
    // SAFETY: the helpers check that there is room; the frame is looked at anew below.
    unsafe {
        if bpf_xdp_adjust_tail(context.ctx, -surplus) != 0
            || bpf_xdp_adjust_tail(context.ctx, (QUOTE - kept) as i32) != 0
            || bpf_xdp_adjust_head(context.ctx, -(growth as i32)) != 0
        {
            return None;
        }
    }
    let packet = Packet::of(context);
    rewrite::ethernet(&packet, back.to_words()).ok()?;
    packet
        .window_mut::<2>(ethernet::LENGTH - 2)?
        .set::<u16, 0>(F::ETHER_TYPE);
    let length = F::HEADER_LENGTH + ICMP_HEADER + QUOTE;
    let addresses = F::put_header(&packet, source, destination, length)?;
    let at = ethernet::LENGTH + F::HEADER_LENGTH;
    let (kind, code, rest) = F::header(says);
    let mut header = packet.window_mut::<ICMP_HEADER>(at)?;
    header.set::<u16, 0>(u16::from_ne_bytes([kind, code]));
    header.set::<u16, 2>(0);
    header.set::<u32, 4>(rest);
    let message = packet.bytes(at, ICMP_HEADER + QUOTE)?;
    // SAFETY: the frame has so many bytes there, a multiple of four.
    let sum = unsafe {
        bpf_csum_diff(
            ptr::null_mut(),
            0,
            message.cast_mut().cast(),
            (ICMP_HEADER + QUOTE) as u32,
            addresses,
        )
    };
    packet
        .window_mut::<2>(at + 2)?
        .set::<u16, 0>(!fold_wide(sum as u64 & 0xffff_ffff));
    Some(())
}
