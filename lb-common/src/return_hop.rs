//! The ways back to clients: each distinct (neighbour, own address, interface) that clients' packets came from has a
//! number of 11 bits, which a connection remembers. There are few of them: a router or two, rarely more.

use core::mem::offset_of;

use network_types::eth::EthHdr;

use crate::hash::{Seed, scale_high};
use crate::wire::Frame;
use crate::wire::ethernet::{self, Ethernet, Mac};
use crate::word::Word;

/// Numbers of return hops: 1 to 2,047; 0 means unknown.
pub const RETURN_HOPS: u32 = 1 << crate::connection_table::entry::HOP_BITS;
/// How many places are tried before the table counts as full for a hop.
const PROBES: u32 = 8;
const SEED: Seed = Seed::new(0x7265_7475_726e);
const BUSY: u64 = 1;

/// Where a client's packet came from, and so where its answers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The neighbour's MAC address in the low 48 bits; above it the low half of the interface index.
    neighbour: u64,
    /// The same with the frame's destination, our own MAC address, and the high half of the interface index.
    own: u64,
}

/// A place in the table of hops. It is written once and never changes.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub struct HopSlot<W> {
    neighbour: W,
    own: W,
}

impl Hop {
    /// None. Not an `Option`: what that leaves undefined, LLVM copies all the same, and the kernel's verifier refuses it.
    pub const UNKNOWN: Self = Self { neighbour: 0, own: 0 };

    /// Whether it is one.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.neighbour > BUSY
    }

    /// The hop that sent a frame with these addresses through this interface.
    #[inline(always)]
    pub fn new(frame: Ethernet, interface_index: u32) -> Self {
        Self {
            neighbour: frame.source.0 | (u64::from(interface_index) & 0xffff) << 48,
            own: frame.destination.0 | (u64::from(interface_index) >> 16) << 48,
        }
    }

    /// Whether it sent a frame through this interface: whether [`Self::new`] would give the same, without putting that together.
    #[inline(always)]
    pub fn sent<F: Frame + ?Sized>(&self, frame: &F, interface_index: u32) -> bool {
        // Six bytes of each and two that are no part of it, which come last: the low ones are shifted to where these are lost.
        const DESTINATION: usize = offset_of!(EthHdr, dst_addr);
        const SOURCE: usize = offset_of!(EthHdr, src_addr);
        let Some(header) = frame.window::<{ ethernet::LENGTH }>(0) else {
            return false;
        };
        let own = header.field::<u64, DESTINATION>() ^ self.own;
        let neighbour = header.field::<u64, SOURCE>() ^ self.neighbour;
        (own | neighbour) << 16 == 0 && self.interface_index() == interface_index
    }

    /// The addresses of a frame on its way back.
    #[inline(always)]
    pub fn answer(&self) -> Ethernet {
        const MAC: u64 = 0xffff_ffff_ffff;
        Ethernet {
            destination: Mac(self.neighbour & MAC),
            source: Mac(self.own & MAC),
        }
    }

    /// As two words.
    #[inline(always)]
    pub fn words(&self) -> (u64, u64) {
        (self.neighbour, self.own)
    }

    /// From them.
    #[inline(always)]
    pub fn of_words(neighbour: u64, own: u64) -> Self {
        Self { neighbour, own }
    }

    /// The interface.
    #[inline(always)]
    pub fn interface_index(&self) -> u32 {
        (self.neighbour >> 48) as u32 | (self.own >> 48 << 16) as u32
    }

    /// The place number `attempt` where this hop may be, 1 to 2,047.
    #[inline(always)]
    fn place(&self, attempt: u32) -> u32 {
        let hash = SEED.hash(&[self.neighbour, self.own]);
        1 + (scale_high(hash, RETURN_HOPS - 1) + attempt) % (RETURN_HOPS - 1)
    }
}

impl<W: Word> HopSlot<W> {
    /// The hop that lives here, if one does.
    #[inline(always)]
    pub fn read(&self) -> Hop {
        Hop {
            neighbour: self.neighbour.load(),
            own: self.own.load(),
        }
    }

    #[inline(always)]
    fn claim(&self, hop: &Hop) -> bool {
        if !self.neighbour.compare_exchange(0, BUSY) {
            return false;
        }
        self.own.store(hop.own);
        self.neighbour.publish(hop.neighbour);
        true
    }
}

