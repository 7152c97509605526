use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::tcp_state::State;

type Bucket4 = Bucket<AtomicU64, 1>;

const SEED: Seed = Seed::new(42);

fn table<const K: usize>(buckets: u32) -> Vec<Bucket<AtomicU64, K>> {
    (0..buckets).map(|_| Bucket::default()).collect()
}

fn at<'a, const K: usize>(table: &'a [Bucket<AtomicU64, K>], key: &[u64; K]) -> Home<'a, AtomicU64, K> {
    let [first, second] = home(&SEED, key, table.len() as u32);
    Home::new(&table[first as usize], &table[second as usize])
}

fn established(backend: u16, deadline: u16) -> Value {
    Value::new(State::Established, backend, 1, Tick(deadline))
}

#[test]
fn layout_is_cache_lines() {
    assert_eq!(size_of::<Bucket<AtomicU64, 1>>(), 64);
    assert_eq!(size_of::<Bucket<AtomicU64, 3>>(), 128);
    assert_eq!(align_of::<Bucket<AtomicU64, 3>>(), 64);
}

#[test]
fn both_homes_are_distinct_and_in_range() {
    for buckets in [2, 3, 17, 1 << 20] {
        for key in 0..10_000u64 {
            let [first, second] = home(&SEED, &[key], buckets);
            assert!(first != second && first < buckets && second < buckets);
        }
    }
}

/// Filled with connections that may not be evicted: up to four fifths of `max_connections` practically all find a way,
/// and even the last ones of the full number all but a thousandth or two.
#[test]
fn max_connections_fit() {
    let max = 100_000u64;
    let table = table::<1>(buckets_for(max as u32));
    let mut refused = 0u64;
    for key in 0..max {
        refused += u64::from(matches!(
            at(&table, &[key]).insert(&[key], established(1, 9), Tick(0)),
            Inserted::Full
        ));
        if key == max * 4 / 5 {
            assert!(refused <= max / 10_000, "{refused} of {key}");
        }
    }
    assert!(refused <= max / 500, "{refused} of {max}");
}

#[test]
fn long_keys_work_alike() {
    let table = table::<3>(64);
    for i in 0..150u64 {
        let key = [i, i << 32, !i];
        assert!(at(&table, &key).find(&key).is_none());
        assert!(matches!(
            at(&table, &key).insert(&key, established(i as u16, 9), Tick(0)),
            Inserted::Stored
        ));
    }
    for i in 0..150u64 {
        let key = [i, i << 32, !i];
        assert_eq!(
            at(&table, &key).find(&key).map(|(_, value)| value.backend()),
            Some(i as u16)
        );
    }
}

