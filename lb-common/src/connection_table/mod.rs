//! The connection table: an array of buckets, each key at home in two of them.
//!
//! The protocol, for any number of CPUs and user space at once, without locks that a killed process could leave behind:
//!
//! - The value word is the lock. Every change is a compare-and-swap on it.
//! - A way is taken by swapping its observed value for BUSY, writing the key, and publishing the new value.
//! - A key is stored XORed with a spread of the value's immutable bits, so that a reader never matches the key of one
//!   entry with the value of another.
//! - After an insertion both buckets are scanned again. Of two entries with one key the first in scan order stays;
//!   whoever sees the other removes it.
//! - User space only deletes, by one compare-and-swap.

pub mod entry;

pub use entry::Value;

use crate::hash::{Seed, scale_high, scale_low};
use crate::tcp_state::{State, TimeoutClass};
use crate::tick::Tick;
use crate::word::Word;

/// Ways of a bucket.
pub const WAYS: usize = 4;

/// Room for one entry with a key of `K` words.
#[repr(C)]
#[derive(Debug)]
pub struct Way<W, const K: usize> {
    key: [W; K],
    value: W,
}

/// The ways that are read together: one cache line for IPv4 (`K` = 1), two for IPv6 (`K` = 3).
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket<W, const K: usize> {
    ways: [Way<W, K>; WAYS],
}

/// Buckets for so many connections: filled to 65 %, all but about a thousandth of the entries find a free way in one of
/// their two buckets (tested); the rest are served without an entry.
pub const fn buckets_for(connections: u32) -> u32 {
    (connections as u64 * 100).div_ceil(65 * WAYS as u64) as u32
}

/// Both indexes of a key's buckets among `buckets` (at least two); they always differ.
#[inline(always)]
pub fn home<const K: usize>(seed: &Seed, key: &[u64; K], buckets: u32) -> [u32; 2] {
    let hash = seed.hash(key);
    let first = scale_high(hash, buckets);
    let second = scale_low(hash, buckets - 1);
    [first, second + (second >= first) as u32]
}

/// The two buckets of a key.
#[derive(Debug)]
pub struct Home<'a, W, const K: usize> {
    buckets: [&'a Bucket<W, K>; 2],
}

/// What became of an insertion.
#[derive(Debug)]
pub enum Inserted<'a, W, const K: usize> {
    /// The entry is in the table.
    Stored,
    /// It took the place of a half-open one that had time left.
    StoredEvicting,
    /// Another CPU was faster: here is its entry, which holds.
    Exists(&'a Way<W, K>, Value),
    /// Only living connections all around.
    Full,
}

impl<W: Default, const K: usize> Default for Way<W, K> {
    fn default() -> Self {
        Self {
            key: core::array::from_fn(|_| W::default()),
            value: W::default(),
        }
    }
}

impl<W: Word, const K: usize> Way<W, K> {
    /// The entry as it is now: its key and its value; `None` if there is none.
    #[inline(always)]
    pub fn read(&self) -> Option<([u64; K], Value)> {
        let mut key = [0; K];
        for (word, stored) in key.iter_mut().zip(&self.key) {
            *word = stored.load();
        }
        let value = Value(self.value.load());
        let seal = value.seal();
        for word in &mut key {
            *word ^= seal;
        }
        if value.is_entry() {
            Some((key, value))
        } else {
            None
        }
    }

    #[inline(always)]
    fn matches(&self, key: &[u64; K]) -> Option<Value> {
        // The key first: on x86 loads are ordered, elsewhere the seal catches what is not.
        let mut stored = [0; K];
        for (word, slot) in stored.iter_mut().zip(&self.key) {
            *word = slot.load();
        }
        let value = Value(self.value.load());
        let seal = value.seal();
        let mut difference = 0;
        for (word, wanted) in stored.iter().zip(key) {
            difference |= word ^ seal ^ wanted;
        }
        if difference == 0 && value.is_entry() {
            Some(value)
        } else {
            None
        }
    }

    /// Changes the value if it still is `from`.
    #[inline(always)]
    pub fn update(&self, from: Value, to: Value) -> bool {
        self.value.compare_exchange(from.0, to.0)
    }

    /// Gives the way, if it still holds `from`, to a connection with this key and value.
    #[inline(always)]
    pub fn replace(&self, from: Value, key: &[u64; K], to: Value) -> bool {
        if !self.update(from, Value::BUSY) {
            return false;
        }
        let seal = to.seal();
        for (slot, word) in self.key.iter().zip(key) {
            slot.store(word ^ seal);
        }
        self.value.publish(to.0);
        true
    }

