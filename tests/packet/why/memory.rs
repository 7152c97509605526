//! Every byte of every map that the program which counts shares with the one that explains.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, PerCpuArray};
use lb_common::abi::BACKEND_IDS;
use memmap2::{MmapOptions, MmapRaw};

use crate::world::World;

/// Written by the daemon alone: remembered when it has written.
const CONFIGURATION: [&str; 8] = [
    "CONTROL",
    "SERVICE_TABLE",
    "ENDPOINT_TABLE",
    "SIBLINGS",
    "SERVICES",
    "BACKENDS",
    "OUTERS",
    "SLOTS",
];
/// Written by the program: remembered after each packet.
const STATE: [&str; 7] = [
    "SERVICE_STATES",
    "BACKEND_STATES",
    "CONNECTIONS",
    "WIDE_CONNECTIONS",
    "PORTS",
    "PRESSURE",
    "RETURN_HOP_TABLE",
];

/// The maps, and what they held when that was remembered.
pub struct Memory {
    arrays: Vec<Array>,
    others: Others,
    /// Backends that there are.
    ids: Vec<u16>,
    /// What was counted of all the others.
    nobodys: Vec<[u64; 5]>,
}

struct Array {
    name: &'static str,
    is_state: bool,
    memory: MmapRaw,
    remembered: Vec<u8>,
}

/// Maps that cannot be mapped, and counters.
#[derive(Default, PartialEq, Eq)]
struct Others {
    fragments: BTreeMap<[u8; 40], [u8; 32]>,
    icmp_sent: Vec<Vec<u64>>,
    outcomes: Vec<u64>,
    backends: Vec<[u64; 5]>,
    evicted: u64,
}

impl Array {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has so many bytes; nobody writes to them while a test looks.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.memory.len()) }
    }
}

impl Memory {
    pub fn of(world: &mut World, ids: Vec<u16>) -> anyhow::Result<Self> {
        let mut arrays = Vec::new();
        for (name, is_state) in CONFIGURATION
            .map(|name| (name, false))
            .into_iter()
            .chain(STATE.map(|name| (name, true)))
        {
            let Some(Map::Array(array)) = world.dataplane.ebpf_mut().map(name) else {
                anyhow::bail!("there is no array {name}");
            };
            let info = array.info()?;
            let memory = MmapOptions::new()
                .len(info.value_size() as usize * info.max_entries() as usize)
                .map_raw_read_only(array.fd().as_fd().as_raw_fd())?;
            arrays.push(Array {
                name,
                is_state,
                memory,
                remembered: Vec::new(),
            });
        }
        let mut memory = Self {
            arrays,
            others: Others::default(),
            nobodys: nobodys(world, &ids)?,
            ids,
        };
        memory.remember(world)?;
        Ok(memory)
    }

    /// Remembers everything.
    pub fn remember(&mut self, world: &World) -> anyhow::Result<()> {
        for array in &mut self.arrays {
            array.remembered = array.bytes().to_vec();
        }
        self.others = Others::of(world, &self.ids)?;
        Ok(())
    }

    /// Remembers what the program writes.
    pub fn remember_state(&mut self, world: &World) -> anyhow::Result<()> {
        for array in self.arrays.iter_mut().filter(|array| array.is_state) {
            array.remembered = array.bytes().to_vec();
        }
        self.others = Others::of(world, &self.ids)?;
        Ok(())
    }

    /// Of ids that no backend has, nothing was ever counted, by neither of the programs.
    pub fn is_as_remembered_of_nobody(&self, world: &World) -> anyhow::Result<()> {
        ensure!(
            nobodys(world, &self.ids)? == self.nobodys,
            "BACKEND_COUNTERS has changed"
        );
        Ok(())
    }

    pub fn is_as_remembered(&self, world: &World) -> anyhow::Result<()> {
        for array in &self.arrays {
            let (now, before) = (array.bytes(), &array.remembered[..]);
            if now != before {
                let at = now.iter().zip(before).position(|(now, before)| now != before);
                anyhow::bail!("{} has changed at byte {at:?}", array.name);
            }
        }
        let now = Others::of(world, &self.ids)?;
        ensure!(now.fragments == self.others.fragments, "FRAGMENTS has changed");
        ensure!(now.icmp_sent == self.others.icmp_sent, "ICMP_SENT has changed");
        ensure!(
            now.outcomes == self.others.outcomes,
            "OUTCOME_COUNTERS has changed"
        );
        ensure!(
            now.backends == self.others.backends,
            "BACKEND_COUNTERS has changed"
        );
        ensure!(now.evicted == self.others.evicted, "EVICTIONS has changed");
        Ok(())
    }
}

/// The counters of ids that no backend has.
fn nobodys(world: &World, ids: &[u16]) -> anyhow::Result<Vec<[u64; 5]>> {
    let nobody = (0..BACKEND_IDS as u16).filter(|id| !ids.contains(id));
    nobody.map(|id| counted(world, id)).collect()
}

fn counted(world: &World, id: u16) -> anyhow::Result<[u64; 5]> {
    let counted = world.dataplane.counters().backend(id)?;
    Ok([
        counted.opened,
        counted.packets_in,
        counted.bytes_in,
        counted.packets_out,
        counted.bytes_out,
    ])
}

impl Others {
    fn of(world: &World, ids: &[u16]) -> anyhow::Result<Self> {
        let ebpf = world.dataplane.ebpf();
        let fragments: HashMap<_, [u8; 40], [u8; 32]> =
            HashMap::try_from(ebpf.map("FRAGMENTS").context("no FRAGMENTS")?)?;
        let icmp_sent: PerCpuArray<_, u64> =
            PerCpuArray::try_from(ebpf.map("ICMP_SENT").context("no ICMP_SENT")?)?;
        let counters = world.dataplane.counters();
        let icmp_sent = (0..icmp_sent.len()).map(|group| Ok(icmp_sent.get(&group, 0)?.to_vec()));
        Ok(Self {
            fragments: fragments.iter().collect::<Result<_, _>>()?,
            icmp_sent: icmp_sent.collect::<anyhow::Result<_>>()?,
            outcomes: counters.outcomes()?.into_iter().map(|(_, count)| count).collect(),
            backends: ids
                .iter()
                .map(|id| counted(world, *id))
                .collect::<Result<_, _>>()?,
            evicted: counters.evicted()?,
        })
    }
}
