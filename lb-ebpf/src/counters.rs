//! Counting: one counter for each outcome, five for each backend, each CPU its own.

use lb_common::abi::BackendCounters;
use lb_common::outcome::Outcome;

use crate::maps::{BACKEND_COUNTERS, OUTCOME_COUNTERS};

/// One more packet came to this outcome.
#[inline(always)]
pub fn count(outcome: Outcome) {
    if let Some(counter) = OUTCOME_COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
        unsafe { *counter += 1 };
    }
}

/// A packet went to a backend.
#[inline(always)]
pub fn to_backend(id: u16, bytes: usize) {
    update(id, |counters| {
        counters.packets_in += 1;
        counters.bytes_in += bytes as u64;
    });
}

/// A packet came from a backend.
#[inline(always)]
pub fn to_client(id: u16, bytes: usize) {
    update(id, |counters| {
        counters.packets_out += 1;
        counters.bytes_out += bytes as u64;
    });
}

/// A connection was opened to a backend.
#[inline(always)]
pub fn opened(id: u16) {
    update(id, |counters| counters.opened += 1);
}

#[inline(always)]
fn update(id: u16, change: impl FnOnce(&mut BackendCounters)) {
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(id)) {
        // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
        change(unsafe { &mut *counters });
    }
}
