//! XDP programs for the bench of packets per second through veths: the least that forwarding can cost, where frames end, and
//! what an interface needs that takes frames and has no program of its own.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// A program is one crate: what its modules share needs no visibility beyond it.
#![allow(unreachable_pub)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::Global;
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::helpers::generated::bpf_redirect;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;

    /// The interface that [`redirect`] sends frames out of.
    #[unsafe(no_mangle)]
    static TO: Global<u32> = Global::new(0);

    /// Where the source address of an IPv4 packet begins, from the frame's begin.
    const SOURCE: usize = 26;
    /// The begin of the addresses of the frame generator's clients: 198.19.0.0/16.
    const NOBODY: u16 = u16::from_ne_bytes([198, 19]);

    /// The bare program: everything goes out of one interface, unread.
    #[xdp]
    pub fn redirect(_: XdpContext) -> u32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(TO.load(), 0) as u32 }
    }

    /// Drops what the generator has made, and passes the rest.
    #[xdp]
    pub fn sink(context: XdpContext) -> u32 {
        let source = context.data() + SOURCE;
        if source + size_of::<u16>() > context.data_end() {
            return xdp_action::XDP_PASS;
        }
        // SAFETY: inside the frame; the kernel knows where unaligned accesses to it are allowed.
        if unsafe { *(source as *const u16) } == NOBODY {
            xdp_action::XDP_DROP
        } else {
            xdp_action::XDP_PASS
        }
    }

    /// Passes the frame up, unread.
    #[xdp]
    pub fn pass(_: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // Nothing in this crate can panic; if something could, the verifier would refuse the endless loop.
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
