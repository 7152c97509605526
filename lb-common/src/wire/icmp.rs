//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo requests, and errors with the beginning of the packet that they are about.

use super::network::{Fragment, Network, TCP, UDP};
use super::transport::{TCP_CHECKSUM, UDP_CHECKSUM};
use super::{Frame, ethernet};
use crate::checksum::Delta;
use crate::family::{Family, Ipv4, Ipv6};
use crate::outcome::Outcome;

/// Length of a message's header, in bytes. What an error quotes follows it.
pub const LENGTH: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// How much of the quoted packet's payload an error has at least (RFC 792); the ports are among it.
const LEAST_QUOTE: usize = 8;

/// What differs between the families' messages.
pub trait Messages: Family {
    /// The type of an echo request.
    const ECHO_REQUEST: u8;
    /// The type of its reply.
    const ECHO_REPLY: u8;

    /// Whether a message of this type quotes the packet that it is about.
    fn is_error(kind: u8) -> bool;

    /// What a change of the packet's own addresses adds to a change of the message's checksum.
    fn pseudo_header(delta: Delta) -> Delta;
}

impl Messages for Ipv4 {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    /// Destination unreachable (with it "fragmentation needed"), time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn pseudo_header(_: Delta) -> Delta {
        Delta::ZERO
    }
}

impl Messages for Ipv6 {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn pseudo_header(delta: Delta) -> Delta {
        delta
    }
}

/// What an error quotes: the headers of a TCP segment or a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted<A> {
    /// Where the quoted packet begins in the frame.
    pub offset: usize,
    /// Its IP header.
    pub network: Network<A>,
    /// Its source port, as in the packet.
    pub source_port: u16,
    /// Its destination port, as in the packet.
    pub destination_port: u16,
    /// Where its TCP or UDP checksum lies in the frame; 0 if the quote is too short to have it.
    pub checksum_offset: usize,
}

/// The type of the ICMP message in a packet.
///
/// # Errors
/// [`Outcome::IcmpNotOurs`]: a part of one. [`Outcome::MalformedTransport`]: it is shorter than its header.
#[inline(always)]
pub fn kind<F: Family, P: Frame + ?Sized>(frame: &P, network: &Network<F::Address>) -> Result<u8, Outcome> {
    if network.protocol != F::ICMP || !matches!(network.fragment, Fragment::Whole) {
        return Err(Outcome::IcmpNotOurs);
    }
    let header = frame.window::<LENGTH>(network.transport_offset);
    let header = header.ok_or(Outcome::MalformedTransport)?;
    if network.transport_offset + LENGTH > ethernet::LENGTH + network.length {
        return Err(Outcome::MalformedTransport);
    }
    Ok(header.field::<u8, 0>())
}

/// What the error in a packet quotes.
///
/// # Errors
/// [`Outcome::IcmpNotOurs`]: neither a TCP segment nor a UDP datagram, or not enough of it for its ports.
#[inline(always)]
pub fn quoted<F: Family, P: Frame + ?Sized>(
    frame: &P,
    network: &Network<F::Address>,
) -> Result<Quoted<F::Address>, Outcome> {
    let offset = network.transport_offset + LENGTH;
    let quoted = F::parse_quoted(frame, offset).ok_or(Outcome::IcmpNotOurs)?;
    let is_known = quoted.protocol == TCP || quoted.protocol == UDP;
    if !is_known || matches!(quoted.fragment, Fragment::Later) {
        return Err(Outcome::IcmpNotOurs);
    }
    let ports = frame
        .window::<LEAST_QUOTE>(quoted.transport_offset)
        .ok_or(Outcome::IcmpNotOurs)?;
    // What follows the packet in the frame is padding.
    let end = ethernet::LENGTH + network.length;
    if quoted.transport_offset + LEAST_QUOTE > end {
        return Err(Outcome::IcmpNotOurs);
    }
    let checksum = quoted.transport_offset
        + if quoted.protocol == TCP {
            TCP_CHECKSUM
        } else {
            UDP_CHECKSUM
        };
    Ok(Quoted {
        offset,
        network: quoted,
        source_port: ports.field::<u16, 0>(),
        destination_port: ports.field::<u16, 2>(),
        checksum_offset: if checksum + 2 > end { 0 } else { checksum },
    })
}
