//! Letting time pass in the tables, without waiting: everything that says when something was, or will be over, says so many
//! ticks earlier.

use anyhow::Context as _;
use aya::Pod;
use aya::maps::Array;

use crate::world::World;

/// Where the deadline lies in an entry's value.
const DEADLINE_SHIFT: u32 = 32;
/// Where in an element of `PORTS` the tick lies in which the port was given.
const PORT_TAKEN: usize = 3;

/// Lets entries of connections get so many ticks older.
pub fn entries(world: &mut World, ticks: u16) -> anyhow::Result<()> {
    each::<[u64; 8]>(world, "CONNECTIONS", |bucket| values(bucket, 2, ticks))?;
    each::<[u64; 16]>(world, "WIDE_CONNECTIONS", |bucket| values(bucket, 4, ticks))
}

/// A bucket's values are the last words of its ways; those that are no entries stay as they are.
fn values(bucket: &mut [u64], way: usize, ticks: u16) {
    for value in bucket.iter_mut().skip(way - 1).step_by(way) {
        if *value & 0xff > 1 {
            let deadline = (*value >> DEADLINE_SHIFT) as u16;
            let earlier = u64::from(deadline.wrapping_sub(ticks));
            *value = *value & !(0xffff << DEADLINE_SHIFT) | earlier << DEADLINE_SHIFT;
        }
    }
}

/// Lets what is known of own ports get so many ticks older.
pub fn ports(world: &mut World, ticks: u16) -> anyhow::Result<()> {
    each::<[u64; 4]>(world, "PORTS", |port| {
        let taken = &mut port[PORT_TAKEN];
        if *taken != 0 {
            *taken = *taken & !0xffff | u64::from((*taken as u16).wrapping_sub(ticks));
        }
    })
}

/// Lets the last flood have begun so many ticks ago, and ended so many.
pub fn flood(world: &mut World, began: u16, ended: u16) -> anyhow::Result<()> {
    let now = world.dataplane.now()?;
    each::<[u64; 8]>(world, "PRESSURE", |pressure| {
        for (word, ago) in [(0, ended), (1, began)] {
            pressure[word] = u64::from(now.0.wrapping_sub(ago)) + 1;
        }
    })
}

/// Lets a service's last connection without an entry have been so many ticks ago.
pub fn untracked(world: &mut World, service: u32, ticks: u16) -> anyhow::Result<()> {
    let now = world.dataplane.now()?;
    let mut number = 0;
    each::<[u64; 8]>(world, "SERVICE_STATES", |state| {
        if number == service {
            state[1] = u64::from(now.0.wrapping_sub(ticks)) + 1;
        }
        number += 1;
    })
}

/// Lets notes about first fragments be so many jiffies older.
pub fn fragments(world: &mut World, jiffies: u64) -> anyhow::Result<()> {
    let map = world
        .dataplane
        .ebpf_mut()
        .map_mut("FRAGMENTS")
        .context("no FRAGMENTS")?;
    let mut notes: aya::maps::HashMap<_, [u8; 40], [u64; 4]> = aya::maps::HashMap::try_from(map)?;
    let all: Vec<_> = notes.iter().collect::<Result<_, _>>()?;
    for (key, mut note) in all {
        note[0] = note[0].wrapping_sub(jiffies);
        notes.insert(key, note, 0)?;
    }
    Ok(())
}

/// Changes each element of an array; nobody else may use it meanwhile.
fn each<T: Pod + PartialEq>(
    world: &mut World,
    map: &str,
    mut change: impl FnMut(&mut T),
) -> anyhow::Result<()> {
    let map = world.dataplane.ebpf_mut().map_mut(map).context(map.to_owned())?;
    let mut array: Array<_, T> = Array::try_from(map)?;
    for index in 0..array.len() {
        let before = array.get(&index, 0)?;
        let mut after = before;
        change(&mut after);
        if after != before {
            array.set(index, after, 0)?;
        }
    }
    Ok(())
}
