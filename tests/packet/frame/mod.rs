//! Frames, described field by field and encoded by etherparse: an encoder that is not ours.

mod content;
mod extension;
mod fragments;
mod icmp;
mod packet;

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, Ipv4Header, Ipv6FlowLabel, SingleVlanHeader, TcpHeader, VlanId, VlanPcp,
    ip_number,
};

pub use content::{Content, Udp};
pub use extension::Extension;
pub use icmp::{Echo, SAYS, Says, alone};
pub use packet::{Header, Packet};

use crate::world::{ROUTER_MAC, UPLINK_MAC};

/// The largest packet of an ordinary link, in bytes.
pub const MTU: usize = 1500;

/// A packet in an Ethernet frame. Lengths and checksums are computed when it is encoded.
#[derive(Debug, Clone)]
pub struct Frame {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    /// Identifiers of VLAN tags, the outermost first; all but the innermost of two or more are service tags (IEEE 802.1ad).
    pub tags: Vec<u16>,
    pub packet: Packet,
    /// What follows the packet in the frame.
    pub padding: Vec<u8>,
}

impl From<Packet> for Frame {
    /// From the router on the clients' side.
    fn from(packet: Packet) -> Self {
        Self {
            source: ROUTER_MAC,
            destination: UPLINK_MAC,
            tags: Vec::new(),
            packet,
            padding: Vec::new(),
        }
    }
}

impl Frame {
    /// A TCP segment from the router on the clients' side, without flags, options or payload.
    pub fn tcp(from: SocketAddr, to: SocketAddr) -> Self {
        let tcp = TcpHeader::new(from.port(), to.port(), 1000, 64240);
        Self::from(Packet::new(from.ip(), to.ip(), Content::Tcp(tcp, Vec::new())))
    }

    /// A UDP datagram from there, without payload.
    pub fn udp(from: SocketAddr, to: SocketAddr) -> Self {
        let udp = Udp {
            source_port: from.port(),
            destination_port: to.port(),
            has_checksum: true,
        };
        Self::from(Packet::new(from.ip(), to.ip(), Content::Udp(udp, Vec::new())))
    }

