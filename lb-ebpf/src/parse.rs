//! From bytes to what the stages after this one need to know of a packet.

use lb_common::family::Family;
use lb_common::outcome::Outcome;
use lb_common::wire::ethernet::{self, Ethernet};
use lb_common::wire::network::{Fragment, Network, TCP, UDP};
use lb_common::wire::transport::{self, Transport};

use crate::packet::Packet;

/// The beginning of a TCP segment or a UDP datagram, in an IP packet, in an Ethernet frame.
pub struct Segment<F: Family> {
    pub ethernet: Ethernet,
    pub network: Network<F::Address>,
    pub transport: Transport,
}

impl<F: Family> Segment<F> {
    /// Whether this may be the first packet of a connection: a SYN, or any datagram.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.network.protocol == UDP || self.transport.flags.opens()
    }

    /// Whether it is a TCP segment.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.network.protocol == TCP
    }

    /// Whether it is the first of several fragments.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        matches!(self.network.fragment, Fragment::First)
    }
}

/// Reads the headers of a frame that is known to carry the family; the outcome of a packet that is no business of ours is
/// its error.
#[inline(always)]
pub fn parse<F: Family>(packet: &Packet) -> Result<Segment<F>, Outcome> {
    let (ethernet, _) = ethernet::parse(packet)?;
    let network = F::parse(packet)?;
    with_transport(packet, ethernet, network)
}

/// Reads what follows the IP header.
#[inline(always)]
pub fn with_transport<F: Family>(
    packet: &Packet,
    ethernet: Ethernet,
    network: Network<F::Address>,
) -> Result<Segment<F>, Outcome> {
    let transport = transport::parse(packet, &network, ethernet::LENGTH)?;
    Ok(Segment {
        ethernet,
        network,
        transport,
    })
}