/// Two buckets hold everything; what may go and what may not is all there is.
#[test]
fn eviction_order() {
    let now = Tick(100);
    let fill = |values: [Value; 8]| {
        let table = table::<1>(2);
        let ways: Vec<_> = table.iter().flat_map(Bucket::ways).collect();
        for (i, (way, value)) in ways.iter().zip(values).enumerate() {
            assert!(way.replace(Value::EMPTY, &[1000 + i as u64], value));
        }
        table
    };
    let live = established(1, 200);
    let expired = established(1, 99);
    let closed = Value::new(State::Closed, 1, 1, Tick(120));
    let reset = Value::new(State::Reset, 1, 1, Tick(101));
    let old_half_open = Value::new(State::SynSeen, 1, 1, Tick(101));
    let new_half_open = Value::new(State::SynSeen, 1, 1, Tick(107));
    type Case = (&'static str, [Value; 8], Option<u64>, bool);
    let cases: &[Case] = &[
        (
            "expired first",
            [live, closed, old_half_open, live, live, expired, live, live],
            Some(1005),
            false,
        ),
        (
            "closed next",
            [live, live, old_half_open, live, live, reset, live, closed],
            Some(1007),
            false,
        ),
        (
            "then the oldest half-open",
            [live, new_half_open, live, reset, live, old_half_open, live, live],
            Some(1005),
            true,
        ),
        (
            "never a living one",
            [live, live, live, reset, live, live, live, live],
            None,
            false,
        ),
        (
            "nor one being written",
            [Value::BUSY, live, live, live, live, live, live, live],
            None,
            false,
        ),
    ];
    for (purpose, values, victim, evicting) in cases {
        let table = fill(*values);
        let home = at(&table, &[1]);
        let inserted = home.insert(&[1], established(2, 200), now);
        match victim {
            Some(key) => {
                assert_eq!(
                    matches!(inserted, Inserted::StoredEvicting),
                    *evicting,
                    "{purpose}: {inserted:?}"
                );
                assert!(home.find(&[*key]).is_none(), "{purpose}");
                assert_eq!(home.find(&[1]).map(|(_, v)| v.backend()), Some(2), "{purpose}");
            }
            None => {
                assert!(matches!(inserted, Inserted::Full), "{purpose}: {inserted:?}");
                assert!(home.find(&[1]).is_none(), "{purpose}");
            }
        }
    }
}

#[test]
fn of_two_entries_with_one_key_the_first_stays() {
    let table = table::<1>(2);
    let home = at(&table, &[7]);
    let ways: Vec<_> = [home.first, home.second]
        .into_iter()
        .flat_map(Bucket::ways)
        .collect();
    // Another CPU was faster, at a place before the one that we will find empty.
    assert!(ways[0].replace(Value::EMPTY, &[7], established(3, 9)));
    assert!(ways[1].replace(Value::EMPTY, &[8], established(4, 9)));
    match home.insert(&[7], established(5, 9), Tick(0)) {
        Inserted::Exists(way, value) => {
            assert!(core::ptr::eq(way, ways[0]));
            assert_eq!(value.backend(), 3);
        }
        other => panic!("{other:?}"),
    }
    let left = ways
        .iter()
        .filter(|way| way.read().is_some_and(|(key, _)| key == [7]))
        .count();
    assert_eq!(left, 1);
}

#[derive(Debug, Clone)]
enum Operation {
    Insert(u64, u16),
    Update(u64, u16),
    Remove(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = 0u64..60;
    prop_oneof![
        (key.clone(), 1u16..8192).prop_map(|(k, b)| Operation::Insert(k, b)),
        (key.clone(), any::<u16>()).prop_map(|(k, t)| Operation::Update(k, t & 0x7fff)),
        key.prop_map(Operation::Remove),
    ]
}

proptest! {
    /// Under any operations the table is a map, but for insertions that it refuses as full.
    #[test]
    fn behaves_like_a_map(operations in prop::collection::vec(operation(), 1..400)) {
        let table = table::<1>(12);
        let mut model: HashMap<u64, Value> = HashMap::new();
        for operation in operations {
            match operation {
                Operation::Insert(key, backend) => {
                    if let std::collections::hash_map::Entry::Vacant(slot) = model.entry(key) {
                        let value = established(backend, 0x7fff);
                        match at(&table, &[key]).insert(&[key], value, Tick(0)) {
                            Inserted::Stored => { slot.insert(value); }
                            Inserted::Full => {}
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                }
                Operation::Update(key, tick) => {
                    if let Some((way, value)) = at(&table, &[key]).find(&[key]) {
                        let changed = value.with(State::ClientFin, 3, Tick(tick));
                        prop_assert!(way.update(value, changed));
                        model.insert(key, changed);
                    }
                }
                Operation::Remove(key) => {
                    if let Some((way, value)) = at(&table, &[key]).find(&[key]) {
                        prop_assert!(way.remove(value));
                        model.remove(&key);
                    }
                }
            }
            for key in 0..60 {
                let found = at(&table, &[key]).find(&[key]).map(|(_, value)| value);
                prop_assert_eq!(found, model.get(&key).copied());
            }
        }
    }
}

/// Four threads look up, insert and delete among few buckets: what is found always belongs to the key that was asked
/// for. The backend is a function of the key, and only few backends exist, so that words of equal value are common.
#[test]
fn a_race_gives_no_wrong_hit_and_no_lasting_duplicate() {
    const KEYS: u64 = 64;
    let backend_of = |key: u64| (SEED.hash(&[key]) % 5 + 1) as u16;
    let table: Vec<Bucket4> = table(4);
    let wrong = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (table, wrong) = (&table, &wrong);
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..300_000 {
                    random = Seed::new(9).hash(&[random]);
                    let key = random % KEYS;
                    let home = at(table, &[key]);
                    if let Some((way, value)) = home.find(&[key]) {
                        if value.backend() != backend_of(key) {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        match random >> 32 & 3 {
                            0 => drop(way.remove(value)),
                            1 => drop(way.update(
                                value,
                                value.with(State::SynSeen, 1, Tick((random >> 40) as u16 & 0xff)),
                            )),
                            _ => {}
                        }
                    } else {
                        home.insert(
                            &[key],
                            Value::new(State::SynSeen, backend_of(key), 1, Tick(50)),
                            Tick(60),
                        );
                    }
                }
            });
        }
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    // Whatever duplicates are left lie behind the entry that is found, and one more insertion would clear them.
    for bucket in &table {
        for way in bucket.ways() {
            if let Some((key, value)) = way.read() {
                assert_eq!(value.backend(), backend_of(key[0]));
            }
        }
    }
}

/// A word that another CPU changes after so many loads.
#[derive(Debug, Default)]
struct Changing {
    word: AtomicU64,
    loads_left: AtomicU64,
    becomes: AtomicU64,
}

impl Word for Changing {
    fn load(&self) -> u64 {
        if self.loads_left.load(Ordering::Relaxed) > 0 && self.loads_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let word = Word::load(&self.word);
            Word::store(&self.word, self.becomes.load(Ordering::Relaxed));
            return word;
        }
        Word::load(&self.word)
    }

    fn store(&self, value: u64) {
        Word::store(&self.word, value);
    }

    fn publish(&self, value: u64) {
        self.word.publish(value);
    }

    fn compare_exchange(&self, current: u64, new: u64) -> bool {
        Word::compare_exchange(&self.word, current, new)
    }
}

/// Whatever moment another CPU chooses to put an established connection where there was room: it is not evicted.
#[test]
fn a_way_that_is_taken_meanwhile_is_not_evicted() {
    let now = Tick(100);
    // Counted, scored, observed; after that it is ours.
    for loads in 1..=3 {
        let buckets: [Bucket<Changing, 1>; 2] = Default::default();
        let ways: Vec<_> = buckets.iter().flat_map(Bucket::ways).collect();
        for way in &ways[1..] {
            assert!(way.replace(Value::EMPTY, &[1000], established(1, 200)));
        }
        let theirs = established(2, 200);
        ways[0].value.becomes.store(theirs.0, Ordering::Relaxed);
        ways[0].value.loads_left.store(loads, Ordering::Relaxed);

        let ours = Value::new(State::SynSeen, 3, 0, Tick(110));
        let inserted = Home::new(&buckets[0], &buckets[1]).insert(&[7], ours, now);
        assert!(matches!(inserted, Inserted::Full), "after {loads} loads: {inserted:?}");
        assert_eq!(Value(Word::load(&ways[0].value.word)), theirs, "after {loads} loads");
    }
}
