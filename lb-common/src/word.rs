//! The one way to touch memory that several CPUs, or the kernel and user space, share.

/// A 64-bit word in shared memory. The kernel program implements it with the instructions that BPF has (it has no
/// load-acquire), user space and tests with [`core::sync::atomic::AtomicU64`].
pub trait Word {
    /// A single load; no order is implied.
    fn load(&self) -> u64;
    /// A single store; no order is implied.
    fn store(&self, value: u64);
    /// Stores `value`; everything stored before is visible to whoever sees it.
    fn publish(&self, value: u64);
    /// Stores `new` if the word is `current`; whether it did. Sequentially consistent.
    fn compare_exchange(&self, current: u64, new: u64) -> bool;
}

#[cfg(not(target_arch = "bpf"))]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(core::sync::atomic::Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        self.store(value, core::sync::atomic::Ordering::Relaxed);
    }

    fn publish(&self, value: u64) {
        self.store(value, core::sync::atomic::Ordering::SeqCst);
    }

    fn compare_exchange(&self, current: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::SeqCst;
        self.compare_exchange(current, new, SeqCst, SeqCst).is_ok()
    }
}
