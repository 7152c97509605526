//! Maglev consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4), with weights. A table is made of nothing but the backends' addresses, ports and shares: all balancers of a
//! fleet make the same one, and when a backend goes, few of the others' slots change hands.

use std::net::SocketAddr;

use lb_common::abi;
use lb_common::hash::Seed;

use super::Candidate;

/// Sizes of a table: each the greatest prime below 256, 512, … 131,072.
pub const TABLE_SIZES: [usize; 10] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071];

const OFFSET: Seed = Seed::new(0x6d61_676c_6576_0001);
const SKIP: Seed = Seed::new(0x6d61_676c_6576_0002);

/// The size of the table of a service that has so many backends in its configuration, whatever their state: 127 to 255 slots
/// for each, so that no backend gets 1 % more or less than another (the paper asks for 100); fewer from 1,024 backends on. So
/// 4,096 backends fit into the program's pool, however they are distributed among services, together with the slots from
/// before the last change. A service's table changes its size, and with it most slots their backends, only when the number of
/// its configured backends passes a power of two.
pub fn table_size(backends: usize) -> usize {
    let doublings = backends.checked_ilog2().unwrap_or(0) as usize;
    TABLE_SIZES[doublings.min(TABLE_SIZES.len() - 1)]
}

/// The slots of a service.
pub(super) fn slots(candidates: &[Candidate]) -> Vec<u16> {
    table(candidates, table_size(candidates.len()))
}

/// A backend while the table is filled.
struct Taker {
    id: u16,
    share: u64,
    /// Where its permutation of the slots has come to, and its step.
    position: usize,
    step: usize,
    /// Its turn comes when the round times its share has come so far.
    due: u64,
}

/// A table of `size` slots, a prime greater than 1.
fn table(candidates: &[Candidate], size: usize) -> Vec<u16> {
    let mut takers: Vec<_> = candidates.iter().filter(|it| it.share > 0).collect();
    // In an order that every balancer has.
    takers.sort_by_key(|it| it.endpoint);
    let mut takers: Vec<_> = takers.into_iter().map(|it| Taker::new(it, size)).collect();
    let Some(greatest) = takers.iter().map(|it| it.share).max() else {
        return Vec::new();
    };
    let mut slots = vec![0; size];
    let mut left = size;
    for round in 1.. {
        for taker in &mut takers {
            // The one with the greatest share takes a slot each round, the others as often as theirs says.
            if round * taker.share < taker.due {
                continue;
            }
            taker.due += greatest;
            taker.take(&mut slots);
            left -= 1;
            if left == 0 {
                return slots;
            }
        }
    }
    slots
}

impl Taker {
    fn new(candidate: &Candidate, size: usize) -> Self {
        let key = key(candidate.endpoint);
        Self {
            id: candidate.id,
            share: u64::from(candidate.share),
            position: (OFFSET.hash(&key) % size as u64) as usize,
            step: (SKIP.hash(&key) % (size as u64 - 1)) as usize + 1,
            due: 0,
        }
    }

    /// Takes the next slot of its permutation that nobody has; there must be one. No backend has id 0.
    fn take(&mut self, slots: &mut [u16]) {
        let size = slots.len();
        loop {
            let at = self.position;
            self.position = (at + self.step) % size;
            if let Some(slot) = slots.get_mut(at).filter(|slot| **slot == 0) {
                *slot = self.id;
                return;
            }
        }
    }
}

