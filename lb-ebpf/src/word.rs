//! Shared words with the instructions that BPF has.

use core::cell::UnsafeCell;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

use lb_common::word::Word;

use crate::explain::is_dry;

/// A word that other CPUs and user space read and write; in a dry run it is only read, and what would be written to it is
/// decided all the same. `AtomicU64` offers neither compare-and-swap nor fetch-and-add
/// on this target, though the processor has both since v3; the intrinsics do.
#[repr(transparent)]
pub struct SharedWord(UnsafeCell<u64>);

// SAFETY: every access is a single instruction, atomic where two CPUs may write.
unsafe impl Sync for SharedWord {}

impl SharedWord {
    /// Adds one; what it was before.
    ///
    /// `SeqCst` and nothing weaker: LLVM 22 compiles a relaxed fetch-and-add to one that does not fetch.
    #[inline(always)]
    pub fn fetch_increment(&self) -> u64 {
        self.fetch_increment_after(|| 0)
    }

    /// The same; in a dry run what it would be if this packet had added as many `before`.
    #[inline(always)]
    pub fn fetch_increment_after(&self, before: impl FnOnce() -> u64) -> u64 {
        if is_dry() {
            return self.load().wrapping_add(before());
        }
        // SAFETY: the word is valid and aligned for as long as the map that it lies in.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), 1) }
    }
}

impl Word for SharedWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: as above. A volatile load of an aligned word is the single load that is wanted.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        if is_dry() {
            return;
        }
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(value) }
    }

    #[inline(always)]
    fn publish(&self, value: u64) {
        if is_dry() {
            return;
        }
        // There is no store-release before v4; an exchange is a full barrier.
        // SAFETY: as above.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(self.0.get(), value) };
    }

    #[inline(always)]
    fn compare_exchange(&self, current: u64, new: u64) -> bool {
        if is_dry() {
            return self.load() == current;
        }
        // SAFETY: as above.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                current,
                new,
            )
        };
        done
    }
}
