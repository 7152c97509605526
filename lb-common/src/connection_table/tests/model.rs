//! The table under any operations, next to a map that does the same in the simplest way.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::tcp_state::STATES;

/// Few buckets for many keys, so that there is seldom room.
const BUCKETS: u32 = 5;
const KEYS: u64 = 48;

#[derive(Debug, Clone)]
enum Operation {
    /// A new connection: key, backend and own port, state, timeout.
    Insert(u64, u16, State, u16),
    /// A packet of a connection: key, state, timeout.
    Update(u64, State, u16),
    /// A client's port is used anew: key, backend, timeout.
    Renew(u64, u16, u16),
    /// The daemon forgets a connection.
    Remove(u64),
    /// Time passes, in ticks.
    Wait(u16),
    /// The daemon forgets what is over.
    Sweep,
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..KEYS;
    let state = || prop::sample::select(&STATES[..]);
    prop_oneof![
        8 => (key(), 1u16..8192, state(), 0u16..20).prop_map(|(k, b, s, t)| Operation::Insert(k, b, s, t)),
        4 => (key(), state(), 0u16..20).prop_map(|(k, s, t)| Operation::Update(k, s, t)),
        1 => (key(), 1u16..8192, 0u16..20).prop_map(|(k, b, t)| Operation::Renew(k, b, t)),
        1 => key().prop_map(Operation::Remove),
        2 => (0u16..10).prop_map(Operation::Wait),
        1 => Just(Operation::Sweep),
    ]
}

/// How soon an entry makes room, as the documentation has it: not at all (`None`), or the less the sooner.
fn willingness(value: Value, now: Tick) -> Option<(u8, i16)> {
    let left = value.deadline().until(now);
    let rank = match value.state() {
        _ if left < 0 => 1,
        State::Closed => 2,
        State::SynSeen | State::SynAckSeen | State::Unconfirmed => 3,
        State::Established | State::ClientFin | State::BackendFin | State::Reset => return None,
    };
    Some((rank, left))
}

struct Tested<const K: usize> {
    table: Vec<Bucket<AtomicU64, K>>,
    model: HashMap<[u64; K], Value>,
    now: Tick,
}

impl<const K: usize> Tested<K>
where
    [u64; K]: Numbered,
{
    fn contents(&self) -> HashMap<[u64; K], Value> {
        let entries: Vec<_> = self
            .table
            .iter()
            .flat_map(Bucket::ways)
            .filter_map(Way::read)
            .collect();
        let map: HashMap<_, _> = entries.iter().copied().collect();
        assert_eq!(map.len(), entries.len(), "a key twice");
        map
    }

    /// What lives in the two buckets of a key.
    fn neighbours(&self, key: &[u64; K]) -> Vec<([u64; K], Value)> {
        home(&SEED, key, BUCKETS)
            .iter()
            .flat_map(|bucket| self.table[*bucket as usize].ways())
            .filter_map(Way::read)
            .collect()
    }

    fn insert(&mut self, key: [u64; K], value: Value) {
        if self.model.contains_key(&key) {
            return;
        }
        let neighbours = self.neighbours(&key);
        let first_to_go = neighbours
            .iter()
            .filter_map(|(key, value)| willingness(*value, self.now).map(|how| (how, *key)))
            .min();
        let inserted = at(&self.table, &key).insert(&key, value, self.now);
        let before = std::mem::take(&mut self.model);
        self.model = self.contents();
        let gone: Vec<_> = before
            .keys()
            .filter(|key| !self.model.contains_key(*key))
            .collect();
        match (neighbours.len() < 2 * WAYS, first_to_go) {
            (true, _) => {
                assert!(
                    matches!(inserted, Inserted::Stored),
                    "there is room: {inserted:?}"
                );
                assert!(gone.is_empty());
            }
            (false, Some((how, _))) => {
                match inserted {
                    Inserted::Stored => assert!(how.0 < 3, "{how:?} made room unnoticed"),
                    Inserted::StoredEvicting(evicted) => {
                        assert_eq!((3, evicted.deadline().until(self.now)), how);
                    }
                    other => panic!("{other:?}"),
                }
                // Which one of those that are equally willing does not matter.
                assert_eq!(gone.len(), 1);
                assert_eq!(willingness(before[gone[0]], self.now), Some(how));
            }
            (false, None) => {
                assert!(matches!(inserted, Inserted::Full), "{inserted:?}");
                assert_eq!(self.model, before);
                return;
            }
        }
        // Nothing but the new entry came, and nothing else changed.
        let expected: HashMap<_, _> = before
            .iter()
            .filter(|(key, _)| !gone.contains(key))
            .map(|(key, value)| (*key, *value))
            .chain([(key, value)])
            .collect();
        assert_eq!(self.model, expected);
    }

    /// Whether the table has an entry is for the model to say.
    fn found(&self, key: &[u64; K]) -> Option<(&Way<AtomicU64, K>, Value)> {
        let found = at(&self.table, key).find(key);
        assert_eq!(found.map(|(_, value)| value), self.model.get(key).copied());
        found
    }

    fn perform(&mut self, operation: &Operation) {
        match *operation {
            Operation::Insert(number, backend, state, timeout) => {
                let value = Value::new(state, backend, backend >> 3, self.now.after(timeout))
                    .with_port(backend.wrapping_mul(7));
                self.insert(<[u64; K]>::numbered(number), value);
            }
            Operation::Update(number, state, timeout) => {
                let key = <[u64; K]>::numbered(number);
                if let Some((way, value)) = self.found(&key) {
                    let changed = value.with(state, 3, self.now.after(timeout));
                    assert!(way.update(value, changed));
                    assert_eq!(changed == value, way.update(value, changed), "changed already");
                    self.model.insert(key, changed);
                }
            }
            Operation::Renew(number, backend, timeout) => {
                let key = <[u64; K]>::numbered(number);
                if let Some((way, value)) = self.found(&key) {
                    let new = Value::new(State::SynSeen, backend, 0, self.now.after(timeout));
                    assert_eq!(at(&self.table, &key).renew(&key, (way, value), new), new);
                    self.model.insert(key, new);
                }
            }
            Operation::Remove(number) => {
                let key = <[u64; K]>::numbered(number);
                if let Some((way, value)) = self.found(&key) {
                    assert!(way.remove(value));
                    assert!(!way.remove(value), "removed already");
                    self.model.remove(&key);
                }
            }
            Operation::Wait(ticks) => self.now = self.now.after(ticks),
            Operation::Sweep => {
                for way in self.table.iter().flat_map(Bucket::ways) {
                    if let Some((_, value)) = way.read()
                        && value.deadline().is_past(self.now)
                    {
                        assert!(way.remove(value));
                    }
                }
                let now = self.now;
                self.model.retain(|_, value| !value.deadline().is_past(now));
            }
        }
    }
}

fn behaves_like_a_map<const K: usize>(start: u16, operations: &[Operation])
where
    [u64; K]: Numbered,
{
    let mut tested = Tested::<K> {
        table: table(BUCKETS),
        model: HashMap::new(),
        now: Tick(start),
    };
    for operation in operations {
        tested.perform(operation);
        assert_eq!(tested.contents(), tested.model);
        for number in 0..KEYS {
            tested.found(&<[u64; K]>::numbered(number));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn keys_of_one_word(start: u16, operations in prop::collection::vec(operation(), 1..300)) {
        behaves_like_a_map::<1>(start, &operations);
    }

    #[test]
    fn keys_of_three_words(start: u16, operations in prop::collection::vec(operation(), 1..300)) {
        behaves_like_a_map::<3>(start, &operations);
    }
}
