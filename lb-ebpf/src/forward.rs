//! Out again: which interface a packet leaves by, and the one place where an outcome becomes an XDP action.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_action, xdp_md,
};
use aya_ebpf::helpers::{self, bpf_redirect};
use aya_ebpf::programs::XdpContext;
use lb_common::explain::{Answered, Decision};
use lb_common::family::{Family, Ipv4};
use lb_common::outcome::{Action, Outcome};
use lb_common::wire::ethernet::{Ethernet, Mac};

use crate::maps::ROUTE_QUERY;
use crate::{counters, explain, global};

/// What is done with a packet that leaves, changed as it must be: an XDP action. It has been counted.
pub struct Verdict(u32);

impl Verdict {
    /// The packet leaves by an interface. The outcome is one whose action is to redirect.
    #[inline(always)]
    pub fn leaves(context: &XdpContext, outcome: Outcome, interface_index: u32) -> Self {
        end(context, outcome, interface_index);
        if interface_index == context.ingress_ifindex() as u32 {
            return Self(xdp_action::XDP_TX);
        }
        // SAFETY: the helper only notes the interface's index; what there is none of is dropped by the kernel.
        Self(unsafe { bpf_redirect(interface_index, 0) } as u32)
    }
}

/// The action of a packet that leaves, or that of any other outcome, which is counted.
#[inline(always)]
pub fn carry_out(context: &XdpContext, verdict: Result<Verdict, Outcome>) -> u32 {
    match verdict {
        Ok(Verdict(action)) => action,
        Err(outcome) => {
            end(context, outcome, 0);
            match outcome.action() {
                Action::Pass => xdp_action::XDP_PASS,
                Action::Transmit => xdp_action::XDP_TX,
                // What is redirected has a verdict.
                Action::Drop | Action::Redirect => xdp_action::XDP_DROP,
            }
        }
    }
}

#[inline(always)]
fn end(context: &XdpContext, outcome: Outcome, interface_index: u32) {
    counters::count(outcome);
    explain::end(context, outcome, interface_index);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        context,
        "outcome {} interface {}",
        outcome as u32,
        interface_index
    );
}

/// Where a packet is sent. Not an enum with fields: what that leaves undefined, LLVM copies all the same, and the kernel's
/// verifier refuses it.
#[derive(Clone, Copy)]
pub struct Route {
    pub how: How,
    /// Addresses of the frame as words in memory order.
    pub ethernet: [u32; 3],
    pub interface_index: u32,
}

/// How a packet is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// To a neighbour that is known.
    Known,
    /// Somewhere, but by the kernel: it has to ask for the neighbour's address first, or to cut the packet into fragments.
    Kernel,
    /// Nowhere else: to the host itself, or refused.
    NotForwarded,
}

impl Route {
    /// To a neighbour.
    #[inline(always)]
    pub fn known(ethernet: [u32; 3], interface_index: u32) -> Self {
        Self {
            how: How::Known,
            ethernet,
            interface_index,
        }
    }

    /// By the kernel, or nowhere.
    #[inline(always)]
    pub fn other(how: How) -> Self {
        Self {
            how,
            ethernet: [0; 3],
            interface_index: 0,
        }
    }
}

/// A question to the routing table, and its answer. It lies in a map, one for each CPU: the way to it and back is a function of
/// its own, which takes nothing but scalars.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RouteQuery {
    source: [u64; 2],
    destination: [u64; 2],
    ethernet: [u32; 3],
    interface_index: u32,
    version: u64,
}

const FOUND: u64 = Answered::Found as u64;
const NO_NEIGHBOUR: u64 = Answered::NoNeighbour as u64;
const NO_ROUTE: u64 = Answered::NoRoute as u64;

/// Asks the routing table, whether or not the packet is too big for the way. Only packets whose next hop is not known pay for
/// it.
#[inline(always)]
pub fn route<F: Family>(context: &XdpContext, source: F::Address, destination: F::Address) -> Route {
    let Some(query) = ROUTE_QUERY.get_ptr_mut(0) else {
        return Route::other(How::NotForwarded);
    };
    // SAFETY: this CPU's own element; XDP programs do not interrupt each other on a CPU.
    let query = unsafe { &mut *query };
    query.source = F::widened(source);
    query.destination = F::widened(destination);
    query.version = u64::from(F::VERSION);
    let answered = global::ask_route(context.ctx);
    explain::note(Decision::Route, answered, u64::from(query.interface_index));
    let how = match answered {
        FOUND => How::Known,
        NO_NEIGHBOUR => How::Kernel,
        _ => How::NotForwarded,
    };
    Route {
        how,
        ethernet: query.ethernet,
        interface_index: query.interface_index,
    }
}

#[inline(always)]
fn words([low, high]: [u64; 2]) -> [u32; 4] {
    [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32]
}

/// Asks what [`ROUTE_QUERY`] says.
#[inline(always)]
pub fn ask(context: *mut xdp_md) -> u64 {
    let Some(query) = ROUTE_QUERY.get_ptr_mut(0) else {
        return NO_ROUTE;
    };
    // SAFETY: as above.
    let query = unsafe { &mut *query };
    // SAFETY: integers and arrays of them; all zeros are valid.
    let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    if query.version == 4 {
        parameters.family = 2; // AF_INET
        parameters.__bindgen_anon_3.ipv4_src = Ipv4::narrowed(query.source);
        parameters.__bindgen_anon_4.ipv4_dst = Ipv4::narrowed(query.destination);
    } else {
        parameters.family = 10; // AF_INET6
        parameters.__bindgen_anon_3.ipv6_src = words(query.source);
        parameters.__bindgen_anon_4.ipv6_dst = words(query.destination);
    }
    // SAFETY: the context is the program's own; the parameters are initialised and as long as the helper is told.
    let result = unsafe {
        parameters.ifindex = (*context).ingress_ifindex;
        helpers::generated::bpf_fib_lookup(
            context.cast(),
            &raw mut parameters,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => {
            let ethernet = Ethernet {
                destination: Mac::from_bytes(parameters.dmac),
                source: Mac::from_bytes(parameters.smac),
            };
            query.ethernet = ethernet.to_words();
            query.interface_index = parameters.ifindex;
            FOUND
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => NO_NEIGHBOUR,
        _ => NO_ROUTE,
    }
}
