//! Saying what is decided, and doing none of it.
//!
//! The daemon loads this object a second time over the same maps: for `lbctl why` as one that only says what it would do
//! ([`DRY_RUN`]), for `lbctl trace` as one that is called instead of the attached one. Both note their decisions ([`EXPLAIN`]). In
//! the attached one both constants are 0, and the verifier takes everything out that hangs on them.
//!
//! What is shared is written by way of [`crate::word::SharedWord`], which does nothing in a dry run. Beyond that there are two
//! places: notes on fragments, and the times of ICMP errors. Counters, and what one program leaves for the next, are maps of
//! the second instance's own.

use aya_ebpf::programs::XdpContext;
use lb_common::explain::{Decision, MAX_STEPS, Notes, Step};
use lb_common::outcome::Outcome;

use crate::global;
use crate::maps::{DRY_RUN, EXPLAIN, NOTES, TRACE};

/// Whether decisions are noted.
#[inline(always)]
pub fn is_asked() -> bool {
    EXPLAIN.load() != 0
}

/// Whether nothing is to be written.
#[inline(always)]
pub fn is_dry() -> bool {
    DRY_RUN.load() != 0
}

/// Notes a decision, if it is asked for.
#[inline(always)]
pub fn note(what: Decision, first: u64, second: u64) {
    if is_asked() {
        global::take_note(what as u32, first, second);
    }
}

/// The same without a call, where another function's frame would be more stack than there is (512 bytes; Linux 6.1 counts each
/// frame in steps of 32 and at least that, also of calls that it never gets to).
#[inline(always)]
pub fn note_within(what: Decision, first: u64, second: u64) {
    if is_asked() {
        take_note(what as u32, first, second);
    }
}

/// Notes what becomes of a packet, and sends what was noted, if it is asked for.
#[inline(always)]
pub fn end(context: &XdpContext, outcome: Outcome, interface_index: u32) {
    if is_asked() {
        global::take_note(Decision::Outcome as u32, outcome as u64, interface_index.into());
        if TRACE.load() != 0 {
            global::send_notes(context.ctx, outcome as u32);
        }
    }
}

/// What [`note`] calls.
#[inline(always)]
pub fn take_note(what: u32, first: u64, second: u64) -> u64 {
    let Some(notes) = notes() else { return 0 };
    let at = notes.count as usize;
    if at < MAX_STEPS
        && let Some(step) = notes.steps.get_mut(at % MAX_STEPS)
    {
        *step = Step {
            what: u64::from(what),
            first,
            second,
        };
    }
    notes.count += 1;
    0
}

/// How many slots of the service's round were chosen before for this packet, in a dry run: so far would the cursor be.
#[inline(always)]
pub fn rounds() -> u64 {
    let Some(notes) = notes() else { return 0 };
    notes.rounds += 1;
    notes.rounds - 1
}

/// What is noted on this CPU.
#[inline(always)]
pub fn notes() -> Option<&'static mut Notes> {
    // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
    NOTES.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}
