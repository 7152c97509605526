//! The RST that answers a segment, next to the one that etherparse makes.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{IpHeaders, PacketBuilder};
use proptest::prelude::*;

use super::frames::{CLIENT, CLIENT6, VIP, VIP6};
use crate::abi::address;
use crate::tcp_state::Flags;
use crate::wire::reset::{Answered, over_ipv4, over_ipv6};

/// A segment, in the machine's order.
#[derive(Debug, Clone, Copy)]
struct Segment {
    ports: (u16, u16),
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    payload: u32,
}

impl Segment {
    fn answered(&self) -> Answered {
        Answered {
            source_port: self.ports.0.to_be(),
            destination_port: self.ports.1.to_be(),
            flags: Flags(self.flags),
            sequence: self.sequence.to_be(),
            acknowledgment: self.acknowledgment.to_be(),
            payload: self.payload,
        }
    }

    /// RFC 9293 section 3.10.7.1: sequence number, and the number that is acknowledged, if any.
    fn answer(&self) -> (u32, Option<u32>) {
        let has = |flag: u8| u32::from(self.flags & flag != 0);
        if has(Flags::ACK) == 1 {
            return (self.acknowledgment, None);
        }
        let length = self
            .payload
            .wrapping_add(has(Flags::SYN))
            .wrapping_add(has(Flags::FIN));
        (0, Some(self.sequence.wrapping_add(length)))
    }

    /// The RST to it, made by etherparse.
    fn expected(&self, ip: IpHeaders) -> Vec<u8> {
        let (sequence, acknowledged) = self.answer();
        let mut builder = PacketBuilder::ip(ip)
            .tcp(self.ports.1, self.ports.0, sequence, 0)
            .rst();
        if let Some(number) = acknowledged {
            builder = builder.ack(number);
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).unwrap();
        bytes
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let [source, destination] = [source, destination].map(|ip| u32::from_ne_bytes(ip.octets()));
        bytes(&over_ipv4(source, destination, &self.answered()))
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let [source, destination] = [source, destination].map(|ip| address(&ip.octets()));
        bytes(&over_ipv6(source, destination, &self.answered()))
    }
}

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn ipv4_headers(source: Ipv4Addr, destination: Ipv4Addr) -> IpHeaders {
    let mut header = etherparse::Ipv4Header::new(
        20,
        64,
        etherparse::ip_number::TCP,
        source.octets(),
        destination.octets(),
    )
    .unwrap();
    header.dont_fragment = true;
    IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
}

fn ipv6_headers(source: Ipv6Addr, destination: Ipv6Addr) -> IpHeaders {
    let header = etherparse::Ipv6Header {
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
        ..etherparse::Ipv6Header::default()
    };
    IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
}

proptest! {
    #[test]
    fn is_what_etherparse_makes(
        [source, destination] in any::<[[u8; 4]; 2]>(),
        [source6, destination6] in any::<[[u8; 16]; 2]>(),
        ports: (u16, u16),
        flags: u8,
        [sequence, acknowledgment] in any::<[u32; 2]>(),
        payload in 0u32..65_536,
    ) {
        let segment = Segment { ports, flags, sequence, acknowledgment, payload };
        let (source, destination) = (source.into(), destination.into());
        let expected = segment.expected(ipv4_headers(destination, source));
        prop_assert_eq!(segment.ipv4(source, destination), expected);
        let (source, destination) = (source6.into(), destination6.into());
        let expected = segment.expected(ipv6_headers(destination, source));
        prop_assert_eq!(segment.ipv6(source, destination), expected);
    }
}

const SYN: Segment = Segment {
    ports: (40_000, 443),
    flags: Flags::SYN,
    sequence: 0xffff_ffff,
    acknowledgment: 7,
    payload: 0,
};

#[test]
fn a_syn_is_refused_with_its_sequence_number_acknowledged() {
    for (answer, tcp) in [(SYN.ipv4(CLIENT, VIP), 20), (SYN.ipv6(CLIENT6, VIP6), 40)] {
        assert_eq!(answer.len(), tcp + 20);
        assert_eq!(answer[tcp..tcp + 4], [0x01, 0xbb, 0x9c, 0x40]);
        assert_eq!(answer[tcp + 4..tcp + 12], [0; 8], "the number wraps");
        assert_eq!(answer[tcp + 12..tcp + 14], [0x50, Flags::RST | Flags::ACK]);
    }
    assert_eq!(SYN.ipv4(CLIENT, VIP)[12..20], [203, 0, 113, 10, 198, 18, 0, 2]);
    let answer = SYN.ipv6(CLIENT6, VIP6);
    assert_eq!(answer[8..40], [VIP6.octets(), CLIENT6.octets()].concat());
}

#[test]
fn a_segment_is_reset_at_the_number_that_it_acknowledges() {
    let segment = Segment {
        flags: Flags::ACK | Flags::FIN,
        payload: 100,
        ..SYN
    };
    let answer = segment.ipv4(CLIENT, VIP);
    assert_eq!(answer[24..32], [0, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(answer[32..34], [0x50, Flags::RST]);
}
