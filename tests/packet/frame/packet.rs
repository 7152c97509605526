//! An IP packet: the header, of either family, and what it carries.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};

use super::{Content, Extension, icmp_number};

/// An IP packet. Lengths and checksums are computed when it is encoded.
#[derive(Debug, Clone)]
pub struct Packet {
    pub header: Header,
    pub content: Content,
}

/// A header.
#[derive(Debug, Clone)]
pub enum Header {
    V4(Ipv4Header),
    V6 {
        header: Ipv6Header,
        extensions: Vec<Extension>,
        /// That of the fragments which the packet is cut into.
        identification: u32,
    },
}

impl Packet {
    /// One that must not be cut into fragments.
    pub fn new(from: IpAddr, to: IpAddr, content: Content) -> Self {
        let header = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = Ipv4Header::new(0, 64, IpNumber(0), from.octets(), to.octets())
                    .expect("no payload is not too much");
                header.identification = 0x1234;
                Header::V4(header)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => Header::V6 {
                header: Ipv6Header {
                    flow_label: Ipv6FlowLabel::try_new(0x0a_bcde).expect("20 bits"),
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                },
                extensions: Vec::new(),
                identification: 0x1234_5678,
            },
            _ => panic!("{from} and {to} are not of one family"),
        };
        Self { header, content }
    }

    /// The source; port 0 of what has none.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.header.source(), self.content.ports().0)
    }

    /// The destination; port 0 of what has none.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.header.destination(), self.content.ports().1)
    }

    /// Changes the source, and its port if there is one.
    pub fn set_source(&mut self, from: SocketAddr) {
        match (&mut self.header, from.ip()) {
            (Header::V4(header), IpAddr::V4(address)) => header.source = address.octets(),
            (Header::V6 { header, .. }, IpAddr::V6(address)) => header.source = address.octets(),
            _ => panic!("{from} is not of the packet's family"),
        }
        if let Some((source, _)) = self.content.ports_mut() {
            *source = from.port();
        }
    }

    /// Changes the destination, and its port if there is one.
    pub fn set_destination(&mut self, to: SocketAddr) {
        match (&mut self.header, to.ip()) {
            (Header::V4(header), IpAddr::V4(address)) => header.destination = address.octets(),
            (Header::V6 { header, .. }, IpAddr::V6(address)) => header.destination = address.octets(),
            _ => panic!("{to} is not of the packet's family"),
        }
        if let Some((_, destination)) = self.content.ports_mut() {
            *destination = to.port();
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let content = self.content.bytes(&self.header);
        [self.header_bytes(content.len()), content].concat()
    }

    /// The header in front of so many bytes, extension headers included.
    pub fn header_bytes(&self, content: usize) -> Vec<u8> {
        let protocol = self.content.protocol(icmp_number(self.header.source()));
        match &self.header {
            Header::V4(header) => {
                let mut header = header.clone();
                header.protocol = protocol;
                header.set_payload_len(content).expect("fits into a packet");
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            Header::V6 {
                header, extensions, ..
            } => {
                let (first, chain) = Extension::chain(extensions, protocol);
                let mut header = header.clone();
                header.next_header = first;
                header.payload_length = (chain.len() + content).try_into().expect("fits into a packet");
                [&header.to_bytes()[..], &chain].concat()
            }
        }
    }
}

impl Header {
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(header) => IpAddr::from(header.source),
            Self::V6 { header, .. } => IpAddr::from(header.source),
        }
    }

    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(header) => IpAddr::from(header.destination),
            Self::V6 { header, .. } => IpAddr::from(header.destination),
        }
    }

    /// The time to live, or hop limit.
    pub fn time_to_live(&mut self) -> &mut u8 {
        match self {
            Self::V4(header) => &mut header.time_to_live,
            Self::V6 { header, .. } => &mut header.hop_limit,
        }
    }

    /// The type of service, or traffic class.
    pub fn class(&self) -> u8 {
        match self {
            Self::V4(header) => header.dscp.value() << 2 | header.ecn.value(),
            Self::V6 { header, .. } => header.traffic_class,
        }
    }

    /// Sets the type of service, or traffic class.
    pub fn set_class(&mut self, class: u8) {
        match self {
            Self::V4(header) => {
                header.dscp = IpDscp::try_new(class >> 2).expect("6 bits");
                header.ecn = IpEcn::try_new(class & 3).expect("2 bits");
            }
            Self::V6 { header, .. } => header.traffic_class = class,
        }
    }
}