/// What a backend is told apart by. Words in network order: the same on machines of either byte order.
fn key(endpoint: SocketAddr) -> [u64; 3] {
    let address = match endpoint.ip() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
        std::net::IpAddr::V6(address) => address,
    };
    let [low, high] = abi::address(&address.octets()).map(u64::to_be);
    [low, high, u64::from(endpoint.port())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::candidates;
    use super::*;

    fn counts(slots: &[u16], backends: usize) -> Vec<usize> {
        let mut counts = vec![0; backends];
        for slot in slots {
            counts[usize::from(*slot) - 1] += 1;
        }
        counts
    }

    /// The share of the slots that changed hands though neither of the two is the backend that went.
    fn disruption(size: usize, backends: usize, gone: usize) -> f64 {
        let mut all = candidates(&vec![1; backends]);
        let before = table(&all, size);
        all[gone].share = 0;
        let after = table(&all, size);
        let gone = gone as u16 + 1;
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(was, is)| was != is && **was != gone)
            .count();
        moved as f64 / size as f64
    }

    #[test]
    fn sizes_are_primes_and_grow_with_the_number_of_backends() {
        for size in TABLE_SIZES {
            assert!(
                (2..size).take_while(|n| n * n <= size).all(|n| size % n != 0),
                "{size}"
            );
        }
        for (backends, size) in [
            (0, 251),
            (1, 251),
            (2, 509),
            (7, 1021),
            (8, 2039),
            (511, 65521),
            (4096, 131_071),
        ] {
            assert_eq!(table_size(backends), size, "{backends}");
        }
        assert!((1..1024).all(|n| table_size(n) > 100 * n && table_size(n) <= 256 * n));
    }

    #[test]
    fn shares_are_even() {
        for backends in [2usize, 3, 7, 100] {
            let size = table_size(backends);
            let counts = counts(&slots(&candidates(&vec![1; backends])), backends);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{backends} in {size}: {counts:?}");
        }
    }

    #[test]
    fn order_and_ids_do_not_matter() {
        let one = candidates(&[3, 1, 2, 1]);
        let mut other = one.clone();
        other.reverse();
        assert_eq!(slots(&one), slots(&other));
        for it in &mut other {
            it.id += 10;
        }
        let renamed: Vec<_> = slots(&one).iter().map(|id| id + 10).collect();
        assert_eq!(slots(&other), renamed);
    }

    /// The paper's Pseudocode 1 to the letter, with permutations by chance; some backends are left out.
    fn published(size: usize, backends: &[(usize, usize)], gone: Option<usize>) -> Vec<usize> {
        let mut next = vec![0; backends.len()];
        let mut entry = vec![usize::MAX; size];
        let mut n = 0;
        loop {
            for (i, (offset, skip)) in backends.iter().enumerate().filter(|(i, _)| Some(*i) != gone) {
                let permutation = |j: usize| (offset + j * skip) % size;
                let mut c = permutation(next[i]);
                while entry[c] != usize::MAX {
                    next[i] += 1;
                    c = permutation(next[i]);
                }
                entry[c] = i;
                next[i] += 1;
                n += 1;
                if n == size {
                    return entry;
                }
            }
        }
    }

    /// When one of 100 backends goes, its slots must change hands, a hundredth of all. How many others do so needlessly falls
    /// with the size of the table (65,537 is the paper's smaller one), and is what it is with the algorithm as published.
    #[test]
    fn few_slots_change_hands_when_a_backend_goes() {
        const BACKENDS: usize = 100;
        for size in [65_537, table_size(BACKENDS)] {
            let ours: Vec<_> = (0..BACKENDS)
                .map(|gone| disruption(size, BACKENDS, gone))
                .collect();
            let by_chance = |backend: usize, which: u64, below: usize| {
                (Seed::new(1).hash(&[backend as u64, which]) % below as u64) as usize
            };
            let backends: Vec<_> = (0..BACKENDS)
                .map(|it| (by_chance(it, 0, size), by_chance(it, 1, size - 1) + 1))
                .collect();
            let before = published(size, &backends, None);
            let theirs = (0..BACKENDS).map(|gone| {
                let after = published(size, &backends, Some(gone));
                let moved = before
                    .iter()
                    .zip(&after)
                    .filter(|(was, is)| was != is && **was != gone);
                moved.count() as f64 / size as f64
            });
            let mean = |sum: f64| sum / BACKENDS as f64;
            let (ours_mean, theirs) = (mean(ours.iter().sum()), mean(theirs.sum()));
            println!(
                "{BACKENDS} backends, {size} slots, one backend goes: {:.2} % of all slots change hands among the others, {:.2} % by \
                 the algorithm as published",
                ours_mean * 100.0,
                theirs * 100.0
            );
            assert!(
                (0.8..1.2).contains(&(ours_mean / theirs)),
                "{size}: {ours_mean}, {theirs}"
            );
            assert!(ours.iter().all(|one| *one < 3.0 * theirs), "{size}: {ours:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Every slot is somebody's, and each has his share but for rounding.
        #[test]
        fn weights_are_kept(shares in prop::collection::vec(1u16..=10, 2..40)) {
            let size = 8191;
            let counts = counts(&table(&candidates(&shares), size), shares.len());
            let sum: usize = shares.iter().map(|share| usize::from(*share)).sum();
            for (share, count) in shares.iter().zip(counts) {
                let ideal = size as f64 * f64::from(*share) / sum as f64;
                let mean = sum as f64 / shares.len() as f64;
                let off = (count as f64 - ideal).abs();
                prop_assert!(off <= 1.0 + f64::from(*share) / mean, "{} instead of {}: {:?}", count, ideal, shares);
            }
        }
    }
}
