//! The table as a whole; its parts have files of their own.

mod eviction;
mod model;
mod race;

use std::sync::atomic::AtomicU64;

use super::entry::{ipv4_key, wide_key};
use super::*;
use crate::family::{Family as _, Ipv4};
use crate::tcp_state::State;

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

/// Keys as packets have them: a few clients, many ports, two services.
trait Numbered {
    fn numbered(number: u64) -> Self;
}

impl Numbered for [u64; 1] {
    fn numbered(number: u64) -> Self {
        let client = u32::from_ne_bytes([198, 18, 0, number as u8 & 7]);
        ipv4_key(client, (number >> 4) as u16, 1 + (number as u16 >> 3 & 1))
    }
}

/// Half of them IPv6, half IPv4, of a service of several ports.
impl Numbered for [u64; 3] {
    fn numbered(number: u64) -> Self {
        let client = if number & 1 == 0 {
            [0x0120, number.swap_bytes() & 0x0700_0000_0000_0000]
        } else {
            Ipv4::widened(u32::from_ne_bytes([198, 18, 0, number as u8 & 7]))
        };
        wide_key(client, (number >> 4) as u16, 1 + (number as u16 >> 3 & 1), 443)
    }
}

#[test]
fn numbered_keys_differ() {
    fn count<const K: usize>() -> usize
    where
        [u64; K]: Numbered,
    {
        let keys: std::collections::HashSet<_> = (0..10_000).map(<[u64; K]>::numbered).collect();
        keys.len()
    }
    assert_eq!((count::<1>(), count::<3>()), (10_000, 10_000));
}

#[test]
fn layout_is_cache_lines() {
    assert_eq!(size_of::<Bucket<AtomicU64, 1>>(), 64);
    assert_eq!(size_of::<Bucket<AtomicU64, 3>>(), 128);
    assert_eq!(align_of::<Bucket<AtomicU64, 1>>(), 64);
    assert_eq!(align_of::<Bucket<AtomicU64, 3>>(), 64);
}

fn homes_differ<const K: usize>()
where
    [u64; K]: Numbered,
{
    for buckets in [2, 3, 17, 1 << 20] {
        let mut used = vec![0u32; buckets.min(17) as usize];
        for number in 0..10_000u64 {
            let [first, second] = home(&SEED, &<[u64; K]>::numbered(number), buckets);
            assert!(first != second && first < buckets && second < buckets);
            for index in [first, second] {
                if let Some(used) = used.get_mut(index as usize) {
                    *used += 1;
                }
            }
        }
        if buckets <= 17 {
            let even = 20_000 / buckets;
            assert!(used.iter().all(|used| used.abs_diff(even) < even / 5), "{used:?}");
        }
    }
}

#[test]
fn both_homes_are_distinct_and_in_range_and_all_are_used() {
    homes_differ::<1>();
    homes_differ::<3>();
}

#[test]
fn there_are_always_two_buckets() {
    assert_eq!(buckets_for(0), 2);
    assert_eq!(buckets_for(1), 2);
    assert_eq!(buckets_for(1_000_000), 454_546);
    assert_eq!(buckets_for(u32::MAX), 1_952_257_862);
}

/// Filled with connections that may not be evicted: up to four fifths of `max_connections` practically all find a way,
/// and even the last ones of the full number all but a thousandth or two.
fn fill<const K: usize>()
where
    [u64; K]: Numbered,
{
    let max = 100_000u64;
    let table = table::<K>(buckets_for(max as u32));
    let mut refused = 0u64;
    for number in 0..max {
        let key = <[u64; K]>::numbered(number);
        refused += u64::from(matches!(
            at(&table, &key).insert(&key, established(1, 9), Tick(0)),
            Inserted::Full
        ));
        if number == max * 4 / 5 {
            assert!(refused <= max / 10_000, "{refused} of {number}");
        }
    }
    assert!(refused <= max / 500, "{refused} of {max}");
}

#[test]
fn max_connections_fit() {
    fill::<1>();
    fill::<3>();
}

/// The ways of a table of two buckets, in the order in which a key's are searched.
fn in_order<'a, const K: usize>(home: &Home<'a, AtomicU64, K>) -> Vec<&'a Way<AtomicU64, K>> {
    [home.first, home.second]
        .into_iter()
        .flat_map(Bucket::ways)
        .collect()
}

fn entries_of(home: &Home<'_, AtomicU64, 1>, key: u64) -> Vec<u16> {
    in_order(home)
        .iter()
        .filter_map(|way| way.read())
        .filter(|(found, _)| *found == [key])
        .map(|(_, value)| value.backend())
        .collect()
}

#[test]
fn of_two_entries_with_one_key_the_first_stays() {
    let table = table::<1>(2);
    let home = at(&table, &[7]);
    let ways = in_order(&home);
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
    assert_eq!(entries_of(&home, 7), [3]);
}

/// While an entry is being renewed, another CPU misses it, and stores its own, before it or behind it.
#[test]
fn a_renewed_entry_and_one_that_was_stored_meanwhile_do_not_both_stay() {
    for (theirs, expected) in [(0, 3), (7, 5)] {
        let table = table::<1>(2);
        let home = at(&table, &[7]);
        let ways = in_order(&home);
        let closed = Value::new(State::Closed, 1, 1, Tick(9));
        assert!(ways[4].replace(Value::EMPTY, &[7], closed));
        assert!(ways[theirs].replace(Value::EMPTY, &[7], established(3, 9)));
        let holds = home.renew(&[7], (ways[4], closed), established(5, 9));
        assert_eq!(holds, established(expected, 9));
        assert_eq!(entries_of(&home, 7), [expected]);
    }
}

#[test]
fn only_an_entry_that_is_as_it_was_found_is_renewed() {
    let table = table::<1>(2);
    let home = at(&table, &[7]);
    let way = in_order(&home)[2];
    let closed = Value::new(State::Closed, 1, 1, Tick(9));
    assert!(way.replace(Value::EMPTY, &[7], closed));
    let changed = Value::new(State::Closed, 1, 2, Tick(9));
    assert_eq!(home.renew(&[7], (way, changed), established(5, 9)), Value::EMPTY);
    assert_eq!(entries_of(&home, 7), [1]);
    let holds = home.renew(&[7], (way, closed), established(5, 9));
    assert_eq!(holds, established(5, 9));
    assert_eq!(home.find(&[7]).map(|(_, value)| value), Some(established(5, 9)));
}
