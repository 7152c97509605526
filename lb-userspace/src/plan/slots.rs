//! Which backend a hash leads to, as the program chooses it.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{self, Choice};
use lb_common::hash::{Seed, scale_high};

/// The slots of a service, with what of a client is hashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots<'a> {
    slots: &'a [u16],
    by_port: bool,
}

impl<'a> Slots<'a> {
    /// `None`: there are no slots, and nobody is sent anywhere.
    pub(super) fn of(slots: &'a [u16], choice: Choice) -> Option<Self> {
        let by_port = !matches!(choice, Choice::Source);
        (!slots.is_empty()).then_some(Self { slots, by_port })
    }

    /// How many.
    pub(super) fn len(self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The backend that a packet of this client goes to if nothing is remembered of it.
    pub(super) fn backend(self, seed: &Seed, client: SocketAddr) -> Option<u16> {
        let port = if self.by_port { client.port() } else { 0 };
        let slot = scale_high(hash(seed, client.ip(), port), self.len());
        self.slots.get(slot as usize).copied()
    }

    /// How much of all hashes lead to another backend by these than by `others`, in parts of a million. Both cut the same
    /// range into equal parts, however many each: so at every end of a part of either it may change.
    pub(super) fn differ(self, others: Self) -> u32 {
        if self.by_port != others.by_port {
            // Other parts of the client are hashed: as good as independent.
            return independent(self.slots, others.slots);
        }
        let (ours, theirs) = (self.slots.len() as u64, others.slots.len() as u64);
        let (mut one, mut other, mut at, mut different) = (0, 0, 0, 0);
        let whole = ours * theirs;
        while at < whole {
            let end = ((one + 1) * theirs).min((other + 1) * ours);
            if self.slots.get(one as usize) != others.slots.get(other as usize) {
                different += end - at;
            }
            at = end;
            one = at / theirs;
            other = at / ours;
        }
        parts_of_a_million(different, whole)
    }
}

/// How likely two independent choices differ.
fn independent(one: &[u16], other: &[u16]) -> u32 {
    let mut same = 0;
    let mut ids = one.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let times = |slots: &[u16], id: u16| slots.iter().filter(|slot| **slot == id).count() as u64;
    for id in ids {
        same += times(one, id) * times(other, id);
    }
    let whole = (one.len() * other.len()) as u64;
    parts_of_a_million(whole - same, whole)
}

fn parts_of_a_million(part: u64, whole: u64) -> u32 {
    let ppm = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
    // Not nothing, if it is something.
    u32::try_from(ppm).unwrap_or(u32::MAX).max(u32::from(part > 0))
}

/// As the program hashes a packet's source: the address as a wide key has it, the port as the packet has it.
fn hash(seed: &Seed, client: IpAddr, port: u16) -> u64 {
    let address = match client {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let [low, high] = abi::address(&address.octets());
    seed.hash(&[low, high, u64::from(port.to_be())])
}

#[cfg(test)]
mod tests {
    use lb_common::family::{Family as _, Ipv4, Ipv6};
    use proptest::prelude::*;

    use super::*;

    fn slots(slots: &[u16]) -> Slots<'_> {
        Slots::of(slots, Choice::Hash).unwrap()
    }

    /// What `lb-ebpf/src/backend_choice.rs` does with the packet's own bytes.
    #[test]
    fn a_client_is_hashed_as_the_program_hashes_it() {
        let seed = Seed::new(5);
        let port = u16::from_ne_bytes(40000u16.to_be_bytes());
        let [low, high] = Ipv4::widened(u32::from_ne_bytes([198, 18, 0, 2]));
        assert_eq!(
            hash(&seed, [198, 18, 0, 2].into(), 40000),
            seed.hash(&[low, high, u64::from(port)])
        );
        let v6: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
        let [low, high] = Ipv6::widened(Ipv6::of_record(&abi::address(&v6.octets())));
        assert_eq!(
            hash(&seed, v6.into(), 40000),
            seed.hash(&[low, high, u64::from(port)])
        );
    }

    #[test]
    fn source_hash_does_not_look_at_the_port() {
        let ids: Vec<u16> = (1..=251).collect();
        let seed = Seed::new(0);
        let by = |choice, port| {
            let slots = Slots::of(&ids, choice).unwrap();
            slots.backend(&seed, ([198, 18, 0, 2], port).into())
        };
        assert_eq!(by(Choice::Source, 1), by(Choice::Source, 2));
        assert_ne!(by(Choice::Hash, 1), by(Choice::Hash, 2));
        assert!(Slots::of(&[], Choice::Hash).is_none());
    }

    #[test]
    fn shares() {
        assert_eq!(slots(&[1, 2]).differ(slots(&[1, 2])), 0);
        assert_eq!(slots(&[1, 2]).differ(slots(&[1, 1])), 500_000);
        assert_eq!(slots(&[1, 2]).differ(slots(&[1, 1, 2, 2])), 0);
        assert_eq!(slots(&[1, 2]).differ(slots(&[1, 2, 3])), 500_000);
        let source = Slots::of(&[1, 2, 2, 2], Choice::Source).unwrap();
        assert_eq!(slots(&[1, 2]).differ(source), 500_000);
        assert_eq!(parts_of_a_million(1, u64::MAX), 1, "not nothing");
    }

    proptest! {
        /// The share is how often clients change.
        #[test]
        fn clients_change_as_often_as_hashes_do(
            one in prop::collection::vec(1u16..4, 1..40),
            other in prop::collection::vec(1u16..4, 1..40),
        ) {
            const CLIENTS: u32 = 20_000;
            let seed = Seed::new(9);
            let (one, other) = (slots(&one), slots(&other));
            let moved = (0..CLIENTS)
                .filter(|n| {
                    let client = (std::net::Ipv4Addr::from(0xc612_0000 + n / 50), (n % 50) as u16 + 1024).into();
                    one.backend(&seed, client) != other.backend(&seed, client)
                })
                .count();
            let share = f64::from(one.differ(other)) / 1e6;
            prop_assert!((moved as f64 / f64::from(CLIENTS) - share).abs() < 0.025, "{} {}", moved, share);
            prop_assert_eq!(one.differ(other), other.differ(one));
        }
    }
}