    /// Forgets the entry if it still is `value`.
    #[inline(always)]
    pub fn remove(&self, value: Value) -> bool {
        self.update(value, Value::EMPTY)
    }
}

impl<W, const K: usize> Bucket<W, K> {
    /// All ways, for whoever sweeps the table.
    pub fn ways(&self) -> &[Way<W, K>; WAYS] {
        &self.ways
    }
}

/// How willingly a way is given to a new connection: the lower, the sooner; `NEVER` not at all.
const NEVER: u32 = u32::MAX;
const EXPIRED: u32 = 1 << 16;
const OVER: u32 = 2 << 16;
const HALF_OPEN: u32 = 3 << 16;

/// In order: an empty way, an expired entry, a closed one, the half-open one that has the least time left. Never an
/// established one inside its timeout. A reset one is not closed before its timeout: the RST may be forged.
#[inline(always)]
fn eviction_rank(value: Value, now: Tick) -> u32 {
    if value == Value::EMPTY {
        return 0;
    }
    if !value.is_entry() {
        return NEVER;
    }
    let left = value.deadline().until(now);
    if left < 0 {
        return EXPIRED;
    }
    match value.state() {
        State::Closed => OVER,
        state if matches!(state.timeout_class(), TimeoutClass::HalfOpen) => HALF_OPEN | left as u32,
        _ => NEVER,
    }
}

impl<'a, W: Word, const K: usize> Home<'a, W, K> {
    /// The key's two buckets, at the indexes that [`home`] gives.
    #[inline(always)]
    pub fn new(first: &'a Bucket<W, K>, second: &'a Bucket<W, K>) -> Self {
        Self {
            buckets: [first, second],
        }
    }

    /// The entry of a key, with its value at the time.
    #[inline(always)]
    pub fn find(&self, key: &[u64; K]) -> Option<(&'a Way<W, K>, Value)> {
        for bucket in self.buckets {
            for way in &bucket.ways {
                if let Some(value) = way.matches(key) {
                    return Some((way, value));
                }
            }
        }
        None
    }

    /// Stores a new connection. Call [`Self::find`] first: this does not look for an entry with this key.
    #[inline(always)]
    pub fn insert(&self, key: &[u64; K], value: Value, now: Tick) -> Inserted<'a, W, K> {
        // Losing a way to another CPU three times in a row means a storm on two buckets: serve it statelessly.
        for _ in 0..3 {
            let Some((way, observed, rank)) = self.victim(now) else {
                return Inserted::Full;
            };
            if way.replace(observed, key, value) {
                return match self.settle(key, way) {
                    Some((other, value)) => Inserted::Exists(other, value),
                    None if rank >= HALF_OPEN => Inserted::StoredEvicting,
                    None => Inserted::Stored,
                };
            }
        }
        Inserted::Full
    }

    /// The way to take: the lowest rank, and among empty ones that of the emptier bucket.
    #[inline(always)]
    fn victim(&self, now: Tick) -> Option<(&'a Way<W, K>, Value, u32)> {
        let mut best = None;
        let mut best_rank = NEVER;
        for bucket in self.buckets {
            let mut taken = 0;
            for way in &bucket.ways {
                taken += (way.value.load() != Value::EMPTY.0) as u32;
            }
            for way in &bucket.ways {
                let value = Value(way.value.load());
                let rank = match eviction_rank(value, now) {
                    0 => taken,
                    rank => rank,
                };
                if rank < best_rank {
                    best_rank = rank;
                    best = Some((way, value));
                }
            }
        }
        best.map(|(way, value)| (way, value, best_rank))
    }

    /// After an insertion into `mine`: removes every entry of the key but the first, and returns that one if it is not
    /// mine.
    #[inline(always)]
    fn settle(&self, key: &[u64; K], mine: &Way<W, K>) -> Option<(&'a Way<W, K>, Value)> {
        let mut first: Option<(&'a Way<W, K>, Value)> = None;
        for bucket in self.buckets {
            for way in &bucket.ways {
                let Some(found) = way.matches(key) else { continue };
                if first.is_some() {
                    // If this fails, the entry has just changed; it stays behind the first one, never found, and expires.
                    way.remove(found);
                } else {
                    first = Some((way, found));
                }
            }
        }
        first.filter(|(way, _)| !core::ptr::eq(*way, mine))
    }
}

#[cfg(test)]
mod tests;
