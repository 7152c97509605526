use proptest::prelude::*;

use super::*;
use crate::outcome::Outcome;
use crate::tcp_state::Flags;

/// A SYN from 198.18.0.2:40000 to 203.0.113.10:443, without options, padded to Ethernet's 60 bytes.
const SYN: [u8; 60] = [
    0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01, 0x08, 0x00, // Ethernet
    0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 2, 203, 0, 113, 10, // IPv4
    0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, // TCP
    0, 0, 0, 0, 0, 0, // padding
];

fn parse(frame: &[u8]) -> Result<(ethernet::Ethernet, ipv4::Ipv4, tcp::Tcp), Outcome> {
    let ethernet = ethernet::parse_ipv4_frame(frame)?;
    let ipv4 = ipv4::parse_tcp_packet(frame)?;
    let tcp = tcp::parse(frame, &ipv4)?;
    Ok((ethernet, ipv4, tcp))
}

fn changed(at: usize, to: u8) -> Result<(), Outcome> {
    let mut frame = SYN;
    frame[at] = to;
    parse(&frame).map(drop)
}

#[test]
fn reads_every_field() {
    let (ethernet, ipv4, tcp) = parse(&SYN).unwrap();
    assert_eq!(ethernet.source.to_bytes(), [2, 0, 0, 0, 0, 1]);
    assert_eq!(ethernet.destination.to_bytes(), [2, 0, 0, 0, 0, 2]);
    assert_eq!(ethernet.to_words().map(u32::to_le_bytes).concat(), &SYN[..12]);
    assert_eq!(ethernet::Mac::from_bytes([2, 0, 0, 0, 0, 1]), ethernet.source);
    assert_eq!(ipv4.source.to_ne_bytes(), [198, 18, 0, 2]);
    assert_eq!(ipv4.destination.to_ne_bytes(), [203, 0, 113, 10]);
    assert_eq!(
        (ipv4.header_length, ipv4.total_length, ipv4.time_to_live),
        (20, 40, 64)
    );
    assert!(!ipv4.first_fragment);
    assert_eq!(
        (u16::from_be(tcp.source_port), u16::from_be(tcp.destination_port)),
        (40000, 443)
    );
    assert_eq!(tcp.flags, Flags(Flags::SYN));
    assert_eq!(tcp.header_length, 20);
}

#[test]
fn names_what_is_wrong() {
    let cases = [
        ("ARP", 13, 0x06, Outcome::NotIpv4),
        ("broadcast", 0, 0xff, Outcome::Multicast),
        ("version 6", 14, 0x65, Outcome::MalformedIpv4),
        ("header length 16", 14, 0x44, Outcome::MalformedIpv4),
        ("total length beyond the frame", 17, 47, Outcome::MalformedIpv4),
        ("total length below the header's", 17, 19, Outcome::MalformedIpv4),
        ("UDP", 23, 17, Outcome::NotTcp),
        ("second fragment", 21, 1, Outcome::LaterFragment),
        ("data offset 16", 46, 0x40, Outcome::MalformedTcp),
        ("data offset beyond the packet", 46, 0x60, Outcome::MalformedTcp),
    ];
    for (purpose, at, to, outcome) in cases {
        assert_eq!(changed(at, to), Err(outcome), "{purpose}");
    }
    assert_eq!(changed(17, 46), Ok(()), "a longer payload");
}

#[test]
fn a_first_fragment_is_told() {
    let mut frame = SYN;
    frame[20] = 0x20;
    assert!(parse(&frame).unwrap().1.first_fragment);
}

#[test]
fn every_truncation_is_named() {
    for length in 0..54 {
        let outcome = parse(&SYN[..length]).unwrap_err();
        let expected = if length < 14 {
            Outcome::NotIpv4
        } else {
            Outcome::MalformedIpv4
        };
        assert_eq!(outcome, expected, "{length}");
    }
    assert!(parse(&SYN[..54]).is_ok());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_lie(
        mut frame in prop::collection::vec(any::<u8>(), 0..128),
        like_ipv4: bool,
    ) {
        if like_ipv4 && frame.len() > 24 {
            frame[0] &= 0xfe;
            frame[12..14].copy_from_slice(&[8, 0]);
            frame[14] = 0x45 + (frame[14] & 3);
            frame[16] = 0;
            frame[17] &= 0x7f;
            frame[20..22].copy_from_slice(&[0, 0]);
            frame[23] = 6;
        }
        if let Ok((_, ipv4, tcp)) = parse(&frame) {
            prop_assert!(ipv4.header_length >= 20);
            prop_assert!(ipv4.header_length + tcp.header_length <= ipv4.total_length);
            prop_assert!(14 + ipv4.total_length <= frame.len());
        }
    }
}

/// The RST to a frame, as bytes, with its checksums verified by recomputing them whole.
fn rst_for(frame: &[u8]) -> Vec<u8> {
    let (_, ipv4, tcp) = parse(frame).unwrap();
    let header = frame.window::<20>(ipv4.transport_offset()).unwrap();
    let answer: Vec<u8> = reset::answer(&ipv4, &tcp, header.field::<u32, 4>(), header.field::<u32, 8>())
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    assert_eq!(crate::checksum::of_bytes(0, &answer[..20]), 0);
    let pseudo = [&answer[12..20], &[0, 6, 0, 20], &answer[20..]].concat();
    assert_eq!(crate::checksum::of_bytes(0, &pseudo), 0);
    answer
}

#[test]
fn a_syn_is_refused_with_its_sequence_number_acknowledged() {
    let answer = rst_for(&SYN);
    assert_eq!(answer[12..20], [203, 0, 113, 10, 198, 18, 0, 2]);
    assert_eq!(answer[20..24], [0x01, 0xbb, 0x9c, 0x40]);
    assert_eq!(answer[24..32], [0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(answer[32..34], [0x50, Flags::RST | Flags::ACK]);
}

#[test]
fn a_segment_is_reset_at_the_number_that_it_acknowledges() {
    let mut frame = SYN;
    frame[47] = Flags::ACK;
    frame[42..46].copy_from_slice(&[9, 8, 7, 6]);
    let answer = rst_for(&frame);
    assert_eq!(answer[24..32], [9, 8, 7, 6, 0, 0, 0, 0]);
    assert_eq!(answer[32..34], [0x50, Flags::RST]);
}
