use etherparse::{Ipv4Header, TcpHeader, UdpHeader, ip_number};
use proptest::prelude::*;

use super::*;
use crate::family::{Family, Ipv4, Ipv6};

proptest! {
    /// An incremental change gives what recomputing gives, for every even-length replacement at any even offset.
    #[test]
    fn incremental_equals_recomputed(
        mut data in prop::collection::vec(any::<u8>(), 40..80),
        new in prop::collection::vec(any::<[u8; 2]>(), 1..8),
        at in 0usize..12,
    ) {
        data[0] = 0x45; // no header is all zeros: the one sum for which 0x0000 and 0xffff could be confused
        let before = of_bytes(0, &data);
        let new: Vec<u8> = new.concat();
        let range = 2 + at * 2..2 + at * 2 + new.len();
        let delta = Delta::replacing(&data[range.clone()], &new);
        let old = data[range.clone()].to_vec();
        data[range.clone()].copy_from_slice(&new);
        prop_assert_eq!(delta.apply(before), of_bytes(0, &data));
        prop_assert_eq!(delta.inverse().apply(of_bytes(0, &data)), before);
        prop_assert_eq!(Delta::replacing(&new, &old).apply(of_bytes(0, &data)), before);
    }

    /// Words of 32 bits, two changes one after the other, a word alone: it is all the same.
    #[test]
    fn ways_to_the_same_delta(old: [u32; 4], new: [u32; 4], checksum: u16) {
        let bytes = |words: [u32; 4]| words.map(u32::to_ne_bytes).concat();
        let (old_bytes, new_bytes) = (bytes(old), bytes(new));
        let expected = Delta::replacing(&old_bytes, &new_bytes).apply(checksum);
        let halves = Delta::replacing(&old_bytes[..6], &new_bytes[..6])
            .and(Delta::replacing(&old_bytes[6..], &new_bytes[6..]));
        let words = old_bytes.chunks(2).zip(new_bytes.chunks(2)).fold(Delta::ZERO, |delta, (old, new)| {
            let word = |bytes: &[u8]| u16::from_ne_bytes([bytes[0], bytes[1]]);
            delta.and(Delta::of_word(word(old), word(new)))
        });
        for delta in [Delta::of_words(old, new), halves, words] {
            prop_assert!(same(delta.apply(checksum), expected));
        }
        // From nothing, by a sum.
        let sum = !of_bytes(0, &new_bytes);
        prop_assert!(same(Delta::of_sum(sum).apply(checksum), Delta::replacing(&[0; 16], &new_bytes).apply(checksum)));
    }

    /// Undone, it is as it was, whatever it was.
    #[test]
    fn an_inverse_undoes(old: u16, new: u16, checksum: u16) {
        let delta = Delta::of_word(old, new);
        prop_assert!(same(delta.inverse().apply(delta.apply(checksum)), checksum));
        prop_assert_eq!(Delta::ZERO.apply(checksum), checksum);
    }

    #[test]
    fn folding_is_adding_end_around(words in prop::collection::vec(any::<u16>(), 0..300)) {
        let slow = words.iter().fold(0u32, |sum, word| {
            let sum = sum + u32::from(*word);
            (sum & 0xffff) + (sum >> 16)
        });
        let sum: u32 = words.iter().copied().map(u32::from).sum();
        prop_assert_eq!(u32::from(fold(sum)), slow);
        prop_assert_eq!(u32::from(fold_wide(u64::from(sum))), slow);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        prop_assert_eq!(u32::from(!of_bytes(0, &bytes)), slow);
        let wide: u64 = bytes
            .chunks_exact(4)
            .map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
            .sum();
        let even = bytes.len() / 4 * 4;
        prop_assert!(same(fold_wide(wide), !of_bytes(0, &bytes[..even])));
    }
}

/// One's complement has two zeros.
fn same(one: u16, other: u16) -> bool {
    one == other || one ^ other == 0xffff && (one == 0 || other == 0)
}

#[test]
fn folds_of_the_largest_sums() {
    assert_eq!(fold(u32::MAX), 0xffff);
    assert_eq!(fold(0x1_ffff), 1);
    assert_eq!(fold(0), 0);
    assert_eq!(fold_wide(u64::MAX), 0xffff);
    assert_eq!(fold_wide(0xffff_ffff_0000_0001), 1);
    assert_eq!(fold_wide(0x1_0000_ffff), 1);
}

#[test]
fn an_odd_last_byte_is_padded() {
    assert_eq!(
        of_bytes(0, &[0x12, 0x34, 0x56]),
        of_bytes(0, &[0x12, 0x34, 0x56, 0])
    );
    assert_eq!(of_bytes(0x1_0005, &[]), !6);
}

