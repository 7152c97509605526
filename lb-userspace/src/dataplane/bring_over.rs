//! Connections of one set of tables, brought over into another: of another size, or laid out in another way.
//!
//! Programs may look at both meanwhile. Those that look at the new one insert nothing until all is over (`MIGRATING`), so that
//! this is the only one who does.

use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use lb_common::abi::PortEntry;
use lb_common::connection_table::{Bucket, Home, Inserted, Packing, Value, Way, home};
use lb_common::hash::Seed;
use lb_common::tick::Tick;

/// What became of the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BroughtOver {
    /// Are in the new table.
    pub entries: u64,
    /// Of connections that live, and found no room there.
    pub homeless: u64,
}

/// Puts every entry of `from` into `to`, where `seed` says; or what is newer of it, if it is there already.
pub(super) fn connections<const K: usize>(
    from: &[Bucket<AtomicU64, K>],
    packing: &Packing,
    to: &[Bucket<AtomicU64, K>],
    seed: &Seed,
    now: Tick,
) -> BroughtOver {
    let mut brought = BroughtOver::default();
    for (mut key, raw) in from.iter().flat_map(Bucket::ways).filter_map(Way::words) {
        let seal = packing.seal(raw);
        for word in &mut key {
            *word ^= seal;
        }
        let value = packing.unpack(raw);
        if value.deadline().is_past(now) {
            continue;
        }
        if put(&key, value, to, seed, now) {
            brought.entries += 1;
        } else if !value.state().looks_over() {
            brought.homeless += 1;
        }
    }
    brought
}

/// So many others make room for one that makes room. With two a table is filled to nine tenths.
const STEPS: u32 = 2;

/// Whether the entry is there now.
fn put<const K: usize>(
    key: &[u64; K],
    value: Value,
    to: &[Bucket<AtomicU64, K>],
    seed: &Seed,
    now: Tick,
) -> bool {
    let [first, second] = home(seed, key, to.len() as u32).map(|index| to.get(index as usize));
    let (Some(first), Some(second)) = (first, second) else {
        return false;
    };
    let home = Home::new(first, second);
    let is_full = |bucket: &Bucket<AtomicU64, K>| bucket.ways().iter().all(|way| way.read().is_some());
    // A packet may change the entry while we look at it; then we look again.
    for _ in 0..100 {
        let Some((way, there)) = home.find(key) else {
            if is_full(first) && is_full(second) {
                let _ = make_room(first, to, seed, STEPS) || make_room(second, to, seed, STEPS);
            }
            return matches!(home.insert(key, value, now), Inserted::Stored);
        };
        let newer = newer(there, value, now);
        if newer == there {
            return true;
        }
        let same = (there.backend(), there.port()) == (newer.backend(), newer.port());
        let done = if same {
            way.update(there, newer)
        } else {
            way.replace(there, key, newer)
        };
        if done {
            return true;
        }
    }
    false
}

/// Whether an entry of a full bucket has gone to its other bucket, where if need be another one has made room.
fn make_room<const K: usize>(
    full: &Bucket<AtomicU64, K>,
    to: &[Bucket<AtomicU64, K>],
    seed: &Seed,
    steps: u32,
) -> bool {
    let mut others = full
        .ways()
        .iter()
        .filter_map(|way| other_home(way, full, to, seed));
    let one_moves = || {
        let mut ways = full.ways().iter();
        ways.any(|way| other_home(way, full, to, seed).is_some_and(|other| moves(way, other)))
    };
    one_moves() || steps > 0 && others.any(|other| make_room(other, to, seed, steps - 1)) && one_moves()
}

/// The bucket, not this one, where the entry of a way may be as well.
fn other_home<'a, const K: usize>(
    way: &Way<AtomicU64, K>,
    this: &Bucket<AtomicU64, K>,
    to: &'a [Bucket<AtomicU64, K>],
    seed: &Seed,
) -> Option<&'a Bucket<AtomicU64, K>> {
    let (key, _) = way.read()?;
    let homes = home(seed, &key, to.len() as u32).map(|index| to.get(index as usize));
    homes.into_iter().flatten().find(|bucket| !ptr::eq(*bucket, this))
}

/// Whether an entry has gone to another bucket. Packets that come meanwhile find it in either.
fn moves<const K: usize>(way: &Way<AtomicU64, K>, other: &Bucket<AtomicU64, K>) -> bool {
    let Some((key, value)) = way.read() else {
        return true;
    };
    let Some(free) = other
        .ways()
        .iter()
        .find(|free| free.replace(Value::EMPTY, &key, value))
    else {
        return false;
    };
    let has_gone = way.remove(value);
    if !has_gone {
        // A packet has just changed it where it was: that holds.
        free.remove(value);
    }
    has_gone
}

/// Of an entry that was brought over before, and may have seen packets since, and the same one where it came from, what is to be
/// believed.
fn newer(there: Value, from: Value, now: Tick) -> Value {
    if (there.backend(), there.port()) != (from.backend(), from.port()) {
        // Entries begin in the old tables only, so there is another connection by now.
        return from;
    }
    let state = if from.state() as u8 > there.state() as u8 {
        from.state()
    } else {
        there.state()
    };
    let deadline = if from.deadline().until(now) > there.deadline().until(now) {
        from.deadline()
    } else {
        there.deadline()
    };
    let hop = if there.hop() == 0 { from.hop() } else { there.hop() };
    there.with(state, hop, deadline)
}