    pub fn between(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.source, self.destination) = (source, destination);
        self
    }

    pub fn syn(mut self) -> Self {
        self.tcp_mut().syn = true;
        self
    }

    pub fn ack(mut self) -> Self {
        let tcp = self.tcp_mut();
        (tcp.ack, tcp.acknowledgment_number) = (true, 77_000);
        self
    }

    pub fn fin(mut self) -> Self {
        self.tcp_mut().fin = true;
        self
    }

    pub fn rst(mut self) -> Self {
        self.tcp_mut().rst = true;
        self
    }

    pub fn sequence(mut self, number: u32) -> Self {
        self.tcp_mut().sequence_number = number;
        self
    }

    /// Of a TCP segment or a UDP datagram.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        match &mut self.packet.content {
            Content::Tcp(_, bytes) | Content::Udp(_, bytes) => *bytes = payload.to_vec(),
            other => panic!("no payload in {other:?}"),
        }
        self
    }

    /// The same with such a payload that the packet has so many bytes.
    pub fn filled_to(self, length: usize) -> Self {
        let headers = self.clone().payload(&[]).packet.bytes().len();
        let payload: Vec<u8> = (0..length - headers).map(|i| (i * 31) as u8).collect();
        self.payload(&payload)
    }

    pub fn padding(mut self, padding: &[u8]) -> Self {
        self.padding = padding.to_vec();
        self
    }

    pub fn tagged(mut self, identifiers: &[u16]) -> Self {
        self.tags = identifiers.to_vec();
        self
    }

    /// The time to live, or hop limit.
    pub fn time_to_live(mut self, time_to_live: u8) -> Self {
        *self.packet.header.time_to_live() = time_to_live;
        self
    }

    /// The type of service, or traffic class.
    pub fn class(mut self, class: u8) -> Self {
        self.packet.header.set_class(class);
        self
    }

    /// IPv4: the identification. IPv6: that of the fragments that the packet is cut into.
    pub fn identification(mut self, identification: u16) -> Self {
        match &mut self.packet.header {
            Header::V4(header) => header.identification = identification,
            Header::V6 {
                identification: id, ..
            } => *id = u32::from(identification) << 16 | 0x77,
        }
        self
    }

    /// IPv4: routers may cut it into fragments.
    pub fn may_be_cut(mut self) -> Self {
        self.ipv4_mut().dont_fragment = false;
        self
    }

    /// So many words of options that do nothing.
    pub fn ipv4_options(mut self, words: usize) -> Self {
        self.ipv4_mut().options = vec![1; words * 4]
            .as_slice()
            .try_into()
            .expect("at most 10 words");
        self
    }

    pub fn extensions(mut self, these: &[Extension]) -> Self {
        match &mut self.packet.header {
            Header::V6 { extensions, .. } => *extensions = these.to_vec(),
            Header::V4(_) => panic!("IPv4 has no extension headers"),
        }
        self
    }

    /// So many words of options that do nothing.
    pub fn tcp_options(mut self, words: usize) -> Self {
        self.tcp_mut()
            .set_options_raw(&vec![1; words * 4])
            .expect("at most 10 words");
        self
    }

    /// UDP: the sender has not computed a checksum.
    pub fn without_checksum(mut self) -> Self {
        match &mut self.packet.content {
            Content::Udp(udp, _) => udp.has_checksum = false,
            other => panic!("{other:?} cannot do without"),
        }
        self
    }

    pub fn with_source(mut self, from: SocketAddr) -> Self {
        self.packet.set_source(from);
        self
    }

    pub fn with_destination(mut self, to: SocketAddr) -> Self {
        self.packet.set_destination(to);
        self
    }

    /// A router has passed it on.
    pub fn routed(mut self) -> Self {
        *self.packet.header.time_to_live() -= 1;
        self
    }

    /// The RST to this segment (RFC 9293 section 3.10.7.1), as a host would send it.
    pub fn answered_with_rst(&self) -> Self {
        let (from, to) = (self.packet.destination(), self.packet.source());
        let mut rst = Self::tcp(from, to).between(self.destination, self.source).rst();
        match &mut rst.packet.header {
            Header::V4(header) => header.identification = 0,
            Header::V6 { header, .. } => header.flow_label = Ipv6FlowLabel::ZERO,
        }
        let Content::Tcp(refused, payload) = &self.packet.content else {
            panic!("a RST answers a TCP segment");
        };
        let tcp = rst.tcp_mut();
        tcp.window_size = 0;
        if refused.ack {
            tcp.sequence_number = refused.acknowledgment_number;
        } else {
            let length = payload.len() as u32 + u32::from(refused.syn) + u32::from(refused.fin);
            tcp.sequence_number = 0;
            tcp.ack = true;
            tcp.acknowledgment_number = refused.sequence_number.wrapping_add(length);
        }
        rst
    }

    pub fn bytes(&self) -> Vec<u8> {
        let packet = self.packet.bytes();
        let carried = match self.packet.header {
            Header::V4(_) => EtherType::IPV4,
            Header::V6 { .. } => EtherType::IPV6,
        };
        let mut types: Vec<EtherType> = (0..self.tags.len())
            .rev()
            .map(|inside| match inside {
                0 => EtherType::VLAN_TAGGED_FRAME,
                _ => EtherType::PROVIDER_BRIDGING,
            })
            .collect();
        types.push(carried);
        let ethernet = Ethernet2Header {
            source: self.source,
            destination: self.destination,
            ether_type: types[0],
        };
        let mut bytes = ethernet.to_bytes().to_vec();
        for (identifier, ether_type) in self.tags.iter().zip(&types[1..]) {
            let tag = SingleVlanHeader {
                pcp: VlanPcp::ZERO,
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(*identifier).expect("12 bits"),
                ether_type: *ether_type,
            };
            bytes.extend(tag.to_bytes());
        }
        bytes.extend(packet);
        bytes.extend(&self.padding);
        bytes
    }

    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.packet.content, Content::Tcp(..))
    }

    pub fn tcp_mut(&mut self) -> &mut TcpHeader {
        match &mut self.packet.content {
            Content::Tcp(header, _) => header,
            other => panic!("{other:?} is no TCP segment"),
        }
    }

    pub fn ipv4_mut(&mut self) -> &mut Ipv4Header {
        match &mut self.packet.header {
            Header::V4(header) => header,
            Header::V6 { .. } => panic!("an IPv6 packet"),
        }
    }
}

/// The protocol number of ICMP in a family.
pub fn icmp_number(address: IpAddr) -> etherparse::IpNumber {
    if address.is_ipv4() {
        ip_number::ICMP
    } else {
        ip_number::IPV6_ICMP
    }
}