#[test]
fn rfc_1624_section_4_example() {
    // HC = 0xDD2F, m = 0x5555, m' = 0x3285: HC' must be 0x0000, not 0xFFFF.
    assert_eq!(Delta::of_word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
}

/// Both ends of a packet, address and port.
type Ends<A> = [(A, u16); 2];

/// The delta of other addresses, and the delta of other addresses and ports, as the tables have them.
fn deltas<F: Family<Address: Copy>>(old: Ends<F::Address>, new: Ends<F::Address>) -> (Delta, Delta) {
    let addresses = F::delta(old[0].0, new[0].0).and(F::delta(old[1].0, new[1].0));
    let ports = Delta::of_word(old[0].1.to_be(), new[0].1.to_be())
        .and(Delta::of_word(old[1].1.to_be(), new[1].1.to_be()));
    (addresses, addresses.and(ports))
}

fn ipv4_of(ends: Ends<[u8; 4]>) -> Ends<u32> {
    ends.map(|(address, port)| (u32::from_ne_bytes(address), port))
}

fn ipv6_of(ends: Ends<[u8; 16]>) -> Ends<[u64; 2]> {
    ends.map(|(address, port)| (crate::abi::address(&address), port))
}

/// The IPv4 header's checksum, and those of a TCP segment and a UDP datagram, as etherparse computes them: as words in
/// memory order.
fn over_ipv4([from, to]: Ends<[u8; 4]>, time_to_live: u8, data: &[u8]) -> [u16; 3] {
    let header = Ipv4Header::new(data.len() as u16 + 20, time_to_live, ip_number::TCP, from.0, to.0).unwrap();
    let tcp = TcpHeader::new(from.1, to.1, 1, 2);
    let udp = UdpHeader::without_ipv4_checksum(from.1, to.1, data.len()).unwrap();
    [
        header.calc_header_checksum(),
        tcp.calc_checksum_ipv4_raw(from.0, to.0, data).unwrap(),
        udp.calc_checksum_ipv4_raw(from.0, to.0, data).unwrap(),
    ]
    .map(u16::to_be)
}

/// The same over IPv6, whose header has none.
fn over_ipv6([from, to]: Ends<[u8; 16]>, data: &[u8]) -> [u16; 2] {
    let tcp = TcpHeader::new(from.1, to.1, 1, 2);
    let udp = UdpHeader::without_ipv4_checksum(from.1, to.1, data.len()).unwrap();
    [
        tcp.calc_checksum_ipv6_raw(from.0, to.0, data).unwrap(),
        udp.calc_checksum_ipv6_raw(from.0, to.0, data).unwrap(),
    ]
    .map(u16::to_be)
}

proptest! {
    /// A rewritten packet has the checksums that it would have had if it had been made so, and again on its way back.
    #[test]
    fn rewritten_packets_have_the_checksums_of_new_ones(
        old in any::<Ends<[u8; 4]>>(),
        new in any::<Ends<[u8; 4]>>(),
        time_to_live in 1u8..,
        data in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let before = over_ipv4(old, time_to_live, &data);
        let after = over_ipv4(new, time_to_live - 1, &data);
        let (addresses, all) = deltas::<Ipv4>(ipv4_of(old), ipv4_of(new));
        let hop = Delta::of_word(
            u16::from_ne_bytes([time_to_live, 6]),
            u16::from_ne_bytes([time_to_live - 1, 6]),
        );
        prop_assert_eq!(addresses.and(hop).apply(before[0]), after[0]);
        prop_assert_eq!(all.apply(before[1]), after[1]);
        prop_assert_eq!(all.apply_to_udp(before[2]), after[2]);
        prop_assert_eq!(addresses.and(hop).inverse().apply(after[0]), before[0]);
        prop_assert_eq!(all.inverse().apply(after[1]), before[1]);
        prop_assert_eq!(all.inverse().apply_to_udp(after[2]), before[2]);
    }

    #[test]
    fn rewritten_ipv6_packets_likewise(
        old in any::<Ends<[u8; 16]>>(),
        new in any::<Ends<[u8; 16]>>(),
        data in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let (before, after) = (over_ipv6(old, &data), over_ipv6(new, &data));
        let (_, all) = deltas::<Ipv6>(ipv6_of(old), ipv6_of(new));
        prop_assert_eq!(all.apply(before[0]), after[0]);
        prop_assert_eq!(all.apply_to_udp(before[1]), after[1]);
        prop_assert_eq!(all.inverse().apply(after[0]), before[0]);
        prop_assert_eq!(all.inverse().apply_to_udp(after[1]), before[1]);
    }
}

/// Every checksum that a datagram can have, the two zeros among them.
#[test]
fn udp_over_every_checksum() {
    let old = [([198, 18, 0, 2], 40_000), ([203, 0, 113, 10], 53)];
    let new = [([198, 18, 0, 2], 40_000), ([198, 19, 7, 1], 5353)];
    let (_, delta) = deltas::<Ipv4>(ipv4_of(old), ipv4_of(new));
    let mut zeros = [0, 0];
    for word in 0..=u16::MAX {
        let data = word.to_be_bytes();
        let [_, _, before] = over_ipv4(old, 64, &data);
        let [_, _, after] = over_ipv4(new, 64, &data);
        assert_eq!(delta.apply_to_udp(before), after, "{word:x}");
        assert_eq!(delta.inverse().apply_to_udp(after), before, "{word:x}");
        zeros[0] += u32::from(before == 0xffff);
        zeros[1] += u32::from(after == 0xffff);
    }
    assert!(zeros.iter().all(|count| *count > 0), "{zeros:?}");
}

#[test]
fn a_datagram_without_a_checksum_gets_none_and_one_with_a_checksum_keeps_one() {
    for delta in (0..=u16::MAX).map(Delta::of_sum) {
        assert_eq!(delta.apply_to_udp(0), 0);
        for checksum in [1, 0x1234, !delta.0, delta.0.max(1), 0xfffe, 0xffff] {
            if checksum != 0 {
                assert_ne!(delta.apply_to_udp(checksum), 0, "{delta:?} {checksum:x}");
            }
        }
    }
}
