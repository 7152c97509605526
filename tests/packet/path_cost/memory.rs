//! What the interpreted program sees as memory: the frame, its stack, the constants, and the maps of a loaded program, of which
//! those that user space can map are the very same.
//!
//! An address is a region's number and an offset in it, so that whatever lies outside is found out.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, bail};
use aya::maps::Map;
use lb::dataplane::Dataplane;
use lb_common::hash::Seed;
use memmap2::{MmapMut, MmapOptions};

use super::code::Code;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
const REGION_SHIFT: u32 = 40;
const OFFSET_MASK: u64 = (1 << REGION_SHIFT) - 1;

pub const CONTEXT: u64 = 1 << REGION_SHIFT;
pub const FRAME: u64 = 2 << REGION_SHIFT;
pub const STACK: u64 = 3 << REGION_SHIFT;
pub const CONSTANTS: u64 = 4 << REGION_SHIFT;
const FIRST_MAP: u64 = 16;
pub const STACK_OF_A_FUNCTION: u64 = 512;
const FUNCTIONS_AT_A_TIME: usize = 8;

pub struct Memory {
    pub frame: Vec<u8>,
    stack: Vec<u8>,
    constants: Vec<u8>,
    maps: Vec<MapMemory>,
}

struct MapMemory {
    bytes: Bytes,
    stride: u64,
    elements: u64,
}

enum Bytes {
    Shared(MmapMut),
    Own(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn get_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl Memory {
    pub fn of(dataplane: &Dataplane, code: &Code) -> anyhow::Result<Self> {
        let ebpf = dataplane.ebpf();
        // What the daemon has taken for itself: arrays of each CPU, and programs. Here they are one CPU's, and empty.
        let taken: BTreeMap<&str, u64> = BTreeMap::from([
            ("OUTCOME_COUNTERS", 8),
            ("BACKEND_COUNTERS", 40),
            ("EVICTIONS", 24),
            ("PROGRAMS", 4),
        ]);
        let mut maps = Vec::new();
        for name in &code.maps {
            if let Some(stride) = taken.get(name.as_str()) {
                maps.push(MapMemory::own(*stride, 8192));
                continue;
            }
            maps.push(match ebpf.map(name).with_context(|| format!("no map {name}"))? {
                Map::Array(map) if map.info()?.map_flags() & MMAPABLE != 0 => {
                    let info = map.info()?;
                    let (stride, elements) = (info.value_size().next_multiple_of(8), info.max_entries());
                    // SAFETY: what others write there meanwhile is words.
                    let bytes = unsafe {
                        MmapOptions::new()
                            .len((stride * elements) as usize)
                            .map_mut(map.fd().as_fd().as_raw_fd())?
                    };
                    MapMemory {
                        bytes: Bytes::Shared(bytes),
                        stride: stride.into(),
                        elements: elements.into(),
                    }
                }
                Map::PerCpuArray(map) => {
                    let info = map.info()?;
                    MapMemory::own(
                        info.value_size().next_multiple_of(8).into(),
                        info.max_entries().into(),
                    )
                }
                // Nothing is ever found there.
                _ => MapMemory::own(8, 0),
            });
        }
        let Some(Map::Array(constants)) = ebpf.map(".rodata") else {
            bail!("no map .rodata");
        };
        let mut constants = only_element(constants, code.constants)?;
        // Another secret is another bucket, and a branch more or less on the way there.
        let seed = constants.iter_mut().skip(code.table_seed as usize);
        seed.zip(1..=size_of::<Seed>() as u8)
            .for_each(|(byte, value)| *byte = value);
        Ok(Self {
            frame: Vec::new(),
            stack: vec![0; FUNCTIONS_AT_A_TIME * STACK_OF_A_FUNCTION as usize],
            constants,
            maps,
        })
    }

    /// The address of an element; 0: there is none.
    pub fn element(&self, map: usize, index: u64) -> u64 {
        match self.maps.get(map) {
            Some(found) if index < found.elements => {
                ((FIRST_MAP + map as u64) << REGION_SHIFT) + index * found.stride
            }
            _ => 0,
        }
    }

    fn region(&self, address: u64) -> Option<&[u8]> {
        Some(match address >> REGION_SHIFT << REGION_SHIFT {
            FRAME => &self.frame,
            STACK => &self.stack,
            CONSTANTS => &self.constants,
            region => {
                let map = (region >> REGION_SHIFT).checked_sub(FIRST_MAP)? as usize;
                self.maps.get(map)?.bytes.get()
            }
        })
    }

    fn region_mut(&mut self, address: u64) -> Option<&mut [u8]> {
        Some(match address >> REGION_SHIFT << REGION_SHIFT {
            FRAME => &mut self.frame,
            STACK => &mut self.stack,
            region => {
                let map = (region >> REGION_SHIFT).checked_sub(FIRST_MAP)? as usize;
                self.maps.get_mut(map)?.bytes.get_mut()
            }
        })
    }

    pub fn load(&self, address: u64, size: usize) -> anyhow::Result<u64> {
        let from = (address & OFFSET_MASK) as usize;
        let bytes = self
            .region(address)
            .and_then(|region| region.get(from..from + size));
        let bytes = bytes.with_context(|| format!("{size} bytes at {address:#x} are read"))?;
        let mut word = [0; 8];
        word[..size].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(word))
    }

    pub fn store(&mut self, address: u64, size: usize, value: u64) -> anyhow::Result<()> {
        let from = (address & OFFSET_MASK) as usize;
        let bytes = self
            .region_mut(address)
            .and_then(|region| region.get_mut(from..from + size));
        let bytes = bytes.with_context(|| format!("{size} bytes at {address:#x} are written"))?;
        bytes.copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }
}

impl MapMemory {
    fn own(stride: u64, elements: u64) -> Self {
        Self {
            bytes: Bytes::Own(vec![0; (stride * elements) as usize]),
            stride,
            elements,
        }
    }
}

/// The first element of a map whose elements have a length that is not known before.
fn only_element(map: &aya::maps::MapData, length: usize) -> anyhow::Result<Vec<u8>> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    let (key, mut value) = (0u32, vec![0u8; length.next_multiple_of(8)]);
    // union bpf_attr: map_fd, padding, key, value, flags
    let attributes = [
        map.fd().as_fd().as_raw_fd() as u64,
        (&raw const key) as u64,
        value.as_mut_ptr() as u64,
        0,
    ];
    // SAFETY: the key has four bytes, and there is room for the value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result != 0 {
        bail!(
            "the constants cannot be read: {}",
            std::io::Error::last_os_error()
        );
    }
    Ok(value)
}
