//! Out again: which interface a packet leaves by, and the one place where an outcome becomes an XDP action.

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_action};
use aya_ebpf::helpers::{self, bpf_redirect};
use aya_ebpf::programs::XdpContext;
use lb_common::outcome::{Action, Outcome};
use lb_common::wire::ethernet::{Ethernet, Mac};
use lb_common::wire::ipv4::PROTOCOL_TCP;

use crate::counters;

/// What becomes of a packet.
pub struct Verdict {
    pub outcome: Outcome,
    /// Where to, if the outcome is to redirect.
    pub interface_index: u32,
}

impl From<Outcome> for Verdict {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            interface_index: 0,
        }
    }
}

/// Counts the outcome and turns it into an action.
#[inline(always)]
pub fn carry_out(context: &XdpContext, verdict: Verdict) -> u32 {
    counters::count(verdict.outcome);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        context,
        "outcome {} interface {}",
        verdict.outcome as u32,
        verdict.interface_index
    );
    match verdict.outcome.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        Action::Redirect if verdict.interface_index == context.ingress_ifindex() as u32 => xdp_action::XDP_TX,
        // SAFETY: the helper only notes the interface's index; what there is none of is dropped by the kernel.
        Action::Redirect => unsafe { bpf_redirect(verdict.interface_index, 0) as u32 },
    }
}

/// Where the routing table sends a packet.
pub enum Route {
    /// To this neighbour through this interface.
    Known(Ethernet, u32),
    /// Somewhere, but the neighbour's address is not known yet: the kernel will ask for it.
    Kernel,
    /// Nowhere else: to the host itself, or refused.
    NotForwarded,
}

/// Asks the routing table. Not inlined: only packets whose next hop is not known pay for it.
#[inline(never)]
pub fn route(context: &XdpContext, source: u32, destination: u32, length: u16) -> Route {
    // SAFETY: integers and arrays of them; all zeros are valid.
    let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    parameters.family = 2; // AF_INET
    parameters.l4_protocol = PROTOCOL_TCP;
    parameters.__bindgen_anon_1.tot_len = length;
    parameters.__bindgen_anon_3.ipv4_src = source;
    parameters.__bindgen_anon_4.ipv4_dst = destination;
    parameters.ifindex = context.ingress_ifindex() as u32;
    // SAFETY: the parameters are initialised and as long as the helper is told.
    let result = unsafe {
        helpers::generated::bpf_fib_lookup(
            context.ctx.cast(),
            &raw mut parameters,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => Route::Known(
            Ethernet {
                destination: Mac::from_bytes(parameters.dmac),
                source: Mac::from_bytes(parameters.smac),
            },
            parameters.ifindex,
        ),
        BPF_FIB_LKUP_RET_NO_NEIGH => Route::Kernel,
        _ => Route::NotForwarded,
    }
}
