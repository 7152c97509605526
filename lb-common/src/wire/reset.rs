//! The segment that refuses or ends a connection in a backend's stead (RFC 9293 section 3.10.7.1).

use super::network::TCP;
use super::transport::TCP_LENGTH;
use super::{ipv4, ipv6};
use crate::checksum;
use crate::tcp_state::Flags;

/// Length of IPv4 and TCP header together, in bytes.
pub const IPV4_LENGTH: usize = ipv4::LENGTH + TCP_LENGTH;
/// Length of IPv6 and TCP header together, in bytes.
pub const IPV6_LENGTH: usize = ipv6::LENGTH + TCP_LENGTH;

const TIME_TO_LIVE: u8 = 64;
const WORDS: usize = TCP_LENGTH / 2;

/// What a RST takes from the segment that it answers. Ports and numbers are as in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The segment's source port.
    pub source_port: u16,
    /// Its destination port.
    pub destination_port: u16,
    /// Its flags.
    pub flags: Flags,
    /// Its sequence number.
    pub sequence: u32,
    /// Its acknowledgment number.
    pub acknowledgment: u32,
    /// Bytes of its payload.
    pub payload: u32,
}

/// The headers, without options, of the RST that answers a segment from `source` to `destination`. As 16-bit words in
/// memory order, checksums filled in.
#[inline(always)]
pub fn over_ipv4(source: u32, destination: u32, answered: &Answered) -> [u16; IPV4_LENGTH / 2] {
    let mut words = [0; IPV4_LENGTH / 2];
    words[0] = 0x4500u16.to_be();
    words[1] = (IPV4_LENGTH as u16).to_be();
    words[3] = 0x4000u16.to_be(); // don't fragment
    words[4] = (u16::from(TIME_TO_LIVE) << 8 | u16::from(TCP)).to_be();
    put(&mut words, 6, destination);
    put(&mut words, 8, source);
    words[5] = !sum(0, &words, 0, ipv4::LENGTH / 2);
    let addresses = sum(0, &words, 6, ipv4::LENGTH / 2);
    put_segment(&mut words, ipv4::LENGTH / 2, u32::from(addresses), answered);
    words
}

/// The same over IPv6.
#[inline(always)]
pub fn over_ipv6(source: [u64; 2], destination: [u64; 2], answered: &Answered) -> [u16; IPV6_LENGTH / 2] {
    let mut words = [0; IPV6_LENGTH / 2];
    words[0] = 0x6000u16.to_be();
    words[2] = (TCP_LENGTH as u16).to_be();
    words[3] = (u16::from(TCP) << 8 | u16::from(TIME_TO_LIVE)).to_be();
    for (at, address) in [(4, destination), (12, source)] {
        put(&mut words, at, address[0] as u32);
        put(&mut words, at + 2, (address[0] >> 32) as u32);
        put(&mut words, at + 4, address[1] as u32);
        put(&mut words, at + 6, (address[1] >> 32) as u32);
    }
    let addresses = sum(0, &words, 4, ipv6::LENGTH / 2);
    put_segment(&mut words, ipv6::LENGTH / 2, u32::from(addresses), answered);
    words
}

/// The TCP header, its checksum included; `addresses` is the sum of the pseudo-header's.
#[inline(always)]
fn put_segment<const N: usize>(words: &mut [u16; N], at: usize, addresses: u32, answered: &Answered) {
    let (sequence, acknowledgment, flags) = if answered.flags.0 & Flags::ACK != 0 {
        (answered.acknowledgment, 0, Flags::RST)
    } else {
        // SYN and FIN take a sequence number each.
        let control = u32::from(answered.flags.0 & Flags::SYN != 0) + u32::from(answered.flags.finishes());
        let next = u32::from_be(answered.sequence)
            .wrapping_add(answered.payload)
            .wrapping_add(control);
        (0, next.to_be(), Flags::RST | Flags::ACK)
    };
    words[at] = answered.destination_port;
    words[at + 1] = answered.source_port;
    put(words, at + 2, sequence);
    put(words, at + 4, acknowledgment);
    words[at + 6] = (((TCP_LENGTH as u16 / 4) << 12) | u16::from(flags)).to_be();
    let pseudo = addresses + u32::from(u16::from(TCP).to_be()) + u32::from((TCP_LENGTH as u16).to_be());
    words[at + 8] = !sum(pseudo, words, at, at + WORDS);
}

#[inline(always)]
fn put<const N: usize>(words: &mut [u16; N], at: usize, value: u32) {
    words[at] = value as u16;
    words[at + 1] = (value >> 16) as u16;
}

#[inline(always)]
fn sum<const N: usize>(initial: u32, words: &[u16; N], from: usize, to: usize) -> u16 {
    let mut sum = initial;
    let mut at = from;
    while at < to {
        sum += u32::from(words[at]);
        at += 1;
    }
    checksum::fold(sum)
}
