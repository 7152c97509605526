//! The XDP program. The files beside this one are the life of a packet, in this order:
//!
//! `pipeline` (the stages at a glance) → `parse` → `service_lookup` → `connection_table` → (`new_connection` →
//! `backend_choice`, `own_ports`) → `mtu` → `rewrite` or `encapsulate` → `forward`; or `refuse`; `counters` on the way.
//! Aside from that `fragment`, `icmp`, and `icmp_error`, which the balancer says itself. `packet` is the one door to the
//! frame's bytes, `maps` the one to what the daemon shares. Whatever can be decided without either lies in `lb-common`,
//! where it is tested on the host.

#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    feature(core_intrinsics, asm_experimental_arch),
    allow(internal_features)
)]
// A program is one crate: what its modules share needs no visibility beyond it.
#![allow(unreachable_pub)]

#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod backend_choice;
#[cfg(target_arch = "bpf")]
mod connection_table;
#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod encapsulate;
#[cfg(target_arch = "bpf")]
mod explain;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragment;
#[cfg(target_arch = "bpf")]
mod global;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod icmp_error;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod mtu;
#[cfg(target_arch = "bpf")]
mod new_connection;
#[cfg(target_arch = "bpf")]
mod own_ports;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod parse;
#[cfg(target_arch = "bpf")]
mod pipeline;
#[cfg(target_arch = "bpf")]
mod refuse;
#[cfg(target_arch = "bpf")]
mod rewrite;
#[cfg(target_arch = "bpf")]
mod service_lookup;
#[cfg(target_arch = "bpf")]
mod trace;
#[cfg(target_arch = "bpf")]
mod untracked_answer;
#[cfg(target_arch = "bpf")]
mod word;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::helpers::generated::bpf_jiffies64;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use lb_common::abi::ABI_VERSION;

    use lb_common::family::{Ipv4, Ipv6};

    use crate::packet::{Packet, Writable as _};
    use crate::{answer, forward, fragment, icmp, new_connection, pipeline, trace, untracked_answer};

    /// Balances: this is the program that is attached. It decides about ordinary packets itself and leaves everything
    /// else to the others, each of which the kernel's verifier looks at by itself.
    #[xdp]
    #[inline(always)]
    pub fn lb(context: XdpContext) -> u32 {
        forward::carry_out(&context, pipeline::run(&context))
    }

    /// IPv4 that is not ordinary.
    #[xdp]
    #[inline(always)]
    pub fn lb_ipv4(context: XdpContext) -> u32 {
        forward::carry_out(&context, pipeline::run_family::<Ipv4, 1>(&context))
    }

    /// IPv6 that is not ordinary.
    // Not always inlined: with that, the verifier of Linux 6.1 takes five times as many steps.
    #[xdp]
    pub fn lb_ipv6(context: XdpContext) -> u32 {
        forward::carry_out(&context, pipeline::run_family::<Ipv6, 3>(&context))
    }

    /// IPv4 of services of several ports.
    #[xdp]
    #[inline(always)]
    pub fn lb_ipv4_wide(context: XdpContext) -> u32 {
        forward::carry_out(&context, pipeline::run_family::<Ipv4, 3>(&context))
    }

    /// Packets of connections that are not known, IPv4.
    #[xdp]
    #[inline(always)]
    pub fn lb_new_ipv4(context: XdpContext) -> u32 {
        forward::carry_out(&context, new_connection::run::<Ipv4, 1>(&context))
    }

    /// Likewise, of services of several ports.
    #[xdp]
    #[inline(always)]
    pub fn lb_new_ipv4_wide(context: XdpContext) -> u32 {
        forward::carry_out(&context, new_connection::run::<Ipv4, 3>(&context))
    }

    /// Likewise, IPv6.
    #[xdp]
    #[inline(always)]
    pub fn lb_new_ipv6(context: XdpContext) -> u32 {
        forward::carry_out(&context, new_connection::run::<Ipv6, 3>(&context))
    }

    /// Backends' packets of connections that are not known, IPv4.
    #[xdp]
    #[inline(always)]
    pub fn lb_untracked_ipv4(context: XdpContext) -> u32 {
        forward::carry_out(&context, untracked_answer::run::<Ipv4, 1>(&context))
    }

    /// Likewise, of services of several ports.
    #[xdp]
    #[inline(always)]
    pub fn lb_untracked_ipv4_wide(context: XdpContext) -> u32 {
        forward::carry_out(&context, untracked_answer::run::<Ipv4, 3>(&context))
    }

    /// Likewise, IPv6.
    #[xdp]
    #[inline(always)]
    pub fn lb_untracked_ipv6(context: XdpContext) -> u32 {
        forward::carry_out(&context, untracked_answer::run::<Ipv6, 3>(&context))
    }

    /// Packets that are answered in a backend's stead, IPv4.
    #[xdp]
    #[inline(always)]
    pub fn lb_answer_ipv4(context: XdpContext) -> u32 {
        forward::carry_out(&context, answer::run::<Ipv4>(&context))
    }

    /// Likewise, IPv6.
    #[xdp]
    #[inline(always)]
    pub fn lb_answer_ipv6(context: XdpContext) -> u32 {
        forward::carry_out(&context, answer::run::<Ipv6>(&context))
    }

    /// ICMP.
    #[xdp]
    #[inline(always)]
    pub fn lb_icmp(context: XdpContext) -> u32 {
        forward::carry_out(&context, icmp::run::<Ipv4>(&context))
    }

    /// ICMPv6.
    #[xdp]
    #[inline(always)]
    pub fn lb_icmpv6(context: XdpContext) -> u32 {
        forward::carry_out(&context, icmp::run::<Ipv6>(&context))
    }

    /// Later IPv4 fragments.
    #[xdp]
    #[inline(always)]
    pub fn lb_ipv4_fragment(context: XdpContext) -> u32 {
        forward::carry_out(&context, fragment::run::<Ipv4, 1>(&context))
    }

    /// Later IPv6 fragments.
    #[xdp]
    #[inline(always)]
    pub fn lb_ipv6_fragment(context: XdpContext) -> u32 {
        forward::carry_out(&context, fragment::run::<Ipv6, 3>(&context))
    }

    /// The first program of a second instance that traces: it is called instead of the attached one, notes the frame, and lets
    /// its own instance decide.
    #[xdp]
    #[inline(always)]
    pub fn lb_traced(context: XdpContext) -> u32 {
        forward::carry_out(&context, Err(trace::begin(&context)))
    }

    /// Writes the kernel's jiffies into the first eight bytes of the frame. Never attached: the daemon runs it through
    /// the kernel's program runner to know what time it is in the connection table.
    #[xdp]
    #[inline(always)]
    pub fn lb_clock(context: XdpContext) -> u32 {
        let Some(mut window) = Packet::of(&context).window_mut::<8>(0) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: the helper has no preconditions.
        let jiffies = unsafe { bpf_jiffies64() };
        window.set::<u32, 0>(jiffies as u32);
        window.set::<u32, 4>((jiffies >> 32) as u32);
        xdp_action::XDP_PASS
    }

    /// What the daemon compares with its own before it loads anything.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "lb_abi")]
    static LB_ABI: u32 = ABI_VERSION;

    /// `bpf_fib_lookup` is only for programs under a licence compatible with the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // Nothing in this crate can panic; if something could, the verifier would refuse the endless loop.
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
