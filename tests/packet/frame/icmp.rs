//! ICMP and ICMPv6: errors about packets, and echoes.

use std::net::{IpAddr, SocketAddr};

use etherparse::icmpv4::{self, DestUnreachableHeader};
use etherparse::icmpv6::{self, DestUnreachableCode};
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};

use super::{Content, Frame, Header, Packet};

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// "Fragmentation needed", or "packet too big": no more than so many bytes.
    TooBig(u16),
    PortUnreachable,
    HostUnreachable,
    Prohibited,
    TimeExceeded,
    /// At this byte.
    ParameterProblem(u8),
}

/// All that are told apart here.
pub const SAYS: [Says; 6] = [
    Says::TooBig(1280),
    Says::PortUnreachable,
    Says::HostUnreachable,
    Says::Prohibited,
    Says::TimeExceeded,
    Says::ParameterProblem(9),
];

impl Says {
    pub fn icmpv4(self) -> Icmpv4Type {
        match self {
            Self::TooBig(next_hop_mtu) => {
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu,
                })
            }
            Self::PortUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port),
            Self::HostUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host),
            Self::Prohibited => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FilterProhibited),
            Self::TimeExceeded => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            Self::ParameterProblem(pointer) => {
                Icmpv4Type::ParameterProblem(icmpv4::ParameterProblemHeader::PointerIndicatesError(pointer))
            }
        }
    }

    pub fn icmpv6(self) -> Icmpv6Type {
        match self {
            Self::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
            Self::PortUnreachable => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port),
            Self::HostUnreachable => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address),
            Self::Prohibited => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Prohibited),
            Self::TimeExceeded => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            Self::ParameterProblem(pointer) => Icmpv6Type::ParameterProblem(icmpv6::ParameterProblemHeader {
                code: icmpv6::ParameterProblemCode::ErroneousHeaderField,
                pointer: pointer.into(),
            }),
        }
    }
}

/// An echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    pub is_reply: bool,
    pub id: u16,
    pub sequence: u16,
}

impl Echo {
    fn header(self) -> IcmpEchoHeader {
        IcmpEchoHeader {
            id: self.id,
            seq: self.sequence,
        }
    }

    pub fn icmpv4(self) -> Icmpv4Type {
        if self.is_reply {
            Icmpv4Type::EchoReply(self.header())
        } else {
            Icmpv4Type::EchoRequest(self.header())
        }
    }

    pub fn icmpv6(self) -> Icmpv6Type {
        if self.is_reply {
            Icmpv6Type::EchoReply(self.header())
        } else {
            Icmpv6Type::EchoRequest(self.header())
        }
    }
}

impl Packet {
    /// The error that `from` sends to this packet's sender.
    pub fn error(&self, from: IpAddr, says: Says, quoted: usize) -> Self {
        let to = self.header.source();
        Self::new(from, to, Content::Error(says, Box::new(self.clone()), quoted))
    }

    /// The packet that this error is about.
    pub fn about(&mut self) -> &mut Self {
        match &mut self.content {
            Content::Error(_, about, _) => about,
            other => panic!("{other:?} is no error"),
        }
    }

    /// Bytes of the IP header, extension headers included.
    pub fn header_length(&self) -> usize {
        self.header_bytes(0).len()
    }
}

/// Bytes of a large packet that the program quotes.
const LONG_QUOTE: usize = 128;

impl Frame {
    /// An echo request from a client to a VIP.
    pub fn echo_request(from: IpAddr, to: IpAddr, payload: &[u8]) -> Self {
        let echo = Echo {
            is_reply: false,
            id: 0x4321,
            sequence: 7,
        };
        Self::from(Packet::new(from, to, Content::Echo(echo, payload.to_vec())))
    }

    /// Its reply.
    pub fn echo_reply(&self) -> Self {
        let mut reply = self.clone().between(self.destination, self.source);
        let (from, to) = (self.packet.destination(), self.packet.source());
        reply.packet.set_source(from);
        reply.packet.set_destination(to);
        *reply.packet.header.time_to_live() = 64;
        if let Content::Echo(echo, _) = &mut reply.packet.content {
            echo.is_reply = true;
        }
        reply
    }

    /// The error about this packet, as the program itself sends it, in the packet's destination's name.
    pub fn answered_with(&self, says: Says) -> Self {
        let length = self.packet.bytes().len();
        let quoted = match &self.packet.header {
            _ if length >= LONG_QUOTE => LONG_QUOTE,
            Header::V4(header) if header.options.is_empty() => 28,
            Header::V4(_) => 68,
            Header::V6 { extensions, .. } if extensions.is_empty() => 48,
            Header::V6 { .. } => LONG_QUOTE,
        };
        let error = self.packet.error(self.packet.header.destination(), says, quoted);
        let mut frame = Self::from(error).between(self.destination, self.source);
        match &mut frame.packet.header {
            Header::V4(header) => (header.identification, header.dont_fragment) = (0, false),
            Header::V6 { header, .. } => header.flow_label = etherparse::Ipv6FlowLabel::ZERO,
        }
        frame
    }

    /// The same packet in another one, without the frame's own addresses changed.
    pub fn inside(mut self, from: IpAddr, to: IpAddr) -> Self {
        let class = self.packet.header.class();
        let inside = self.packet.clone();
        self.packet = Packet::new(from, to, Content::Packet(Box::new(inside)));
        self.packet.header.set_class(class);
        match &mut self.packet.header {
            Header::V4(header) => header.identification = 0,
            Header::V6 { header, .. } => header.flow_label = etherparse::Ipv6FlowLabel::ZERO,
        }
        self
    }

    /// An error from a router, or a host, as it comes in a frame.
    pub fn error_about(about: &Packet, from: IpAddr, says: Says, quoted: usize) -> Self {
        Self::from(about.error(from, says, quoted))
    }
}

/// A port that nobody has, for addresses alone.
pub fn alone(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
