//! An array map as memory: reading and writing it costs no system call.

use std::marker::PhantomData;
use std::os::fd::AsFd as _;

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::DataplaneError;

/// The elements of a memory-mapped array map. The kernel program, and other processes, may change them at any time.
#[derive(Debug)]
pub(super) struct MappedArray<T> {
    memory: MmapRaw,
    length: usize,
    element: PhantomData<T>,
}

impl<T> MappedArray<T> {
    /// Maps an array map whose values have T's layout.
    pub(super) fn new(name: &'static str, map: &MapData) -> Result<Self, DataplaneError> {
        let failed = |reason: String| DataplaneError::Map { map: name, reason };
        let info = map.info().map_err(|error| failed(error.to_string()))?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(failed(format!(
                "its values have {} bytes, not {}",
                info.value_size(),
                size_of::<T>()
            )));
        }
        // The kernel rounds each element up to 8 bytes; every type here is a multiple of that.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let length = info.max_entries() as usize;
        let file = std::fs::File::from(
            map.fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|e| failed(e.to_string()))?,
        );
        let memory = MmapOptions::new()
            .len(length * size_of::<T>())
            .map_raw(&file)
            .map_err(|error| failed(format!("cannot map it into memory: {error}")))?;
        Ok(Self {
            memory,
            length,
            element: PhantomData,
        })
    }

    /// Its elements, of a type that may change under a shared reference.
    pub(super) fn shared(&self) -> &[T]
    where
        T: SharedElement,
    {
        // SAFETY: the mapping has `length` elements, page-aligned, and lives as long as self; every word is atomic.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<T>(), self.length) }
    }

    /// Its elements, of which only this process writes any and only through this.
    pub(super) fn exclusive(&mut self) -> &mut [T]
    where
        T: DaemonElement,
    {
        // SAFETY: as above; the kernel program only reads these maps, and a reader of a half-written element would only
        // be looking at a copy that is not active.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast::<T>(), self.length) }
    }
}

/// Elements that consist of atomic words.
///
/// # Safety
/// Only types made of [`std::sync::atomic::AtomicU64`].
pub(super) unsafe trait SharedElement {}

/// Elements that only the daemon writes.
///
/// # Safety
/// Any bytes must be a valid value.
pub(super) unsafe trait DaemonElement {}

type Word = std::sync::atomic::AtomicU64;
// SAFETY: made of atomic words.
unsafe impl SharedElement for lb_common::connection_table::Bucket<Word, 1> {}
// SAFETY: made of atomic words.
unsafe impl SharedElement for lb_common::connection_table::Bucket<Word, 3> {}
// SAFETY: made of atomic words.
unsafe impl SharedElement for lb_common::return_hop::HopSlot<Word> {}
// SAFETY: made of atomic words.
unsafe impl SharedElement for lb_common::abi::BackendState<Word> {}
// SAFETY: made of atomic words.
unsafe impl SharedElement for lb_common::abi::Pressure<Word> {}
// SAFETY: made of atomic words.
unsafe impl SharedElement for lb_common::abi::PortEntry<Word> {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::lookup_table::LookupBucket {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::abi::TableHeader {}
// SAFETY: integers.
unsafe impl DaemonElement for u64 {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::abi::Control {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::explain::TraceFilter {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::abi::Service {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::abi::Backend {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::abi::Outer {}
// SAFETY: integers.
unsafe impl DaemonElement for lb_common::abi::SlotLine {}
