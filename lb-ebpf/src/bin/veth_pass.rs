//! An XDP program that passes everything, for the lab and the tests only.
//!
//! veth drops a frame that XDP transmits or redirects into it unless the end that receives it has an XDP program too
//! (Linux 5.10 to 7.3, `veth_xdp_xmit`); real network cards have no such rule. This is that program: no maps, nothing
//! else, so that `ip link set dev DEVICE xdpdrv object FILE section xdp` loads it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;

    /// Passes the frame up, unread.
    #[xdp]
    fn veth_pass(_frame: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
