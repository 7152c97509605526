//! Weighted round robin: exact over a cycle, and as smooth as whole numbers allow. The program takes one slot after the other,
//! whichever CPU a connection comes to.

use super::Candidate;

/// Up to so many steps the slots are interleaved in the smoothest way, which takes as many steps as there are slots times
/// backends; beyond, in a way that is nearly as smooth and takes no more than sorting them.
const STEPS: u64 = 8_000_000;

/// Over one cycle each backend has exactly its share. The sequence is as short as the shares' common divisor lets it be.
pub(super) fn slots(candidates: &[Candidate]) -> Vec<u16> {
    let divisor = common_divisor(candidates.iter().map(|it| it.share));
    let weights: Vec<(u16, u64)> = candidates
        .iter()
        .filter(|it| it.share > 0)
        .map(|it| (it.id, u64::from(it.share / divisor)))
        .collect();
    let cycle: u64 = weights.iter().map(|(_, weight)| weight).sum();
    if cycle * weights.len() as u64 <= STEPS {
        interleaved(&weights, cycle)
    } else {
        spread(&weights)
    }
}

/// What nginx calls smooth weighted round robin: each time everybody's credit grows by his weight, and whoever has most has
/// his turn and pays a cycle for it.
fn interleaved(weights: &[(u16, u64)], cycle: u64) -> Vec<u16> {
    let mut backends: Vec<(u16, i64, i64)> = weights
        .iter()
        .map(|(id, weight)| (*id, *weight as i64, 0))
        .collect();
    let mut slots = Vec::new();
    for _ in 0..cycle {
        for (_, weight, credit) in &mut backends {
            *credit += *weight;
        }
        // Of equals the first: `max_by_key` would give the last.
        let next = backends.iter_mut().rev().max_by_key(|(_, _, credit)| *credit);
        if let Some((id, _, credit)) = next {
            *credit -= cycle as i64;
            slots.push(*id);
        }
    }
    slots
}

/// The turns of each lie in the middles of as many equal parts of the cycle as he has turns.
fn spread(weights: &[(u16, u64)]) -> Vec<u16> {
    let mut turns: Vec<(u64, u16)> = weights
        .iter()
        .flat_map(|(id, weight)| (0..*weight).map(move |turn| (((2 * turn + 1) << 40) / weight, *id)))
        .collect();
    // Stable: of equals the first.
    turns.sort_by_key(|(position, _)| *position);
    turns.into_iter().map(|(_, id)| id).collect()
}

/// How many slots backends of these weights have.
pub(super) fn slots_needed(weights: impl Iterator<Item = u16> + Clone) -> usize {
    let divisor = common_divisor(weights.clone());
    weights.map(|weight| usize::from(weight / divisor)).sum()
}

/// At least 1.
pub(super) fn common_divisor(weights: impl Iterator<Item = u16>) -> u16 {
    weights.fold(0, gcd).max(1)
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::candidates;
    use super::*;

    #[test]
    fn sequences() {
        type Case = (&'static [u16], &'static [u16]);
        let cases: &[Case] = &[
            (&[], &[]),
            (&[0], &[]),
            (&[1, 1], &[1, 2]),
            (&[100, 100, 100], &[1, 2, 3]),
            (&[5, 1, 1], &[1, 1, 2, 1, 3, 1, 1]),
            (&[2, 0, 4], &[3, 1, 3]),
        ];
        for (weights, expected) in cases {
            assert_eq!(&slots(&candidates(weights)), expected, "{weights:?}");
            assert_eq!(slots_needed(weights.iter().copied()), expected.len());
        }
    }

    #[test]
    fn as_many_and_as_heavy_as_there_may_be() {
        let mut weights = vec![256; 4096];
        weights[0] = 255;
        let slots = slots(&candidates(&weights));
        assert_eq!(slots.len(), slots_needed(weights.iter().copied()));
        let of = |id: u16| slots.iter().filter(|slot| **slot == id).count();
        assert_eq!((of(1), of(2), of(4096)), (255, 256, 256));
    }

    /// Shares are exact over a cycle, and nobody waits much longer than his share says.
    fn exact_and_smooth(slots: &[u16], weights: &[(u16, u64)]) -> Result<(), TestCaseError> {
        let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
        for (id, weight) in weights {
            let share = slots.iter().filter(|slot| *slot == id).count();
            prop_assert_eq!(share as u64 * sum, weight * slots.len() as u64);
            if share > 0 {
                let twice: Vec<_> = slots.iter().chain(slots).collect();
                let gap = twice.split(|slot| *slot == id).map(<[_]>::len).max().unwrap_or(0);
                // Each of the others may have a turn more than his share of the time between two of these.
                let others = weights.iter().filter(|(other, _)| other != id);
                let fair: u64 = others.map(|(_, other)| other / weight + 1).sum();
                prop_assert!(
                    gap <= (fair as usize).max(2 * slots.len().div_ceil(share)),
                    "{}: gap {} in {:?}",
                    id,
                    gap,
                    slots
                );
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn both_ways_are_exact_and_smooth(weights in prop::collection::vec(1u64..=20, 1..12)) {
            let weights: Vec<_> = (1..).zip(weights).collect();
            let cycle = weights.iter().map(|(_, weight)| weight).sum();
            exact_and_smooth(&interleaved(&weights, cycle), &weights)?;
            exact_and_smooth(&spread(&weights), &weights)?;
        }

        #[test]
        fn common_divisors_do_not_matter(weights in prop::collection::vec(0u16..=20, 1..12), times in 1u16..=10) {
            let multiplied: Vec<_> = weights.iter().map(|weight| weight * times).collect();
            prop_assert_eq!(slots(&candidates(&weights)), slots(&candidates(&multiplied)));
        }
    }
}
