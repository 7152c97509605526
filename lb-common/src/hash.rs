//! Two hashes over 64-bit words: one places connections in the table and must not be predictable from outside, the other
//! chooses backends and must be the same on every balancer of a fleet. They differ in nothing but their seed.

/// The secret of a hash. `odd` multipliers keep the mapping a bijection, so that no entropy is lost.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    whiten: u64,
    multiply: [u64; 2],
}

impl Seed {
    /// Derives a seed from any 64 bits (SplitMix64's finaliser, three draws).
    pub const fn new(seed: u64) -> Self {
        Self {
            whiten: splitmix(seed, 1),
            multiply: [splitmix(seed, 2) | 1, splitmix(seed, 3) | 1],
        }
    }

    /// Hashes a key. Every input bit changes every output bit with a probability of about a half (tested).
    #[inline(always)]
    pub fn hash<const K: usize>(&self, key: &[u64; K]) -> u64 {
        let mut hash = self.whiten;
        for &word in key {
            hash = self.mix(hash ^ word);
        }
        hash
    }

    #[inline(always)]
    fn mix(&self, mut word: u64) -> u64 {
        word = word.wrapping_mul(self.multiply[0]);
        word ^= word >> 32;
        word = word.wrapping_mul(self.multiply[1]);
        word ^= word >> 29;
        word = word.wrapping_mul(self.multiply[0]);
        word ^ (word >> 32)
    }
}

/// Maps the upper half of a hash evenly to `0..n` without a division.
#[inline(always)]
pub fn scale_high(hash: u64, n: u32) -> u32 {
    (((hash >> 32) * u64::from(n)) >> 32) as u32
}

/// Maps the lower half of a hash evenly to `0..n` without a division.
#[inline(always)]
pub fn scale_low(hash: u64, n: u32) -> u32 {
    (((hash & 0xffff_ffff) * u64::from(n)) >> 32) as u32
}

const fn splitmix(seed: u64, draw: u64) -> u64 {
    let mut z = seed.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 4096;

    /// Flipping any one input bit flips each output bit in 50 ± 4 % of 4,096 keys, whatever the seed.
    fn avalanche<const K: usize>(key: impl Fn(u64) -> [u64; K]) {
        for seed in [0, 1, 0xdead_beef, u64::MAX] {
            let seed = Seed::new(seed);
            for flip in 0..64 * K {
                let mut flips = [0u64; 64];
                for i in 0..KEYS {
                    let mut key = key(i);
                    let hash = seed.hash(&key);
                    key[flip / 64] ^= 1 << (flip % 64);
                    let difference = hash ^ seed.hash(&key);
                    for (bit, count) in flips.iter_mut().enumerate() {
                        *count += (difference >> bit) & 1;
                    }
                }
                for (bit, count) in flips.iter().enumerate() {
                    let share = *count as f64 / KEYS as f64;
                    assert!(
                        (0.46..0.54).contains(&share),
                        "input bit {flip}, output bit {bit}: {share}"
                    );
                }
            }
        }
    }

    /// Keys as they come: a few addresses, ports in a row.
    #[test]
    fn avalanche_of_ipv4_keys() {
        avalanche(|i| [(0xc612_0000 + (i & 7)) | (i << 32) | (1 << 48)]);
    }

    #[test]
    fn avalanche_of_long_keys() {
        avalanche(|i| [0x0120, i & 7, i >> 3 | 1 << 16]);
    }

    /// Keys that differ in several words at once, as those of two clients do, do not meet.
    #[test]
    fn words_do_not_cancel_each_other_out() {
        let seed = Seed::new(5);
        let mut hashes = std::collections::HashSet::new();
        for first in 0..64u64 {
            for second in 0..64u64 {
                for third in 0..16u64 {
                    assert!(hashes.insert(seed.hash(&[first << 56, second << 32, third])));
                }
            }
        }
    }

    #[test]
    fn long_keys_use_every_word() {
        let seed = Seed::new(7);
        let hash = seed.hash(&[1, 2, 3]);
        assert_ne!(hash, seed.hash(&[1, 2, 4]));
        assert_ne!(hash, seed.hash(&[1, 3, 3]));
        assert_ne!(hash, seed.hash(&[2, 1, 3]));
    }

    #[test]
    fn scaling_is_even_and_in_range() {
        for n in [1u32, 2, 3, 5, 400_000] {
            assert_eq!(scale_high(u64::MAX, n), n - 1);
            assert_eq!(scale_low(u64::MAX, n), n - 1);
            assert_eq!(scale_high(0, n), 0);
        }
        let seed = Seed::new(3);
        let mut counts = [0u32; 5];
        for i in 0..50_000u64 {
            counts[scale_low(seed.hash(&[i]), 5) as usize] += 1;
        }
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
    }
}
