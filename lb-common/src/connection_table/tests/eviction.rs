//! Who makes room for whom.

use std::sync::atomic::Ordering;

use super::*;
use crate::tcp_state::STATES;

const NOW: Tick = Tick(100);

/// Two buckets, in which every key is at home, with these values.
fn filled(values: [Value; 8]) -> Vec<Bucket<AtomicU64, 1>> {
    let table = table::<1>(2);
    let ways: Vec<_> = table.iter().flat_map(Bucket::ways).collect();
    for (i, (way, value)) in ways.iter().zip(values).enumerate() {
        assert!(way.replace(Value::EMPTY, &[1000 + i as u64], value));
    }
    table
}

fn in_state(state: State, deadline: u16) -> Value {
    Value::new(state, 1, 1, Tick(deadline))
}

/// Eight entries are all there is; what may go and what may not.
#[test]
fn eviction_order() {
    let live = established(1, 200);
    let expired = established(1, 99);
    let long_expired = established(1, 90);
    let last_tick = established(1, 100);
    let closed = in_state(State::Closed, 120);
    let reset = in_state(State::Reset, 101);
    let old_half_open = in_state(State::SynSeen, 101);
    let new_half_open = in_state(State::SynSeen, 107);
    type Case = (&'static str, [Value; 8], Option<u64>, Option<u16>);
    let cases: &[Case] = &[
        (
            "an empty way before all",
            [
                expired,
                closed,
                old_half_open,
                live,
                Value::EMPTY,
                expired,
                live,
                live,
            ],
            Some(1004),
            None,
        ),
        (
            "what expired first",
            [
                live,
                closed,
                old_half_open,
                expired,
                live,
                long_expired,
                live,
                expired,
            ],
            Some(1005),
            None,
        ),
        (
            "closed next",
            [live, live, old_half_open, live, live, reset, live, closed],
            Some(1007),
            None,
        ),
        (
            "then the oldest half-open",
            [live, new_half_open, live, reset, live, old_half_open, live, live],
            Some(1005),
            Some(1),
        ),
        (
            "a half-open one in its last tick",
            [
                live,
                in_state(State::Unconfirmed, 100),
                live,
                reset,
                live,
                live,
                live,
                live,
            ],
            Some(1001),
            Some(0),
        ),
        (
            "never a living one",
            [live, live, live, reset, live, live, last_tick, live],
            None,
            None,
        ),
        (
            "nor one being written",
            [Value::BUSY, live, live, live, live, live, live, live],
            None,
            None,
        ),
    ];
    for (purpose, values, victim, evicting) in cases {
        let table = filled(*values);
        let home = at(&table, &[1]);
        let inserted = home.insert(&[1], established(2, 200), NOW);
        match (victim, evicting) {
            (Some(_), None) => assert!(matches!(inserted, Inserted::Stored), "{purpose}: {inserted:?}"),
            (Some(_), Some(left)) => assert!(
                matches!(inserted, Inserted::StoredEvicting(found) if found.deadline().until(NOW) == *left as i16),
                "{purpose}: {inserted:?}"
            ),
            (None, _) => assert!(matches!(inserted, Inserted::Full), "{purpose}: {inserted:?}"),
        }
        assert_eq!(home.find(&[1]).is_some(), victim.is_some(), "{purpose}");
        for (i, value) in values.iter().enumerate() {
            let key = 1000 + i as u64;
            let stays = value.is_entry() && *victim != Some(key);
            let found = home.find(&[key]).map(|(_, value)| value);
            assert_eq!(found, stays.then_some(*value), "{purpose}: {key}");
        }
    }
}

/// Of every state, whether it makes room inside its timeout. After it, all do.
#[test]
fn every_state_inside_and_after_its_timeout() {
    for state in STATES {
        let gives_way = match state {
            State::SynSeen | State::SynAckSeen | State::Unconfirmed | State::Closed => true,
            State::Established | State::ClientFin | State::BackendFin | State::Reset => false,
        };
        for (deadline, goes) in [
            (NOW, gives_way),
            (NOW.after(1), gives_way),
            (NOW.after(0x7fff), gives_way),
            (Tick(NOW.0 - 1), true),
            (NOW.after(0x8000), true),
        ] {
            let table = filled([Value::new(state, 1, 0, deadline); 8]);
            let inserted = at(&table, &[1]).insert(&[1], established(2, 200), NOW);
            assert_eq!(
                !matches!(inserted, Inserted::Full),
                goes,
                "{state:?} until {deadline:?}: {inserted:?}"
            );
        }
    }
}

/// As long as the first bucket keeps a way it is filled; what comes then goes where there is more room.
#[test]
fn the_first_bucket_is_filled_but_for_a_way_and_then_the_emptier_one() {
    let table = table::<1>(2);
    let home = at(&table, &[7]);
    let count =
        |bucket: &Bucket<AtomicU64, 1>| bucket.ways().iter().filter(|way| way.read().is_some()).count();
    let filled = [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3), (4, 3), (4, 4)];
    for (number, expected) in filled.into_iter().enumerate() {
        // Not the keys' own buckets, but how full they are is what counts.
        assert!(matches!(
            home.insert(&[1000 + number as u64], established(1, 200), NOW),
            Inserted::Stored
        ));
        assert_eq!((count(home.first), count(home.second)), expected);
    }
}