/// Copies who has which of the own ports of `full-nat` connections. None are given away meanwhile.
pub(super) fn ports(from: &[PortEntry<AtomicU64>], to: &[PortEntry<AtomicU64>]) {
    for (from, to) in from.iter().zip(to) {
        for (from, to) in from.address.iter().zip(&to.address) {
            to.store(from.load(Relaxed), Relaxed);
        }
        to.connection.store(from.connection.load(Relaxed), Relaxed);
        to.taken.store(from.taken.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use lb_common::connection_table::entry::{PACKING, ipv4_key, ipv4_key_parts};
    use lb_common::tcp_state::State;

    use super::*;

    const NOW: Tick = Tick(40_000);

    fn table(buckets: usize) -> Vec<Bucket<AtomicU64, 1>> {
        (0..buckets).map(|_| Bucket::default()).collect()
    }

    fn value(state: State, backend: u16, ticks_left: u16) -> Value {
        Value::new(state, backend, 7, NOW.after(ticks_left))
    }

    fn entries(table: &[Bucket<AtomicU64, 1>]) -> Vec<(u16, Value)> {
        let ways = table.iter().flat_map(Bucket::ways);
        let mut entries: Vec<_> = ways
            .filter_map(Way::read)
            .map(|(key, value)| (ipv4_key_parts(key).1, value))
            .collect();
        entries.sort_by_key(|(port, _)| *port);
        entries
    }

    fn filled(buckets: usize, seed: &Seed, ports: std::ops::Range<u16>) -> Vec<Bucket<AtomicU64, 1>> {
        let table = table(buckets);
        for port in ports {
            let key = ipv4_key(1, port.to_be(), 3);
            assert!(put(
                &key,
                value(State::Established, port % 5 + 1, 100),
                &table,
                seed,
                NOW
            ));
        }
        table
    }

    #[test]
    fn a_larger_table_and_a_smaller_one_get_everything() {
        let seed = Seed::new(5);
        let old = filled(1000, &seed, 1..1001);
        for buckets in [500, 3000] {
            let new = table(buckets);
            let brought = connections(&old, &PACKING, &new, &seed, NOW);
            assert_eq!((brought.entries, brought.homeless), (1000, 0));
            assert_eq!(entries(&new), entries(&old));
            // Twice is not twice as much.
            connections(&old, &PACKING, &new, &seed, NOW);
            assert_eq!(entries(&new), entries(&old));
        }
    }

    /// An upgrade must not fail for one connection whose two buckets happen to be full.
    #[test]
    fn others_make_room() {
        for number in 0..10 {
            let seed = Seed::new(number);
            let old = filled(3000, &seed, 1..1801);
            let new = table(500);
            let brought = connections(&old, &PACKING, &new, &seed, NOW);
            assert_eq!((brought.entries, brought.homeless), (1800, 0), "nine tenths full");
            assert_eq!(entries(&new), entries(&old));
            // Each where it is looked for, and once.
            for (key, value) in new.iter().flat_map(Bucket::ways).filter_map(Way::read) {
                let [first, second] = home(&seed, &key, 500).map(|index| &new[index as usize]);
                assert_eq!(
                    Home::new(first, second).find(&key).map(|(_, found)| found),
                    Some(value)
                );
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let seed = Seed::new(5);
        let old = filled(1000, &seed, 1..1001);
        let brought = connections(&old, &PACKING, &table(100), &seed, NOW);
        assert_eq!(brought.entries + brought.homeless, 1000);
        assert!(brought.homeless >= 600);
    }

    #[test]
    fn what_happened_meanwhile_on_either_side_holds() {
        let seed = Seed::new(5);
        let key = ipv4_key(1, 9, 3);
        for (there, from, expected) in [
            // Went on where it is looked at now.
            (
                (State::Established, 1, 90),
                (State::SynAckSeen, 1, 5),
                (State::Established, 1, 90),
            ),
            // Went on in the old table after it was brought over.
            (
                (State::SynSeen, 1, 5),
                (State::Established, 1, 90),
                (State::Established, 1, 90),
            ),
            (
                (State::Established, 1, 80),
                (State::Established, 1, 90),
                (State::Established, 1, 90),
            ),
            // Ended there, and the port began another connection.
            (
                (State::Established, 1, 90),
                (State::SynSeen, 2, 5),
                (State::SynSeen, 2, 5),
            ),
        ] {
            let as_value = |(state, backend, left)| value(state, backend, left);
            let new = table(10);
            assert!(put(&key, as_value(there), &new, &seed, NOW));
            assert!(put(&key, as_value(from), &new, &seed, NOW));
            assert_eq!(entries(&new), [(u16::from_be(9), as_value(expected))]);
        }
    }

    #[test]
    fn what_is_over_stays_behind() {
        let seed = Seed::new(5);
        let old = table(10);
        assert!(put(
            &ipv4_key(1, 9, 3),
            value(State::Established, 1, 4),
            &old,
            &seed,
            NOW
        ));
        let later = NOW.after(10);
        assert_eq!(
            connections(&old, &PACKING, &table(10), &seed, later),
            BroughtOver::default()
        );
    }
}
