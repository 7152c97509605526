//! The connection table: an array of buckets, each key at home in two of them.
//!
//! The protocol, for any number of CPUs and user space at once, without locks that a killed process could leave behind:
//!
//! - The value word is the lock. Every change is a compare-and-swap on it.
//! - A way is taken by swapping its observed value for BUSY, writing the key, and publishing the new value.
//! - A key is stored XORed with a spread of the value's immutable bits, so that a reader never matches the key of one
//!   entry with the value of another.
//! - After an insertion, and after an entry was given to a new connection with its key, both buckets are scanned again. Of
//!   two entries with one key the first in scan order stays; whoever sees the other removes it.
//! - User space only deletes, by one compare-and-swap; but for tables that no program inserts into at the time, because
//!   connections of older ones are being brought over.

pub mod entry;

pub use entry::{Packing, Value};

use core::hint::black_box;

use crate::hash::{Seed, scale_high, scale_low};
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

/// Buckets for so many connections: filled to 55 %, all but about a thousandth of the entries find a free way in one of
/// their two buckets (tested); the rest are served without an entry.
pub const fn buckets_for(connections: u32) -> u32 {
    let buckets = (connections as u64 * 100).div_ceil(55 * WAYS as u64) as u32;
    if buckets < 2 { 2 } else { buckets }
}

/// Both indexes of a key's buckets among `buckets` (at least two); they always differ.
#[inline(always)]
pub fn home<const K: usize>(seed: &Seed, key: &[u64; K], buckets: u32) -> [u32; 2] {
    let hash = seed.hash(key);
    let first = scale_high(hash, buckets);
    let second = scale_low(hash, buckets - 1);
    [first, second + u32::from(second >= first)]
}

/// The two buckets of a key.
#[derive(Debug)]
pub struct Home<'a, W, const K: usize> {
    first: &'a Bucket<W, K>,
    second: &'a Bucket<W, K>,
}

