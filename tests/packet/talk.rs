//! A connection as those who have a part in it see it.

use std::net::{IpAddr, SocketAddr};

use lb::config::Protocol;
use lb::dataplane::{BackendEntry, Forwarding};

use crate::frame::{Frame, Packet, Says, alone};
use crate::kind::NAT;
use crate::world::{INSIDE_MAC, ROUTER_MAC, UPLINK_MAC, VIP, web, web_mac};

/// A connection, or what goes for one with UDP.
#[derive(Debug, Clone)]
pub struct Talk {
    pub client: SocketAddr,
    /// The VIP with the port that the client connects to.
    pub vip: SocketAddr,
    pub protocol: Protocol,
    pub backend: BackendEntry,
    /// The router that the client's packets come from.
    pub router: [u8; 6],
    /// `full-nat`: the balancer's own port.
    pub own_port: u16,
    /// Whether no entry is made.
    pub is_stateless: bool,
}

impl Talk {
    /// With `web1`, …, by way of the usual router.
    pub fn new(client: SocketAddr, server: u8) -> Self {
        Self {
            client,
            vip: VIP,
            backend: web(server),
            router: ROUTER_MAC,
            ..NAT.talk(0, server)
        }
    }

    /// `full-nat`: with another own port.
    pub fn by_own_port(mut self, own_port: u16) -> Self {
        self.own_port = own_port;
        self
    }

    /// To another port of the VIP.
    pub fn at_port(mut self, port: u16) -> Self {
        self.vip.set_port(port);
        self
    }

    /// Whether the backend's answers come by the balancer.
    pub fn is_answered(&self) -> bool {
        matches!(
            self.backend.forwarding,
            Forwarding::Nat | Forwarding::FullNat { .. }
        )
    }

    fn frame(&self, from: SocketAddr, to: SocketAddr) -> Frame {
        match self.protocol {
            Protocol::Tcp => Frame::tcp(from, to),
            Protocol::Udp => Frame::udp(from, to),
        }
    }

    pub fn client_sends(&self) -> Frame {
        self.frame(self.client, self.vip).between(self.router, UPLINK_MAC)
    }

    pub fn backend_sends(&self) -> Frame {
        self.frame(self.server(), self.as_seen_by_backend())
            .between(self.backend_mac(), INSIDE_MAC)
    }

    /// The first packet: a SYN, or a datagram.
    pub fn client_opens(&self) -> Frame {
        match self.protocol {
            Protocol::Tcp => self.client_sends().syn(),
            Protocol::Udp => self.client_sends().payload(b"open"),
        }
    }

    /// The first answer: a SYN-ACK, or a datagram.
    pub fn backend_accepts(&self) -> Frame {
        match self.protocol {
            Protocol::Tcp => self.backend_sends().syn().ack(),
            Protocol::Udp => self.backend_sends().payload(b"accept"),
        }
    }

    /// A packet from the middle of the connection.
    pub fn client_says(&self, payload: &[u8]) -> Frame {
        self.in_the_middle(self.client_sends()).payload(payload)
    }

    /// Likewise.
    pub fn backend_says(&self, payload: &[u8]) -> Frame {
        self.in_the_middle(self.backend_sends()).payload(payload)
    }

    fn in_the_middle(&self, frame: Frame) -> Frame {
        match self.protocol {
            Protocol::Tcp => frame.ack(),
            Protocol::Udp => frame,
        }
    }

    /// Where the backend gets the connection's packets: its endpoint, or the VIP.
    pub fn server(&self) -> SocketAddr {
        if !self.is_answered() {
            return self.vip;
        }
        let mut endpoint = self.backend.endpoint;
        if endpoint.port() == 0 {
            endpoint.set_port(self.vip.port());
        }
        endpoint
    }

    /// Who the client is for the backend.
    pub fn as_seen_by_backend(&self) -> SocketAddr {
        match self.backend.forwarding {
            Forwarding::FullNat { source, .. } => SocketAddr::new(source, self.own_port),
            _ => self.client,
        }
    }

    /// A client's frame, as its backend must receive it.
    pub fn at_backend(&self, frame: &Frame) -> Frame {
        self.on_the_way(self.rewritten(frame))
    }

