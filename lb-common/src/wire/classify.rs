//! What the program makes of a frame before it looks anything up, by the code that the program runs. Not compiled into it:
//! this is for whoever compares the two.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Frame;
use super::ethernet::{self, Carries, Ethernet};
use super::icmp::{self, Messages, Quoted};
use super::network::Network;
use super::segment::{self, Kind};
use super::transport::Transport;
use crate::family::{Ipv4, Ipv6};
use crate::outcome::Outcome;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classification {
    /// Nothing that anything is looked up for: the frame passes with this outcome.
    Passes(Outcome),
    /// A TCP segment or a UDP datagram, or the first fragment of one.
    Segment(Ethernet, Network<IpAddr>, Transport),
    /// A later fragment of one.
    LaterFragment(Ethernet, Network<IpAddr>),
    /// An echo request.
    EchoRequest(Ethernet, Network<IpAddr>),
    /// An ICMP error, and what it is about.
    Error(Ethernet, Network<IpAddr>, Quoted<IpAddr>),
}

/// Classifies a frame.
pub fn classify<P: Frame + ?Sized>(frame: &P) -> Classification {
    let classified = ethernet::parse(frame).and_then(|(ethernet, carries)| match carries {
        Carries::Ipv4 => of_family::<Ipv4, P>(frame, ethernet),
        Carries::Ipv6 => of_family::<Ipv6, P>(frame, ethernet),
    });
    classified.unwrap_or_else(Classification::Passes)
}

fn of_family<F, P>(frame: &P, ethernet: Ethernet) -> Result<Classification, Outcome>
where
    F: Messages<Address: Shown>,
    P: Frame + ?Sized,
{
    let network = F::parse(frame)?;
    Ok(match segment::kind::<F>(&network)? {
        Kind::Segment => {
            let segment = segment::with_transport::<F, P>(frame, ethernet, network)?;
            Classification::Segment(ethernet, shown(network), segment.transport)
        }
        Kind::LaterFragment => Classification::LaterFragment(ethernet, shown(network)),
        Kind::Icmp => {
            let kind = icmp::kind::<F, P>(frame, &network)?;
            if kind == F::ECHO_REQUEST {
                return Ok(Classification::EchoRequest(ethernet, shown(network)));
            }
            if !F::is_error(kind) {
                return Err(Outcome::IcmpNotOurs);
            }
            let quoted = icmp::quoted::<F, P>(frame, &network)?;
            let quoted = Quoted {
                offset: quoted.offset,
                network: shown(quoted.network),
                source_port: quoted.source_port,
                destination_port: quoted.destination_port,
                checksum_offset: quoted.checksum_offset,
            };
            Classification::Error(ethernet, shown(network), quoted)
        }
    })
}

/// An address as it is in the packet, of whichever family, as everybody else writes it.
trait Shown {
    fn shown(self) -> IpAddr;
}

impl Shown for u32 {
    fn shown(self) -> IpAddr {
        Ipv4Addr::from(self.to_ne_bytes()).into()
    }
}

impl Shown for [u64; 2] {
    fn shown(self) -> IpAddr {
        let [low, high] = self.map(u64::to_ne_bytes);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&low);
        bytes[8..].copy_from_slice(&high);
        Ipv6Addr::from(bytes).into()
    }
}

fn shown<A: Shown>(network: Network<A>) -> Network<IpAddr> {
    Network {
        source: network.source.shown(),
        destination: network.destination.shown(),
        protocol: network.protocol,
        fragment: network.fragment,
        time_to_live: network.time_to_live,
        transport_offset: network.transport_offset,
        length: network.length,
        identification: network.identification,
    }
}
