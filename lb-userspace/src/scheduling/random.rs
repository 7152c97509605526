//! Random: any slot, so that a backend is chosen with the probability that its share says, and several balancers that know
//! nothing of each other do not march in step.

use super::{Candidate, by_share};

/// The order does not matter.
pub(super) fn slots(candidates: &[Candidate]) -> Vec<u16> {
    by_share(candidates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::candidates;
    use super::*;

    proptest! {
        #[test]
        fn as_many_slots_as_the_share_says(shares in prop::collection::vec(0u16..=256, 1..30)) {
            let slots = slots(&candidates(&shares));
            let sum: usize = shares.iter().map(|share| usize::from(*share)).sum();
            for (id, share) in (1u16..).zip(&shares) {
                let own = slots.iter().filter(|slot| **slot == id).count();
                prop_assert_eq!(own * sum, usize::from(*share) * slots.len());
            }
        }
    }
}
