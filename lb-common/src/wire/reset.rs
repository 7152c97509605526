//! The segment that refuses or ends a connection in a backend's stead (RFC 9293 section 3.10.7.1).

use super::ipv4::{self, Ipv4, PROTOCOL_TCP};
use super::tcp::{self, Tcp};
use crate::checksum;
use crate::tcp_state::Flags;

/// Length of IPv4 and TCP header together, in bytes.
pub const LENGTH: usize = ipv4::LENGTH + tcp::LENGTH;

const TIME_TO_LIVE: u8 = 64;

/// The headers, without options, of the RST that answers a segment; sequence and acknowledgment number of the segment as
/// in the packet. As 16-bit words in memory order, checksums filled in.
#[inline(always)]
pub fn answer(ipv4: &Ipv4, tcp: &Tcp, sequence: u32, acknowledgment: u32) -> [u16; LENGTH / 2] {
    let (sequence, acknowledgment, flags) = if tcp.flags.0 & Flags::ACK != 0 {
        (acknowledgment, 0, Flags::RST)
    } else {
        let payload = ipv4.total_length - ipv4.header_length - tcp.header_length;
        // SYN and FIN take a sequence number each.
        let control = u32::from(tcp.flags.0 & Flags::SYN != 0) + u32::from(tcp.flags.finishes());
        let next = u32::from_be(sequence)
            .wrapping_add(payload as u32)
            .wrapping_add(control);
        (0, next.to_be(), Flags::RST | Flags::ACK)
    };
    let mut words = [0; LENGTH / 2];
    let [network, transport] = [0, ipv4::LENGTH / 2];
    words[network] = 0x4500u16.to_be();
    words[network + 1] = (LENGTH as u16).to_be();
    words[network + 3] = 0x4000u16.to_be(); // don't fragment
    words[network + 4] = (u16::from(TIME_TO_LIVE) << 8 | u16::from(PROTOCOL_TCP)).to_be();
    put(&mut words, network + 6, ipv4.destination);
    put(&mut words, network + 8, ipv4.source);
    words[network + 5] = !sum(0, &words, network, transport);
    words[transport] = tcp.destination_port;
    words[transport + 1] = tcp.source_port;
    put(&mut words, transport + 2, sequence);
    put(&mut words, transport + 4, acknowledgment);
    words[transport + 6] = (((tcp::LENGTH as u16 / 4) << 12) | u16::from(flags)).to_be();
    let pseudo = u32::from(u16::from(PROTOCOL_TCP).to_be()) + u32::from((tcp::LENGTH as u16).to_be());
    let addresses = u32::from(sum(pseudo, &words, network + 6, transport));
    words[transport + 8] = !sum(addresses, &words, transport, LENGTH / 2);
    words
}

#[inline(always)]
fn put(words: &mut [u16; LENGTH / 2], at: usize, value: u32) {
    words[at] = value as u16;
    words[at + 1] = (value >> 16) as u16;
}

#[inline(always)]
fn sum(initial: u32, words: &[u16; LENGTH / 2], from: usize, to: usize) -> u16 {
    let mut sum = initial;
    let mut at = from;
    while at < to {
        sum += u32::from(words[at]);
        at += 1;
    }
    checksum::fold(sum)
}