    /// A client's frame, cut into fragments, as the backend must receive them.
    pub fn fragments_at_backend(&self, frame: &Frame, cuts: &[usize]) -> Vec<Frame> {
        let fragments = self.rewritten(frame).fragments(cuts);
        fragments.into_iter().map(|it| self.on_the_way(it)).collect()
    }

    /// A backend's frame, as the client's router must receive it.
    pub fn at_client(&self, frame: &Frame) -> Frame {
        frame
            .clone()
            .with_source(self.vip)
            .with_destination(self.client)
            .between(UPLINK_MAC, self.router)
            .routed()
    }

    /// An ICMP error, from a router, about a packet to the client, as it comes from there. `says` it about a packet that the
    /// backend sent, of which it quotes so many bytes.
    pub fn error_from_clients_side(&self, about: &Frame, says: Says, from: IpAddr, quoted: usize) -> Frame {
        let sent = if self.is_answered() {
            self.at_client(about).packet
        } else {
            about.packet.clone()
        };
        Frame::error_about(&sent, from, says, quoted).between(self.router, UPLINK_MAC)
    }

    /// That error, as the backend must receive it.
    pub fn error_at_backend(&self, error: &Frame) -> Frame {
        let mut frame = error.clone();
        if self.is_answered() {
            frame.packet.set_destination(alone(self.backend.endpoint.ip()));
            let (server, client) = (self.server(), self.as_seen_by_backend());
            let about = frame.packet.about();
            about.set_source(server);
            about.set_destination(client);
            if let Forwarding::FullNat { source, .. } = self.backend.forwarding {
                frame.packet.set_source(alone(source));
            }
            return self.on_the_way(frame.routed());
        }
        match self.backend.forwarding {
            Forwarding::Ipip { .. } => self.on_the_way(frame.routed()),
            _ => self.on_the_way(frame),
        }
    }

    /// An ICMP error, from a router or the backend, about a client's packet, as it comes from there.
    pub fn error_from_backends_side(&self, about: &Frame, says: Says, from: IpAddr, quoted: usize) -> Frame {
        let sent = self.rewritten(about).packet;
        Frame::error_about(&sent, from, says, quoted).between(self.backend_mac(), INSIDE_MAC)
    }

    /// That error, as the client's router must receive it.
    pub fn error_at_client(&self, error: &Frame) -> Frame {
        let mut frame = error.clone();
        if frame.packet.header.source() == self.backend.endpoint.ip() {
            frame.packet.set_source(alone(self.vip.ip()));
        }
        frame.packet.set_destination(alone(self.client.ip()));
        let about = frame.packet.about();
        about.set_source(self.client);
        about.set_destination(self.vip);
        frame.between(UPLINK_MAC, self.router).routed()
    }

    /// As it goes into the tunnel, or onto the wire if there is none; the frame's own addresses aside.
    fn rewritten(&self, frame: &Frame) -> Frame {
        let frame = frame.clone();
        match self.backend.forwarding {
            Forwarding::Dsr => frame,
            Forwarding::Ipip { .. } => frame.routed(),
            Forwarding::Nat | Forwarding::FullNat { .. } => frame
                .with_source(self.as_seen_by_backend())
                .with_destination(self.server())
                .routed(),
        }
    }

    /// With the tunnel's header, and the frame's own addresses.
    fn on_the_way(&self, frame: Frame) -> Frame {
        let frame = frame.between(INSIDE_MAC, self.backend_mac());
        match self.backend.forwarding {
            Forwarding::Ipip { source } => frame.inside(source, self.backend.endpoint.ip()),
            _ => frame,
        }
    }

    pub fn backend_mac(&self) -> [u8; 6] {
        match &self.backend.next_hop {
            Some(hop) => hop.destination_mac,
            None => web_mac(0),
        }
    }

    /// What the client had sent, as it was when it left the balancer.
    pub fn sent_to_backend(&self, frame: &Frame) -> Packet {
        self.rewritten(frame).packet
    }
}

/// The client number so and so: each another port, every 50,000 another address.
pub fn client(number: u32) -> SocketAddr {
    NAT.client(number)
}
