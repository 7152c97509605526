//! Frames of every kind that there is, from a seed: made by etherparse, an encoder that is not ours, then, every second one,
//! damaged. The packet suite sends them through the loaded program, `lb-common` tests its parser by them, and the fuzz
//! target `parser` starts from them; the latter two include this file, so that it depends on etherparse and fastrand only.

#![allow(
    clippy::expect_used,
    reason = "lengths that a header cannot hold would be a mistake here, and are to be noticed"
)]

mod damage;
mod header;
mod make;
mod payload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;

/// No frame is shorter: the kernel's program runner takes none that is.
pub const SHORTEST: usize = 14;
/// Nor longer: an Ethernet header and 1,500 bytes.
pub const LONGEST: usize = 1514;

/// An endless sequence of frames, the same for the same seed and endpoints.
#[derive(Debug, Clone)]
pub struct RandomFrames {
    random: Rng,
    endpoints: Vec<SocketAddr>,
}

/// A frame.
#[derive(Debug, Clone)]
pub struct RandomFrame {
    /// Its bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// What it was made as.
    pub made: Made,
    /// Whether it was damaged after that, and so may be anything.
    pub damaged: bool,
}

/// What a frame was made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Destination and source MAC address.
    pub addresses: [[u8; 6]; 2],
    /// VLAN tags: 0 to 2.
    pub tags: usize,
    /// What it carries; `None`: neither IPv4 nor IPv6.
    pub packet: Option<Packet>,
}

/// An IPv4 or IPv6 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub time_to_live: u8,
    /// Which part of a datagram it is.
    pub part: Part,
    /// IPv4's identification, or that of an IPv6 fragment header; 0: none.
    pub identification: u32,
    /// The extension headers, of IPv6.
    pub extensions: Vec<Extension>,
    /// Bytes of the IP headers, options or extension headers included.
    pub headers: usize,
    /// Bytes of the whole packet.
    pub length: usize,
    /// What it carries.
    pub payload: Payload,
}

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first of several.
    First,
    /// A later one.
    Later,
}

/// An IPv6 extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options.
    HopByHop,
    /// Destination options.
    DestinationOptions,
    /// A routing header with a way behind it, or still to go.
    Routing {
        /// Stops still to go.
        segments_left: u8,
    },
    /// A fragment header: of a part, or (RFC 6946) of a whole.
    Fragment,
    /// An authentication header.
    Authentication,
}

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment.
    Tcp {
        /// From.
        source_port: u16,
        /// To.
        destination_port: u16,
        /// The flags' byte.
        flags: u8,
        /// Bytes of the header with its options.
        header: usize,
    },
    /// A UDP datagram.
    Udp {
        /// From.
        source_port: u16,
        /// To.
        destination_port: u16,
    },
    /// An ICMP echo request, of the packet's family.
    EchoRequest,
    /// An ICMP error, of the packet's family.
    Error {
        /// What it is about.
        about: Box<Packet>,
        /// How many bytes of that it quotes.
        quoted: usize,
    },
    /// Another ICMP message, of the packet's family.
    OtherIcmp,
    /// The middle or the end of a datagram.
    Rest {
        /// The protocol.
        protocol: u8,
    },
    /// A protocol that is not balanced, or the other family's ICMP.
    Other {
        /// The protocol.
        protocol: u8,
    },
}

impl RandomFrames {
    /// `endpoints` are those of services, backends and clients that packets shall mostly be between; there may be none.
    pub fn new(seed: u64, endpoints: &[SocketAddr]) -> Self {
        Self {
            random: Rng::with_seed(seed),
            endpoints: endpoints.to_vec(),
        }
    }

    /// The next frame, not damaged.
    pub fn next_whole(&mut self) -> RandomFrame {
        let (made, bytes) = make::frame(self);
        RandomFrame {
            bytes,
            made,
            damaged: false,
        }
    }

    /// An endpoint of a family.
    fn endpoint(&mut self, ipv6: bool) -> SocketAddr {
        let mine: Vec<_> = self
            .endpoints
            .iter()
            .filter(|end| end.is_ipv6() == ipv6)
            .copied()
            .collect();
        let unknown = self.unknown(ipv6);
        match self.random.choice(&mine) {
            Some(known) if self.random.u8(..) < 200 => match self.random.u8(..) {
                0..200 => *known,
                200..220 => SocketAddr::new(known.ip(), unknown.port()),
                _ => SocketAddr::new(unknown.ip(), known.port()),
            },
            _ => unknown,
        }
    }

    /// An endpoint that is nobody's: from the ranges for benchmarks (RFC 2544) and documentation (RFC 3849).
    fn unknown(&mut self, ipv6: bool) -> SocketAddr {
        let ip = if ipv6 {
            Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(self.random.u64(..))).into()
        } else {
            Ipv4Addr::from(0xc612_0000 | self.random.u32(..0x2_0000)).into()
        };
        SocketAddr::new(ip, self.random.u16(..))
    }
}

impl Iterator for RandomFrames {
    type Item = RandomFrame;

    fn next(&mut self) -> Option<RandomFrame> {
        let mut frame = self.next_whole();
        if self.random.bool() {
            damage::damage(&mut self.random, &mut frame.bytes);
            frame.damaged = true;
        }
        Some(frame)
    }
}
