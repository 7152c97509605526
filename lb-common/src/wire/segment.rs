//! The beginning of a TCP segment or a UDP datagram, and what comes before: which frames have one at all.

use super::Frame;
use super::ethernet::{self, Ethernet};
use super::network::{Fragment, Network, TCP, UDP};
use super::transport::{self, Transport};
use crate::family::Family;
use crate::outcome::Outcome;

/// The headers of a TCP segment or a UDP datagram, in an IP packet, in an Ethernet frame.
pub struct Segment<F: Family> {
    /// The frame's addresses.
    pub ethernet: Ethernet,
    /// The IP header.
    pub network: Network<F::Address>,
    /// The TCP or UDP header.
    pub transport: Transport,
}

/// What a packet is, which decides who looks further at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP, with ports.
    Segment,
    /// TCP or UDP, but a later fragment: without ports.
    LaterFragment,
    /// The family's ICMP.
    Icmp,
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

/// What a packet is.
///
/// # Errors
/// [`Outcome::OtherProtocol`]: nothing that is balanced.
#[inline(always)]
pub fn kind<F: Family>(network: &Network<F::Address>) -> Result<Kind, Outcome> {
    if network.protocol != TCP && network.protocol != UDP {
        return if network.protocol == F::ICMP {
            Ok(Kind::Icmp)
        } else {
            Err(Outcome::OtherProtocol)
        };
    }
    Ok(if matches!(network.fragment, Fragment::Later) {
        Kind::LaterFragment
    } else {
        Kind::Segment
    })
}

/// Reads the headers of a frame that is known to carry a segment of the family.
///
/// # Errors
/// The outcome of a frame that does not.
#[inline(always)]
pub fn parse<F: Family, P: Frame + ?Sized>(frame: &P) -> Result<Segment<F>, Outcome> {
    let (ethernet, _) = ethernet::parse(frame)?;
    let network = F::parse(frame)?;
    with_transport(frame, ethernet, network)
}

/// Reads what follows the IP header.
///
/// # Errors
/// [`Outcome::MalformedTransport`]: it is cut off, or contradicts itself or the packet.
#[inline(always)]
pub fn with_transport<F: Family, P: Frame + ?Sized>(
    frame: &P,
    ethernet: Ethernet,
    network: Network<F::Address>,
) -> Result<Segment<F>, Outcome> {
    let transport = transport::parse(frame, &network, ethernet::LENGTH)?;
    Ok(Segment {
        ethernet,
        network,
        transport,
    })
}
