//! An XDP program that unpacks tunnelled packets, for the lab's web servers only: what they would have a tunnel device for.
//!
//! IPv4 and IPv6 packets in IPv4 or IPv6 (RFC 2003, RFC 2473, RFC 4213), all four pairs; everything else passes unchanged.
//! Addresses are not looked at: the host takes what is addressed to it, inside as outside. No maps, nothing else, so that
//! `ip link set dev DEVICE xdpdrv object FILE section xdp` loads it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use network_types::eth::{EthHdr, EtherType};

    const ETHERNET: usize = EthHdr::LEN;
    /// The type of an Ethernet frame, from the frame's begin.
    const TYPE: usize = 12;
    const IPV6: usize = 40;
    /// More-fragments flag and fragment offset: a piece of a packet cannot be unpacked.
    const FRAGMENT: u16 = 0x3fff;
    /// Protocol numbers of a packet in a packet.
    const IPV4_INSIDE: u8 = 4;
    const IPV6_INSIDE: u8 = 41;

    /// Unpacks what is packed, and passes it up.
    #[xdp]
    fn decapsulate(context: XdpContext) -> u32 {
        // What is not unpacked passes as it is.
        let _ = unpack(&context);
        xdp_action::XDP_PASS
    }

    #[inline(always)]
    fn unpack(context: &XdpContext) -> Option<()> {
        let (length, inside) = outer_header(context)?;
        let kind = match inside {
            IPV4_INSIDE => EtherType::Ipv4 as u16,
            IPV6_INSIDE => EtherType::Ipv6 as u16,
            _ => return None,
        };
        let addresses: [u32; 3] = [field(context, 0)?, field(context, 4)?, field(context, 8)?];
        // SAFETY: the helper checks that the frame is longer than this; the frame is looked at anew below.
        if unsafe { bpf_xdp_adjust_head(context.ctx, length as i32) } != 0 {
            return None;
        }
        for (word, address) in addresses.into_iter().enumerate() {
            set_field(context, 4 * word, address)?;
        }
        set_field(context, TYPE, kind)
    }

    /// How long the outer header is, and the protocol of what is in it.
    #[inline(always)]
    fn outer_header(context: &XdpContext) -> Option<(usize, u8)> {
        let kind: u16 = field(context, TYPE)?;
        if kind == EtherType::Ipv4 as u16 {
            let first: u8 = field(context, ETHERNET)?;
            let fragment: u16 = field(context, ETHERNET + 6)?;
            if u16::from_be(fragment) & FRAGMENT != 0 {
                return None;
            }
            return Some((usize::from(first & 0xf) * 4, field(context, ETHERNET + 9)?));
        }
        if kind == EtherType::Ipv6 as u16 {
            return Some((IPV6, field(context, ETHERNET + 6)?));
        }
        None
    }

    /// Where a field of the frame is, if the frame is long enough.
    #[inline(always)]
    fn at<T>(context: &XdpContext, offset: usize) -> Option<*mut T> {
        let start = context.data() + offset;
        (start + size_of::<T>() <= context.data_end()).then_some(start as *mut T)
    }

    #[inline(always)]
    fn field<T: Copy>(context: &XdpContext, offset: usize) -> Option<T> {
        // SAFETY: inside the frame; the kernel knows where unaligned accesses to it are allowed. Only integers are read.
        at(context, offset).map(|field| unsafe { *field })
    }

    #[inline(always)]
    fn set_field<T>(context: &XdpContext, offset: usize, value: T) -> Option<()> {
        // SAFETY: as above.
        at(context, offset).map(|field| unsafe { *field = value })
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