/// The number of a hop, given one if it has none; 0: all its places are taken, or another CPU is writing.
#[inline(always)]
pub fn intern<'a, W: Word + 'a>(hop: &Hop, slot: impl Fn(u32) -> Option<&'a HopSlot<W>>) -> u16 {
    for attempt in 0..PROBES {
        let place = hop.place(attempt);
        let Some(slot) = slot(place) else { return 0 };
        let found = slot.read();
        if found == *hop || !found.is_known() && slot.claim(hop) {
            return place as u16;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn table() -> Vec<HopSlot<AtomicU64>> {
        (0..RETURN_HOPS).map(|_| HopSlot::default()).collect()
    }

    fn hop(neighbour: [u8; 6], own: [u8; 6], interface_index: u32) -> Hop {
        let frame = Ethernet {
            destination: Mac::from_bytes(own),
            source: Mac::from_bytes(neighbour),
        };
        Hop::new(frame, interface_index)
    }

    #[test]
    fn an_answer_goes_back_where_the_question_came_from() {
        let hop = hop([2, 0, 0, 0, 0, 9], [254; 6], 0x1234_5678);
        assert_eq!(hop.answer().destination.to_bytes(), [2, 0, 0, 0, 0, 9]);
        assert_eq!(hop.answer().source.to_bytes(), [254; 6]);
        assert_eq!(hop.interface_index(), 0x1234_5678);
    }

    /// Whatever differs, in any bit of the addresses and of the interface, is seen; what follows them does not matter.
    #[test]
    fn whoever_sent_a_frame_is_known_by_its_first_bytes() {
        let mut frame = *b"\xfe\xfd\xfc\xfb\xfa\xf9\x02\x03\x04\x05\x06\x07\x08\x00\x45\x00";
        let interface_index = 0x8765_4321;
        let (ethernet, _) = ethernet::parse(&frame[..]).unwrap();
        let hop = Hop::new(ethernet, interface_index);
        assert!(hop.sent(&frame[..], interface_index));
        for bit in 0..32 {
            assert!(!hop.sent(&frame[..], interface_index ^ 1 << bit));
        }
        for byte in 0..frame.len() {
            for bit in 0..8 {
                frame[byte] ^= 1 << bit;
                assert_eq!(hop.sent(&frame[..], interface_index), byte >= 12);
                frame[byte] ^= 1 << bit;
            }
        }
        assert!(!hop.sent(&frame[..13], interface_index));
    }

    #[test]
    fn the_same_hop_gets_the_same_number_and_others_get_others() {
        let table = table();
        let mut seen = std::collections::HashMap::new();
        for i in 0..300u32 {
            let [a, b, ..] = i.to_le_bytes();
            let hop = hop([2, 0, 0, 0, a, b], [4, 0, 0, 0, 0, 1], 1 + i % 7);
            let number = intern(&hop, |n| table.get(n as usize));
            assert_ne!(number, 0);
            assert_eq!(table[number as usize].read(), hop);
            assert_eq!(seen.insert(number, hop), None);
            assert_eq!(intern(&hop, |n| table.get(n as usize)), number);
        }
    }

    /// Several CPUs see the same new hops at once: whatever number they get is that hop's, and hardly any hop has two.
    #[test]
    fn a_race_gives_no_wrong_number() {
        let table = table();
        let hops: Vec<Hop> = (0..200u32)
            .map(|i| hop([2, 0, 0, 0, 0, i as u8], [4; 6], 1 + i % 3))
            .collect();
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (table, hops) = (&table, &hops);
                scope.spawn(move || {
                    for i in 0..hops.len() * 50 {
                        let hop = &hops[(i + start) % hops.len()];
                        match intern(hop, |n| table.get(n as usize)) {
                            0 => {}
                            number => assert_eq!(table[number as usize].read(), *hop),
                        }
                    }
                });
            }
        });
        let known = table.iter().filter(|slot| slot.read().is_known()).count();
        assert!((200..220).contains(&known), "{known}");
        // Once it is quiet, everybody has a number, and it is always the same.
        for hop in &hops {
            let number = intern(hop, |n| table.get(n as usize));
            assert_ne!(number, 0);
            assert_eq!(intern(hop, |n| table.get(n as usize)), number);
        }
    }

    #[test]
    fn a_place_that_is_being_written_is_nobodys() {
        let table = table();
        let hop = hop([2, 0, 0, 0, 0, 9], [254; 6], 3);
        let place = hop.place(0) as usize;
        table[place]
            .neighbour
            .store(BUSY, std::sync::atomic::Ordering::Relaxed);
        assert!(!table[place].read().is_known());
        let number = intern(&hop, |n| table.get(n as usize));
        assert!(number != 0 && usize::from(number) != place);
        assert_eq!(table[usize::from(number)].read(), hop);
    }

    #[test]
    fn every_part_of_a_hop_counts() {
        let one = hop([2, 0, 0, 0, 0, 9], [4; 6], 0x1_0003);
        for other in [
            hop([2, 0, 0, 0, 0, 8], [4; 6], 0x1_0003),
            hop([2, 0, 0, 0, 0, 9], [4, 4, 4, 4, 4, 5], 0x1_0003),
            hop([2, 0, 0, 0, 0, 9], [4; 6], 0x1_0002),
            hop([2, 0, 0, 0, 0, 9], [4; 6], 0x2_0003),
        ] {
            assert_ne!(one, other);
        }
        assert!(one.is_known() && !Hop::UNKNOWN.is_known());
    }

    #[test]
    fn no_place_is_number_0_or_out_of_range() {
        for i in 0..20_000u32 {
            let [a, b, c, d] = i.to_le_bytes();
            let hop = hop([2, 0, a, b, c, d], [2; 6], 3);
            for attempt in 0..PROBES {
                assert!((1..RETURN_HOPS).contains(&hop.place(attempt)));
            }
        }
    }

    #[test]
    fn a_full_table_says_unknown() {
        let table = table();
        let numbers: Vec<u16> = (0..10_000u32)
            .map(|i| {
                let [a, b, c, d] = i.to_le_bytes();
                intern(&hop([2, 0, a, b, c, d], [2; 6], 3), |n| table.get(n as usize))
            })
            .collect();
        assert!(numbers.contains(&0));
        assert!(numbers.iter().all(|n| u32::from(*n) < RETURN_HOPS));
    }
}
