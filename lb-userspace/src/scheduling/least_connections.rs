//! Least connections: the slots are only where candidates come from. The program takes the next one in the round and another
//! one at random, and of these two the backend that has fewer connections for its weight. Choosing the better of two keeps
//! the loads nearly as even as looking at all of them would (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", 2001), and does not send every connection of a moment to the same backend.

use super::{Candidate, round_robin};

/// In the round everybody's turns come as often as his share says, so that a heavy backend is a candidate more often, too.
pub(super) fn slots(candidates: &[Candidate]) -> Vec<u16> {
    round_robin::slots(candidates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::candidates;
    use super::*;

    /// As the program chooses, with connections that never end.
    fn dealt(shares: &[u16], connections: usize, random: &mut impl FnMut(usize) -> usize) -> Vec<u64> {
        let slots = slots(&candidates(shares));
        let mut loads = vec![0u64; shares.len() + 1];
        for cursor in 0..connections {
            let one = cursor % slots.len();
            let other = (one + 1 + random((slots.len() - 1).max(1))) % slots.len();
            let [one, other] = [one, other].map(|slot| usize::from(slots[slot]));
            let (load, other_load) = (
                loads[one] * u64::from(shares[other - 1]),
                loads[other] * u64::from(shares[one - 1]),
            );
            loads[if other_load < load { other } else { one }] += 1;
        }
        loads.split_off(1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// The loads come to be as the weights are: within a twentieth, for backends that have at least a few hundred.
        #[test]
        fn loads_follow_weights(shares in prop::collection::vec(1u16..=8, 2..8), seed: u64) {
            let mut state = seed | 1;
            let mut random = |n: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % n
            };
            let connections = 40_000;
            let sum: u64 = shares.iter().map(|share| u64::from(*share)).sum();
            for (share, load) in shares.iter().zip(dealt(&shares, connections, &mut random)) {
                let ideal = connections as f64 * f64::from(*share) / sum as f64;
                prop_assert!((load as f64 - ideal).abs() < ideal / 20.0, "{:?}: {} instead of {}", shares, load, ideal);
            }
        }
    }
}
