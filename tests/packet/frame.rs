//! Frames, described field by field and encoded by etherparse: an encoder that is not ours.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{EtherType, Ethernet2Header, Ipv4Header, TcpHeader, ip_number};
use lb::dataplane::BackendEntry;

use crate::world::{INSIDE_MAC, ROUTER_MAC, UPLINK_MAC, VIP, web, web_mac};

/// A TCP segment in an IPv4 packet in an Ethernet frame. Lengths and checksums are computed when it is encoded.
#[derive(Debug, Clone)]
pub struct Frame {
    pub ethernet: Ethernet2Header,
    pub ipv4: Ipv4Header,
    pub tcp: TcpHeader,
    pub payload: Vec<u8>,
    /// What follows the IP packet in the frame.
    pub padding: Vec<u8>,
}

impl Frame {
    /// From the router on the clients' side, without flags, options or payload.
    pub fn new(from: SocketAddrV4, to: SocketAddrV4) -> Self {
        let mut ipv4 = Ipv4Header::new(0, 64, ip_number::TCP, from.ip().octets(), to.ip().octets())
            .expect("no payload is not too much");
        ipv4.identification = 0x1234;
        Self {
            ethernet: Ethernet2Header {
                source: ROUTER_MAC,
                destination: UPLINK_MAC,
                ether_type: EtherType::IPV4,
            },
            ipv4,
            tcp: TcpHeader::new(from.port(), to.port(), 1000, 64240),
            payload: Vec::new(),
            padding: Vec::new(),
        }
    }

    pub fn between(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.ethernet.source, self.ethernet.destination) = (source, destination);
        self
    }

    pub fn syn(mut self) -> Self {
        self.tcp.syn = true;
        self
    }

    pub fn ack(mut self) -> Self {
        (self.tcp.ack, self.tcp.acknowledgment_number) = (true, 77_000);
        self
    }

    pub fn fin(mut self) -> Self {
        self.tcp.fin = true;
        self
    }

    pub fn rst(mut self) -> Self {
        self.tcp.rst = true;
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn padding(mut self, padding: &[u8]) -> Self {
        self.padding = padding.to_vec();
        self
    }

    pub fn time_to_live(mut self, time_to_live: u8) -> Self {
        self.ipv4.time_to_live = time_to_live;
        self
    }

    /// So many words of options that do nothing.
    pub fn ipv4_options(mut self, words: usize) -> Self {
        self.ipv4.options = vec![1; words * 4]
            .as_slice()
            .try_into()
            .expect("at most 10 words");
        self
    }

    /// So many words of options that do nothing.
    pub fn tcp_options(mut self, words: usize) -> Self {
        self.tcp
            .set_options_raw(&vec![1; words * 4])
            .expect("at most 10 words");
        self
    }

    pub fn with_source(mut self, from: SocketAddrV4) -> Self {
        (self.ipv4.source, self.tcp.source_port) = (from.ip().octets(), from.port());
        self
    }

    pub fn with_destination(mut self, to: SocketAddrV4) -> Self {
        (self.ipv4.destination, self.tcp.destination_port) = (to.ip().octets(), to.port());
        self
    }

    /// A router has passed it on.
    fn routed(mut self) -> Self {
        self.ipv4.time_to_live -= 1;
        self
    }

    /// The RST to this (RFC 9293 section 3.10.7.1), as a host would send it.
    pub fn answered_with_rst(&self) -> Self {
        let from = SocketAddrV4::new(self.ipv4.destination.into(), self.tcp.destination_port);
        let to = SocketAddrV4::new(self.ipv4.source.into(), self.tcp.source_port);
        let mut rst = Self::new(from, to)
            .between(self.ethernet.destination, self.ethernet.source)
            .rst();
        rst.ipv4.identification = 0;
        rst.tcp.window_size = 0;
        if self.tcp.ack {
            rst.tcp.sequence_number = self.tcp.acknowledgment_number;
        } else {
            let length = self.payload.len() as u32 + u32::from(self.tcp.syn) + u32::from(self.tcp.fin);
            rst.tcp.sequence_number = 0;
            rst.tcp.ack = true;
            rst.tcp.acknowledgment_number = self.tcp.sequence_number.wrapping_add(length);
        }
        rst
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut ipv4 = self.ipv4.clone();
        ipv4.set_payload_len(self.tcp.header_len() + self.payload.len())
            .expect("fits into a packet");
        ipv4.header_checksum = ipv4.calc_header_checksum();
        let mut tcp = self.tcp.clone();
        tcp.checksum = tcp
            .calc_checksum_ipv4(&ipv4, &self.payload)
            .expect("fits into a packet");
        [
            &self.ethernet.to_bytes()[..],
            &ipv4.to_bytes(),
            &tcp.to_bytes(),
            &self.payload,
            &self.padding,
        ]
        .concat()
    }

    pub fn len(&self) -> usize {
        self.bytes().len()
    }
}

/// A connection as those who have a part in it see it.
#[derive(Debug, Clone)]
pub struct Talk {
    pub client: SocketAddrV4,
    pub vip: SocketAddrV4,
    pub backend: BackendEntry,
    /// The router that the client's packets come from.
    pub router: [u8; 6],
}

impl Talk {
    /// With `web1`, …, by way of the usual router.
    pub fn new(client: SocketAddrV4, server: u8) -> Self {
        Self {
            client,
            vip: VIP,
            backend: web(server),
            router: ROUTER_MAC,
        }
    }

    pub fn client_sends(&self) -> Frame {
        Frame::new(self.client, self.vip).between(self.router, UPLINK_MAC)
    }

    pub fn backend_sends(&self) -> Frame {
        Frame::new(self.backend.endpoint, self.client).between(self.backend_mac(), INSIDE_MAC)
    }

    /// A client's frame, as its backend must receive it.
    pub fn at_backend(&self, frame: &Frame) -> Frame {
        frame
            .clone()
            .with_destination(self.backend.endpoint)
            .between(INSIDE_MAC, self.backend_mac())
            .routed()
    }

    /// A backend's frame, as the client's router must receive it.
    pub fn at_client(&self, frame: &Frame) -> Frame {
        frame
            .clone()
            .with_source(self.vip)
            .between(UPLINK_MAC, self.router)
            .routed()
    }

    fn backend_mac(&self) -> [u8; 6] {
        match &self.backend.next_hop {
            Some(hop) => hop.destination_mac,
            None => web_mac(0),
        }
    }
}

/// The client number so and so: each another port, every 50,000 another address.
pub fn client(number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)) + number / 50_000);
    SocketAddrV4::new(address, 10_000 + (number % 50_000) as u16)
}
