//! Connections are being brought over into these tables from older ones: what has an entry goes on, what has none waits.

use std::mem::offset_of;

use anyhow::Context as _;
use aya::maps::Array;
use lb_common::abi::{Control, CopyHeader};
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::kind::Kind;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let case = |kind: Kind| {
        let name = format!("migrating::what_has_no_entry_waits_{}", kind.slug());
        Case::of(kind.cell(), name, move || waits(kind))
    };
    let stateless = |kind: &Kind| kind.is_stateless();
    let of_stateless = |kind: Kind| {
        let name = format!("migrating::nobody_waits_{}", kind.slug());
        Case::of(kind.cell(), name, move || goes_on(kind))
    };
    let all = Kind::all();
    let waiting = Kind::stateful().into_iter().map(case);
    waiting
        .chain(all.into_iter().filter(stateless).map(of_stateless))
        .collect()
}

/// Where a copy's header ends among the words of [`Control`].
const fn last_word(copy: usize) -> usize {
    (offset_of!(Control, copies) + (copy + 1) * size_of::<CopyHeader>()) / 8 - 1
}

/// Sets the mark in both copies, until a time in jiffies.
fn mark(world: &mut World, until: u64) -> anyhow::Result<()> {
    const UNTIL: usize = offset_of!(Control, migrating_until) / 8;
    /// The flags are the high half of a header's last word.
    const FLAGS: [usize; 2] = [last_word(0), last_word(1)];
    let map = world
        .dataplane
        .ebpf_mut()
        .map_mut("CONTROL")
        .context("no CONTROL")?;
    let mut control: Array<_, [u64; 16]> = Array::try_from(map)?;
    let mut words = control.get(&0, 0)?;
    for word in FLAGS {
        words[word] |= u64::from(CopyHeader::MIGRATING) << 32;
    }
    words[UNTIL] = until;
    Ok(control.set(0, words, 0)?)
}

fn waits(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[kind.service(2)])?;
    let known = kind.talk(1, 1);
    world.establish(&known)?;
    mark(&mut world, u64::MAX)?;
    world.both("a known one goes on", &known, |frame| frame)?;
    let unknown = kind.talk(2, 2);
    for frame in [unknown.client_opens(), unknown.client_says(b"data")] {
        world.unchanged("the client's of another", Outcome::Migrating, &frame)?;
    }
    if kind.is_answered() {
        for frame in [unknown.backend_accepts(), unknown.backend_says(b"answer")] {
            world.unchanged("the backend's of another", Outcome::Migrating, &frame)?;
        }
    }
    assert_eq!(world.connections()?.len(), 1);
    // Nobody has finished it.
    mark(&mut world, 1)?;
    world.open("as ever", &unknown)?;
    Ok(world.checked())
}

fn goes_on(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::new(&[kind.service(1)])?;
    mark(&mut world, u64::MAX)?;
    let talk = kind.talk(1, 1);
    world.open("there is nothing to wait for", &talk)?;
    Ok(world.checked())
}
