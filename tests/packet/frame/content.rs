//! What a packet carries.

use etherparse::{Icmpv4Header, Icmpv6Header, IpNumber, TcpHeader, UdpHeader, ip_number};

use super::{Echo, Header, Packet, Says};

/// What a packet carries.
#[derive(Debug, Clone)]
pub enum Content {
    Tcp(TcpHeader, Vec<u8>),
    Udp(Udp, Vec<u8>),
    /// An ICMP error, and how many bytes of the packet that it is about it quotes; of a shorter one, all and zeros.
    Error(Says, Box<Packet>, usize),
    Echo(Echo, Vec<u8>),
    /// Another packet.
    Packet(Box<Packet>),
    /// A part of something, or nothing that is known here.
    Bytes(IpNumber, Vec<u8>),
}

/// A UDP header.
#[derive(Debug, Clone, Copy)]
pub struct Udp {
    pub source_port: u16,
    pub destination_port: u16,
    /// Whether the sender has computed a checksum.
    pub has_checksum: bool,
}

impl Content {
    /// The protocol number; `icmp`: the family's ICMP.
    pub fn protocol(&self, icmp: IpNumber) -> IpNumber {
        match self {
            Self::Tcp(..) => ip_number::TCP,
            Self::Udp(..) => ip_number::UDP,
            Self::Error(..) | Self::Echo(..) => icmp,
            Self::Packet(inside) => match inside.header {
                Header::V4(_) => ip_number::IPV4,
                Header::V6 { .. } => ip_number::IPV6,
            },
            Self::Bytes(protocol, _) => *protocol,
        }
    }

    /// Source and destination port; 0 of what has none.
    pub fn ports(&self) -> (u16, u16) {
        match self {
            Self::Tcp(header, _) => (header.source_port, header.destination_port),
            Self::Udp(header, _) => (header.source_port, header.destination_port),
            _ => (0, 0),
        }
    }

    pub fn ports_mut(&mut self) -> Option<(&mut u16, &mut u16)> {
        match self {
            Self::Tcp(header, _) => Some((&mut header.source_port, &mut header.destination_port)),
            Self::Udp(header, _) => Some((&mut header.source_port, &mut header.destination_port)),
            _ => None,
        }
    }

    /// Its bytes behind a header, whose addresses some checksums are about as well.
    pub fn bytes(&self, header: &Header) -> Vec<u8> {
        match self {
            Self::Tcp(tcp, payload) => {
                let mut tcp = tcp.clone();
                tcp.checksum = match header {
                    Header::V4(header) => tcp.calc_checksum_ipv4(header, payload),
                    Header::V6 { header, .. } => tcp.calc_checksum_ipv6(header, payload),
                }
                .expect("fits into a packet");
                [&tcp.to_bytes()[..], payload].concat()
            }
            Self::Udp(udp, payload) => [&udp.bytes(header, payload)[..], payload].concat(),
            Self::Error(says, about, quoted) => {
                let mut quote = about.bytes();
                quote.resize(*quoted, 0);
                match header {
                    Header::V4(_) => icmpv4(says.icmpv4(), &quote),
                    Header::V6 { header, .. } => icmpv6(says.icmpv6(), header, &quote),
                }
            }
            Self::Echo(echo, payload) => match header {
                Header::V4(_) => icmpv4(echo.icmpv4(), payload),
                Header::V6 { header, .. } => icmpv6(echo.icmpv6(), header, payload),
            },
            Self::Packet(inside) => inside.bytes(),
            Self::Bytes(_, bytes) => bytes.clone(),
        }
    }
}

impl Udp {
    fn bytes(&self, header: &Header, payload: &[u8]) -> [u8; UdpHeader::LEN] {
        let (from, to) = (self.source_port, self.destination_port);
        let mut udp = match header {
            Header::V4(header) => UdpHeader::with_ipv4_checksum(from, to, header, payload),
            Header::V6 { header, .. } => UdpHeader::with_ipv6_checksum(from, to, header, payload),
        }
        .expect("fits into a packet");
        if !self.has_checksum {
            udp.checksum = 0;
        }
        udp.to_bytes()
    }
}

fn icmpv4(kind: etherparse::Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    let header = Icmpv4Header::with_checksum(kind, payload);
    [&header.to_bytes()[..], payload].concat()
}

fn icmpv6(kind: etherparse::Icmpv6Type, outside: &etherparse::Ipv6Header, payload: &[u8]) -> Vec<u8> {
    let header = Icmpv6Header::with_checksum(kind, outside.source, outside.destination, payload)
        .expect("fits into a packet");
    [&header.to_bytes()[..], payload].concat()
}
