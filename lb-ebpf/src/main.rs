//! The XDP program. The files beside this one are the life of a packet, in this order:
//!
//! `pipeline` (the stages at a glance) → `parse` → `service_lookup` → `connection_table` → (`new_connection` →
//! `backend_choice`) → `rewrite` → `forward`, or `refuse`; `counters` on the way. `packet` is the one door to the frame's
//! bytes, `maps` the one to what the daemon shares. Whatever can be decided without either lies in `lb-common`, where it
//! is tested on the host.

#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    feature(core_intrinsics),
    allow(internal_features)
)]
// A program is one crate: what its modules share needs no visibility beyond it.
#![allow(unreachable_pub)]

#[cfg(target_arch = "bpf")]
mod backend_choice;
#[cfg(target_arch = "bpf")]
mod connection_table;
#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod new_connection;
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
mod word;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::helpers::generated::bpf_jiffies64;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use lb_common::abi::ABI_VERSION;

    use crate::packet::Packet;
    use crate::{forward, pipeline};

    /// Balances.
    #[xdp]
    pub fn lb(context: XdpContext) -> u32 {
        forward::carry_out(&context, pipeline::run(&context))
    }

    /// Writes the kernel's jiffies into the first eight bytes of the frame. Never attached: the daemon runs it through
    /// the kernel's program runner to measure the tick and to know what time it is in the connection table.
    #[xdp]
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
