//! Weighted round robin: exact over a cycle, and as smooth as whole numbers allow.

/// The slots of a weighted round robin: over one cycle each backend has exactly its share, interleaved as smoothly as
/// whole numbers allow (the algorithm that nginx calls smooth weighted round robin). Weight 0 gets no slot. The sequence
/// is as short as the weights' common divisor lets it be.
pub fn weighted_round_robin(weights: &[(u16, u16)]) -> Vec<u16> {
    let divisor = common_divisor(weights.iter().map(|(_, weight)| *weight));
    let mut backends: Vec<(u16, i64, i64)> = weights
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(id, weight)| (*id, i64::from(weight / divisor), 0))
        .collect();
    let cycle: i64 = backends.iter().map(|(_, weight, _)| weight).sum();
    let mut slots = Vec::new();
    for _ in 0..cycle {
        for (_, weight, credit) in &mut backends {
            *credit += *weight;
        }
        // Of equals the first: `max_by_key` would give the last.
        let next = backends.iter_mut().rev().max_by_key(|(_, _, credit)| *credit);
        if let Some((id, _, credit)) = next {
            *credit -= cycle;
            slots.push(*id);
        }
    }
    slots
}

/// How many slots [`weighted_round_robin`] gives to backends of these weights.
pub fn slots_needed(weights: impl Iterator<Item = u16> + Clone) -> usize {
    let divisor = common_divisor(weights.clone());
    weights.map(|weight| usize::from(weight / divisor)).sum()
}

fn common_divisor(weights: impl Iterator<Item = u16>) -> u16 {
    weights.fold(0, gcd).max(1)
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences() {
        type Case = (&'static [(u16, u16)], &'static [u16]);
        let cases: &[Case] = &[
            (&[], &[]),
            (&[(1, 0)], &[]),
            (&[(1, 1), (2, 1)], &[1, 2]),
            (&[(1, 100), (2, 100), (3, 100)], &[1, 2, 3]),
            (&[(1, 5), (2, 1), (3, 1)], &[1, 1, 2, 1, 3, 1, 1]),
            (&[(1, 2), (2, 0), (3, 4)], &[3, 1, 3]),
        ];
        for (weights, slots) in cases {
            assert_eq!(&weighted_round_robin(weights), slots, "{weights:?}");
            assert_eq!(
                slots_needed(weights.iter().map(|(_, weight)| *weight)),
                slots.len()
            );
        }
    }

    proptest! {
        /// Shares are exact over a cycle, and nobody waits much longer than his share says.
        #[test]
        fn exact_and_smooth(weights in prop::collection::vec(0u16..=20, 1..12)) {
            let weights: Vec<_> = (1..).zip(weights).collect();
            let slots = weighted_round_robin(&weights);
            let sum: usize = weights.iter().map(|(_, weight)| usize::from(*weight)).sum();
            for (id, weight) in weights {
                let share = slots.iter().filter(|slot| **slot == id).count();
                prop_assert_eq!(share * sum, usize::from(weight) * slots.len());
                if share > 0 {
                    let twice: Vec<_> = slots.iter().chain(&slots).collect();
                    let gap = twice.split(|slot| **slot == id).map(<[_]>::len).max().unwrap_or(0);
                    prop_assert!(gap < 2 * slots.len().div_ceil(share) + 1, "{id}: gap {gap} in {slots:?}");
                }
            }
        }
    }
}
