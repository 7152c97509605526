//! An XDP program that makes frames of many clients, for the tests only. Never attached: the kernel's program runner runs it
//! on live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18) and transmits what it makes.
//!
//! The frame is written anew each time: the kernel hands the same pages out again, and whoever got a frame may have
//! rewritten it.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// A program is one crate: what its modules share needs no visibility beyond it.
#![allow(unreachable_pub)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::Global;
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::macros::{map, xdp};
    use aya_ebpf::maps::Array;
    use aya_ebpf::programs::XdpContext;

    /// Words of the longest frame.
    const WORDS: usize = 10;
    const IPV6: u8 = 6;
    const UDP: u8 = 17;

    /// The frame to begin with: the client's address ends in 16 zero bits, its port and TCP's flags are zero, and the checksums
    /// are right so. 64 bytes (eight words) of it are used for IPv4, 80 for IPv6.
    #[unsafe(no_mangle)]
    static FRAME: Global<[u64; WORDS]> = Global::new([0; WORDS]);
    /// 4 or 6.
    #[unsafe(no_mangle)]
    static FAMILY: Global<u8> = Global::new(4);
    /// TCP's number (6) or UDP's (17).
    #[unsafe(no_mangle)]
    static PROTOCOL: Global<u8> = Global::new(6);
    /// TCP's flags of a client's first frame and of its second.
    #[unsafe(no_mangle)]
    static FLAGS: Global<[u8; 2]> = Global::new([0; 2]);
    /// Frames of each client, one after the other: 1 or 2.
    #[unsafe(no_mangle)]
    static TURNS: Global<u8> = Global::new(1);

    /// Of a client's number, these bits are used: there are so many clients and one more.
    #[unsafe(no_mangle)]
    static MASK: Global<u32> = Global::new(u32::MAX);
    /// 1 if the frames go to the clients, from one server.
    #[unsafe(no_mangle)]
    static ANSWERS: Global<u8> = Global::new(0);

    /// The number of the next frame.
    #[map]
    static NEXT: Array<u64> = Array::with_max_entries(1, 0);

    /// Writes the next frame.
    #[xdp]
    pub fn frame_generator(context: XdpContext) -> u32 {
        match write(&context) {
            Some(()) => xdp_action::XDP_TX,
            None => xdp_action::XDP_ABORTED,
        }
    }

    #[inline(always)]
    fn write(context: &XdpContext) -> Option<()> {
        let next = NEXT.get_ptr_mut(0)?;
        // SAFETY: one runner at a time uses an instance of this program.
        let number = unsafe {
            *next += 1;
            *next - 1
        };
        let two_turns = TURNS.load() == 2;
        let client = if two_turns { number >> 1 } else { number };
        let [first, second] = FLAGS.load();
        let flags = if two_turns && number & 1 == 1 {
            second
        } else {
            first
        };

        let tuple = scattered(client as u32 & MASK.load());
        let host = (tuple >> 16) as u16;
        let port = tuple as u16;
        // The lowest ports belong to services, and port 0 to nobody.
        let port = if port < 1024 { port ^ 0x8000 } else { port }.to_be();

        let frame = FRAME.load();
        let (words, length_of_address, source_end, transport) = if FAMILY.load() == IPV6 {
            (WORDS, 16, 36, 54)
        } else {
            (8, 4, 28, 34)
        };
        let (client_end, client_port) = if ANSWERS.load() == 1 {
            (source_end + length_of_address, transport + 2)
        } else {
            (source_end, transport)
        };
        for (word, &value) in frame.iter().enumerate().take(words) {
            set(context, word * 8, value)?;
        }
        set(context, client_end, host)?;
        set(context, client_port, port)?;
        let mut difference = u32::from(host) + u32::from(port);
        if FAMILY.load() != IPV6 {
            add_to_checksum(context, 24, u32::from(host))?;
        }
        if PROTOCOL.load() == UDP {
            add_to_checksum(context, transport + 6, difference)?;
            let sum = at::<u16>(context, transport + 6)?;
            // SAFETY: inside the frame. A sum of zero is sent as its other form; zero says that there is none (RFC 768).
            unsafe { *sum = if *sum == 0 { 0xffff } else { *sum } };
            return Some(());
        }
        set(context, transport + 13, flags)?;
        difference += u32::from(u16::from_ne_bytes([0, flags]));
        add_to_checksum(context, transport + 16, difference)
    }

    /// A number of 32 bits that no other number leads to, and that looks like chance (the finaliser of MurmurHash3).
    #[inline(always)]
    fn scattered(number: u32) -> u32 {
        let number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
        let number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
        number ^ number >> 16
    }

    /// RFC 1624: what was zero in the packet has become `difference`, the sum of its 16-bit words.
    #[inline(always)]
    fn add_to_checksum(context: &XdpContext, offset: usize, difference: u32) -> Option<()> {
        let place = at::<u16>(context, offset)?;
        // SAFETY: inside the frame.
        unsafe {
            let mut sum = u32::from(!*place) + difference;
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            *place = !(sum as u16);
        }
        Some(())
    }

    /// Where a field of the frame is, if the frame is long enough.
    #[inline(always)]
    fn at<T>(context: &XdpContext, offset: usize) -> Option<*mut T> {
        let start = context.data() + offset;
        (start + size_of::<T>() <= context.data_end()).then_some(start as *mut T)
    }

    #[inline(always)]
    fn set<T>(context: &XdpContext, offset: usize, value: T) -> Option<()> {
        // SAFETY: inside the frame; the kernel knows where unaligned accesses to it are allowed.
        at(context, offset).map(|field| unsafe { *field = value })
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // Nothing in this crate can panic; if something could, the verifier would refuse the endless loop.
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
