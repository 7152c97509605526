//! From bytes to what the stages after this one need to know of a packet.

use lb_common::outcome::Outcome;
use lb_common::wire::ethernet::{self, Ethernet};
use lb_common::wire::ipv4::{self, Ipv4};
use lb_common::wire::tcp::{self, Tcp};

use crate::packet::Packet;

/// A TCP segment in an IPv4 packet in an Ethernet frame.
pub struct Segment {
    pub ethernet: Ethernet,
    pub ipv4: Ipv4,
    pub tcp: Tcp,
}

/// Reads the headers; the outcome of a packet that is no business of ours is its error.
#[inline(always)]
pub fn parse(packet: &Packet) -> Result<Segment, Outcome> {
    let ethernet = ethernet::parse_ipv4_frame(packet)?;
    let ipv4 = ipv4::parse_tcp_packet(packet)?;
    let tcp = tcp::parse(packet, &ipv4)?;
    Ok(Segment { ethernet, ipv4, tcp })
}