/// A word that another CPU changes after so many loads.
#[derive(Debug, Default)]
struct Changing {
    word: AtomicU64,
    loads_left: AtomicU64,
    becomes: AtomicU64,
}

impl Changing {
    fn after(&self, loads: u64, becomes: Value) {
        self.becomes.store(becomes.0, Ordering::Relaxed);
        self.loads_left.store(loads, Ordering::Relaxed);
    }

    fn tick(&self) {
        if self.loads_left.load(Ordering::Relaxed) > 0 && self.loads_left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            Word::store(&self.word, self.becomes.load(Ordering::Relaxed));
        }
    }
}

impl Word for Changing {
    fn load(&self) -> u64 {
        let word = Word::load(&self.word);
        self.tick();
        word
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

/// Two buckets of which only the first way is not a living connection's.
fn all_but_one(first: Value) -> [Bucket<Changing, 1>; 2] {
    let buckets: [Bucket<Changing, 1>; 2] = Default::default();
    for (position, way) in buckets.iter().flat_map(Bucket::ways).enumerate() {
        let value = if position == 0 { first } else { established(1, 200) };
        way.replace(Value::EMPTY, &[1000], value);
    }
    buckets
}

/// Whatever moment another CPU chooses to put an established connection where there was room: it is not evicted.
#[test]
fn a_way_that_is_taken_meanwhile_is_not_evicted() {
    let theirs = established(2, 200);
    for before in [Value::EMPTY, in_state(State::SynSeen, 110), established(1, 99)] {
        // Counted, scored, observed; after that it is ours.
        for loads in 1..=3 {
            let buckets = all_but_one(before);
            let way = &buckets[0].ways()[0];
            way.value.after(loads, theirs);
            let ours = in_state(State::SynSeen, 110);
            let inserted = Home::new(&buckets[0], &buckets[1]).insert(&[7], ours, NOW);
            assert!(
                matches!(inserted, Inserted::Full),
                "after {loads} loads: {inserted:?}"
            );
            assert_eq!(Value(Word::load(&way.value.word)), theirs, "after {loads} loads");
        }
    }
}

/// A half-open entry that goes by itself has not made room: that would count as a flood.
#[test]
fn a_way_that_becomes_free_meanwhile_evicts_nobody() {
    for loads in 1..=2 {
        let buckets = all_but_one(in_state(State::SynSeen, 110));
        buckets[0].ways()[0].value.after(loads, Value::EMPTY);
        let inserted = Home::new(&buckets[0], &buckets[1]).insert(&[7], in_state(State::SynSeen, 110), NOW);
        assert!(
            matches!(inserted, Inserted::Stored),
            "after {loads} loads: {inserted:?}"
        );
    }
}

/// Of two entries with one key the second goes, even if a packet is noted in it at that moment by a CPU that had found it
/// before there was a first one.
#[test]
fn a_duplicate_that_changes_meanwhile_goes_all_the_same() {
    let ours = in_state(State::SynSeen, 110);
    // Counted, scored, observed, matched.
    let buckets: [Bucket<Changing, 1>; 2] = Default::default();
    let [first, second, ..] = buckets[0].ways();
    assert!(first.replace(Value::EMPTY, &[7], established(2, 200)));
    assert!(
        buckets[1]
            .ways()
            .iter()
            .all(|way| way.replace(Value::EMPTY, &[1000], established(1, 200)))
    );
    second.value.after(4, ours.with(State::SynAckSeen, 3, Tick(111)));
    let inserted = Home::new(&buckets[0], &buckets[1]).insert(&[7], ours, NOW);
    assert!(
        matches!(inserted, Inserted::Exists(way, value) if core::ptr::eq(way, first) && value.backend() == 2),
        "{inserted:?}"
    );
    assert_eq!(second.value.loads_left.load(Ordering::Relaxed), 0);
    assert_eq!(second.read(), None);
}