/// What became of an insertion.
#[derive(Debug)]
pub enum Inserted<'a, W, const K: usize> {
    /// The entry is in the table.
    Stored,
    /// It took the place of this half-open one, which had time left.
    StoredEvicting(Value),
    /// Another CPU was faster: here is its entry, which holds.
    Exists(&'a Way<W, K>, Value),
    /// Only living connections all around.
    Full,
    /// Only living connections all around, and half-open ones that were spared.
    Spared,
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
        let (key, value) = self.glance();
        if value.is_entry() {
            Some((key, value))
        } else {
            None
        }
    }

    /// Its words, the key unsealed, whether there is an entry or not: the value says so.
    #[inline(always)]
    pub fn glance(&self) -> ([u64; K], Value) {
        let mut key = [0; K];
        for (word, stored) in key.iter_mut().zip(&self.key) {
            *word = stored.load();
        }
        let value = Value(self.value.load());
        let seal = value.seal();
        for word in &mut key {
            *word ^= seal;
        }
        (key, value)
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

    /// Its words as they are, the key still sealed, of a way that may be written meanwhile: `None` while it is.
    pub fn words(&self) -> Option<([u64; K], u64)> {
        let value = self.value.load();
        let mut key = [0; K];
        for (word, stored) in key.iter_mut().zip(&self.key) {
            *word = stored.load();
        }
        (self.value.load() == value && Value(value).is_entry()).then_some((key, value))
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

impl<W: Word, const K: usize> Bucket<W, K> {
    /// The entry of a key, with its value at the time.
    #[inline(always)]
    pub fn find(&self, key: &[u64; K]) -> Option<(&Way<W, K>, Value)> {
        for (position, way) in self.ways.iter().enumerate() {
            if let Some(value) = way.matches(key) {
                return Some((&self.ways[obscured(position, value) % WAYS], value));
            }
        }
        None
    }
}

impl<W, const K: usize> Bucket<W, K> {
    /// All ways, for whoever sweeps the table.
    pub fn ways(&self) -> &[Way<W, K>; WAYS] {
        &self.ways
    }
}

/// How willingly a way is given to a new connection: the lower, the sooner.
const RANK_EMPTY: u64 = 0;
const RANK_EXPIRED: u64 = 1;
const RANK_CLOSED: u64 = 2;
const RANK_HALF_OPEN: u64 = 3;
const RANK_NEVER: u64 = 4;
/// The ranks by the state's bits, four bits each: inside the timeout, and after it. A reset connection is not closed before
/// its timeout: the RST may be forged. Looking ranks up by shifting keeps the program free of branches here; with
/// branches, eight ways tried three times are more paths than the verifier follows.
const RANKS: u64 = ranks(false);
const RANKS_AFTER_TIMEOUT: u64 = ranks(true);
/// Where the rank lies in a score, above the time left, above the position.
const RANK_SHIFT: u32 = 32;
const POSITIONS: usize = 2 * WAYS;

const fn ranks(timed_out: bool) -> u64 {
    let mut table = 0;
    let mut bits = 0;
    while bits < 16 {
        let rank = match bits {
            0 => RANK_EMPTY,
            1 => RANK_NEVER,
            _ if timed_out => RANK_EXPIRED,
            2..=4 => RANK_HALF_OPEN,
            5..=8 => RANK_NEVER,
            _ => RANK_CLOSED,
        };
        table |= rank << (bits * 4);
        bits += 1;
    }
    table
}

/// In order: an empty way, an expired entry, a closed one, the half-open one that has the least time left. Never an
/// established one inside its timeout, nor a way that is being written.
#[inline(always)]
fn eviction_score(value: Value, now: Tick) -> u64 {
    let left = value.deadline().until(now) as u16;
    let timed_out = black_box(0u64.wrapping_sub(u64::from(left >> 15)));
    let ranks = RANKS & !timed_out | RANKS_AFTER_TIMEOUT & timed_out;
    let rank = ranks >> ((value.state_bits() & 0xf) * 4) & 0xf;
    rank << RANK_SHIFT | u64::from(left & 0x7fff) << 8
}

impl<'a, W: Word, const K: usize> Home<'a, W, K> {
    /// The key's two buckets, at the indexes that [`home`] gives.
    #[inline(always)]
    pub fn new(first: &'a Bucket<W, K>, second: &'a Bucket<W, K>) -> Self {
        Self { first, second }
    }

    /// The way at a position, 0 to 7.
    #[inline(always)]
    fn way(&self, position: usize) -> &'a Way<W, K> {
        let bucket = if position & WAYS == 0 {
            self.first
        } else {
            self.second
        };
        &bucket.ways[position % WAYS]
    }

    /// The entry of a key, with its value at the time.
    #[inline(always)]
    pub fn find(&self, key: &[u64; K]) -> Option<(&'a Way<W, K>, Value)> {
        self.first.find(key).or_else(|| self.second.find(key))
    }

    /// Stores a new connection. Call [`Self::find`] first: this does not look for an entry with this key.
    #[inline(always)]
    pub fn insert(&self, key: &[u64; K], value: Value, now: Tick) -> Inserted<'a, W, K> {
        self.insert_sparing(key, value, now, |_| false)
    }

    /// The same, but a half-open connection that has time left keeps its place if it is one to `spare`. The one that is asked
    /// about is that which has the least time left.
    #[inline(always)]
    pub fn insert_sparing(
        &self,
        key: &[u64; K],
        value: Value,
        now: Tick,
        spare: impl Fn(Value) -> bool,
    ) -> Inserted<'a, W, K> {
        // Losing a way to another CPU three times in a row means a storm on two buckets: serve it statelessly.
        for _ in 0..3 {
            let (position, observed, rank) = self.victim(now);
            if rank >= RANK_NEVER {
                return Inserted::Full;
            }
            if rank == RANK_HALF_OPEN && spare(observed) {
                return Inserted::Spared;
            }
            // Between the scoring and this look another CPU may have put a connection there that must stay, or taken one away.
            let observed_rank = eviction_score(observed, now) >> RANK_SHIFT;
            if observed_rank <= rank && self.way(position).replace(observed, key, value) {
                return match self.settle(key) {
                    Some((first, value)) if first != position => Inserted::Exists(self.way(first), value),
                    _ if observed_rank == RANK_HALF_OPEN => Inserted::StoredEvicting(observed),
                    _ => Inserted::Stored,
                };
            }
        }
        Inserted::Full
    }

    /// Gives the way of an entry, if that still is as it was found, to a new connection with the same key: a client's port that
    /// is used anew. What holds then: mostly the new value; that of another CPU, which missed the entry while it was being
    /// written, and stored one of its own; or [`Value::EMPTY`]: the entry had changed, and nothing was done. (Not an `Option`:
    /// what that leaves undefined, LLVM copies all the same, and the kernel's verifier refuses it.)
    #[inline(always)]
    pub fn renew(&self, key: &[u64; K], (way, found): (&Way<W, K>, Value), value: Value) -> Value {
        if !way.replace(found, key, value) {
            return Value::EMPTY;
        }
        match self.settle(key) {
            Some((_, first)) => first,
            None => value,
        }
    }

    /// The way to take, what it holds, and its rank: the lowest. Among empty ways that of the first bucket, where it is found
    /// sooner, while there is another one; else that of the emptier bucket.
    #[inline(always)]
    fn victim(&self, now: Tick) -> (usize, Value, u64) {
        let mut best = u64::MAX >> 1;
        for (number, bucket) in [self.first, self.second].into_iter().enumerate() {
            let mut taken = 0;
            for way in &bucket.ways {
                // 1 for every state's bits but 0.
                taken += ((way.value.load() & 0xf) + 15) >> 4;
            }
            if number == 0 {
                // 1 for the last two numbers.
                taken *= (taken + 1) >> 2;
            }
            for (position, way) in bucket.ways.iter().enumerate() {
                let score = eviction_score(Value(way.value.load()), now) + (taken << 3);
                best = lesser(best, score | (number * WAYS + position) as u64);
            }
        }
        let position = best as usize % POSITIONS;
        (
            position,
            Value(self.way(position).value.load()),
            best >> RANK_SHIFT,
        )
    }

    /// After an insertion: removes every entry of the key but the first, and returns that one with its position.
    #[inline(always)]
    fn settle(&self, key: &[u64; K]) -> Option<(usize, Value)> {
        let mut first = None;
        for position in 0..POSITIONS {
            let way = self.way(position);
            let Some(found) = way.matches(key) else { continue };
            if first.is_some() {
                // If this fails, another CPU has just noted a packet in the entry, which it had found before there was a
                // first one. It will not find it again.
                if !way.remove(found)
                    && let Some(changed) = way.matches(key)
                {
                    way.remove(changed);
                }
            } else {
                first = Some((obscured(position, found) % POSITIONS, found));
            }
        }
        first
    }
}

/// The lesser of two numbers below 2^63, without a branch.
#[inline(always)]
fn lesser(a: u64, b: u64) -> u64 {
    let difference = a.wrapping_sub(b);
    let a_is_less = black_box(((difference as i64) >> 63) as u64);
    b.wrapping_add(difference & a_is_less)
}

/// The position, hidden from the verifier: it sees "any number" instead of a different constant on each path, and so goes
/// through everything that follows a match once instead of eight times. What is added is a nibble of the state that no
/// state uses, always zero.
#[inline(always)]
fn obscured(position: usize, value: Value) -> usize {
    position + (value.state_bits() >> 4) as usize
}

#[cfg(test)]
mod tests;
