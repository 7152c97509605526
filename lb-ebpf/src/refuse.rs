//! Answering in a backend's stead: a TCP segment with a RST, a UDP datagram with an ICMP port unreachable.

use core::mem::offset_of;

use aya_ebpf::helpers::generated::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use lb_common::family::{Ipv4, Ipv6};
use lb_common::outcome::Outcome;
use lb_common::wire::ethernet::{self, Ethernet};
use lb_common::wire::reset::{self, Answered};
use lb_common::wire::{Frame as _, transport};
use network_types::tcp::TcpHdr;

use crate::icmp_error::{self, IcmpError, Says};
use crate::packet::{Packet, Writable as _};
use crate::parse::Segment;
use crate::rewrite;

/// A family whose connections can be refused.
pub trait Refuse: IcmpError {
    /// Length of a RST's packet.
    const RST_LENGTH: usize;

    /// Writes the RST's headers behind the Ethernet header.
    fn put_rst(
        packet: &Packet,
        source: Self::Address,
        destination: Self::Address,
        answered: &Answered,
    ) -> Option<()>;
}

impl Refuse for Ipv4 {
    const RST_LENGTH: usize = reset::IPV4_LENGTH;

    #[inline(always)]
    fn put_rst(packet: &Packet, source: u32, destination: u32, answered: &Answered) -> Option<()> {
        let mut window = packet.window_mut::<{ reset::IPV4_LENGTH }>(ethernet::LENGTH)?;
        window.set::<[u16; reset::IPV4_LENGTH / 2], 0>(reset::over_ipv4(source, destination, answered));
        Some(())
    }
}

impl Refuse for Ipv6 {
    const RST_LENGTH: usize = reset::IPV6_LENGTH;

    #[inline(always)]
    fn put_rst(packet: &Packet, source: [u64; 2], destination: [u64; 2], answered: &Answered) -> Option<()> {
        let mut window = packet.window_mut::<{ reset::IPV6_LENGTH }>(ethernet::LENGTH)?;
        window.set::<[u16; reset::IPV6_LENGTH / 2], 0>(reset::over_ipv6(source, destination, answered));
        Some(())
    }
}

/// Turns the frame into a refusal to its sender; the outcome is `answered`, unless it may not be answered: a RST never is
/// (RFC 9293 section 3.10.7.1), and a datagram only so often.
#[inline(always)]
pub fn refuse<F: Refuse>(context: &XdpContext, segment: &Segment<F>, answered: Outcome) -> Outcome {
    if segment.is_tcp() {
        if segment.transport.flags.resets() {
            return Outcome::RstForNobody;
        }
        return match write_rst(context, segment) {
            Some(()) => answered,
            None => Outcome::Impossible,
        };
    }
    if icmp_error::answer::<F>(context, Says::PortUnreachable) {
        answered
    } else {
        Outcome::RstForNobody
    }
}

#[inline(always)]
fn write_rst<F: Refuse>(context: &XdpContext, segment: &Segment<F>) -> Option<()> {
    let packet = Packet::of(context);
    let header = packet.window::<{ transport::TCP_LENGTH }>(segment.network.transport_offset)?;
    let headers = segment.network.transport_offset + segment.transport.header_length;
    let answered = Answered {
        source_port: segment.transport.source_port,
        destination_port: segment.transport.destination_port,
        flags: segment.transport.flags,
        sequence: header.field::<u32, { offset_of!(TcpHdr, seq) }>(),
        acknowledgment: header.field::<u32, { offset_of!(TcpHdr, ack_seq) }>(),
        payload: (ethernet::LENGTH + segment.network.length - headers) as u32,
    };
    let surplus = packet.length() as i32 - (ethernet::LENGTH + F::RST_LENGTH) as i32;
    // SAFETY: the helper checks the length; the frame is looked at anew below.
    if unsafe { bpf_xdp_adjust_tail(context.ctx, -surplus) } != 0 {
        return None;
    }
    let packet = Packet::of(context);
    let back = Ethernet {
        destination: segment.ethernet.source,
        source: segment.ethernet.destination,
    };
    rewrite::ethernet(&packet, back.to_words()).ok()?;
    F::put_rst(
        &packet,
        segment.network.source,
        segment.network.destination,
        &answered,
    )
}
