//! Answering a packet in a backend's stead: with an ICMP "too big", a RST, or an ICMP "port unreachable". Programs of their own,
//! to which the others leave the frame, saying what is to be answered in an element of this CPU's.

use aya_ebpf::programs::XdpContext;
use lb_common::outcome::Outcome;

use crate::forward::Verdict;
use crate::icmp_error::{self, Says};
use crate::maps::ANSWER;
use crate::packet::Packet;
use crate::parse::parse;
use crate::pipeline::{Path, go_on};
use crate::refuse::{Refuse, refuse};

/// What is to be answered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Answer {
    /// The [`Outcome`]'s index.
    outcome: u32,
    /// Of a packet that is too big: how big it may be, in bytes.
    mtu: u32,
}

/// Leaves the frame to the program that answers it; does not come back.
#[inline(always)]
pub fn answer<F: Path<K>, const K: usize>(context: &XdpContext, outcome: Outcome, mtu: u32) -> Outcome {
    let Some(answer) = ANSWER.get_ptr_mut(0) else {
        return Outcome::Impossible;
    };
    // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
    unsafe {
        (*answer).outcome = outcome as u32;
        (*answer).mtu = mtu;
    }
    go_on(context, F::ANSWER_STAGE)
}

/// Answers.
#[inline(always)]
pub fn run<F: Refuse>(context: &XdpContext) -> Result<Verdict, Outcome> {
    Err(judge::<F>(context))
}

#[inline(always)]
fn judge<F: Refuse>(context: &XdpContext) -> Outcome {
    let Some(answer) = ANSWER.get_ptr_mut(0) else {
        return Outcome::Impossible;
    };
    // SAFETY: as above.
    let Answer { outcome, mtu } = unsafe { *answer };
    let outcome = Outcome::from_index(outcome).unwrap_or(Outcome::Impossible);
    if outcome == Outcome::TooBig {
        return if icmp_error::answer::<F>(context, Says::TooBig(mtu)) {
            Outcome::TooBig
        } else {
            Outcome::TooBigUnanswered
        };
    }
    match parse::<F>(&Packet::of(context)) {
        Ok(segment) => refuse(context, &segment, outcome),
        Err(outcome) => outcome,
    }
}
