//! Several threads on few buckets, as CPUs and the daemon meet there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Few keys in few buckets, so that everybody is always in everybody's way.
const KEYS: u64 = 64;
const BUCKETS: u32 = 8;

/// The backend is a function of the key, and there are but few, so that values that are equal to the bit are common.
fn backend_of(number: u64) -> u16 {
    (SEED.hash(&[number]) % 5 + 1) as u16
}

/// What a race found out.
#[derive(Debug, Default)]
struct Found {
    wrong_backends: AtomicU64,
    insertions: AtomicU64,
    lost_to_others: AtomicU64,
}

/// One packet of a connection: what the program does with its entry. `random` decides whether the connection ends.
fn packet<const K: usize>(table: &[Bucket<AtomicU64, K>], random: u64, found: &Found)
where
    [u64; K]: Numbered,
{
    let number = random % KEYS;
    let key = <[u64; K]>::numbered(number);
    let home = at(table, &key);
    let Some((way, value)) = home.find(&key) else {
        let value = Value::new(State::SynSeen, backend_of(number), 1, Tick(50));
        found.insertions.fetch_add(1, Ordering::Relaxed);
        if matches!(home.insert(&key, value, Tick(60)), Inserted::Exists(..)) {
            found.lost_to_others.fetch_add(1, Ordering::Relaxed);
        }
        return;
    };
    if value.backend() != backend_of(number) {
        found.wrong_backends.fetch_add(1, Ordering::Relaxed);
    }
    match random >> 32 & 3 {
        0 => {
            way.remove(value);
        }
        1 => {
            way.replace(value, &key, value.with(State::SynSeen, 2, Tick(70)));
        }
        _ => {
            let deadline = Tick((random >> 40) as u16 & 0xff);
            way.update(value, value.with(State::SynSeen, 1, deadline));
        }
    }
}

fn race<const K: usize>(threads: u64, packets: u64)
where
    [u64; K]: Numbered,
{
    let table = table::<K>(BUCKETS);
    let found = Found::default();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (table, found) = (&table, &found);
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..packets {
                    random = Seed::new(9).hash(&[random]);
                    packet(table, random, found);
                }
            });
        }
    });
    assert_eq!(found.wrong_backends.load(Ordering::Relaxed), 0);
    let insertions = found.insertions.load(Ordering::Relaxed);
    assert!(insertions > packets / 100, "{insertions} insertions");
    let mut entries: HashMap<[u64; K], Vec<Value>> = HashMap::new();
    for (key, value) in table.iter().flat_map(Bucket::ways).filter_map(Way::read) {
        entries.entry(key).or_default().push(value);
    }
    let numbers: HashMap<_, _> = (0..KEYS)
        .map(|number| (<[u64; K]>::numbered(number), number))
        .collect();
    let mut duplicates = 0;
    for (key, values) in &entries {
        let number = numbers
            .get(key)
            .unwrap_or_else(|| panic!("{key:x?} was never inserted"));
        assert!(values.iter().all(|value| value.backend() == backend_of(*number)));
        duplicates += values.len() - 1;
    }
    assert_eq!(duplicates, 0, "{found:?}");
}

#[test]
fn a_race_gives_no_wrong_hit_and_leaves_no_duplicate() {
    for round in 0..20 {
        eprintln!("{round}");
        race::<1>(2, 200_000);
        race::<3>(2, 200_000);
    }
}
