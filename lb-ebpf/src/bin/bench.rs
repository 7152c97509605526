//! What the per-packet benchmark, and a test of races, run around the load balancer, and what it compares it with. Never attached.
//!
//! The kernel's program runner does not restore the frame between repeats: a program that rewrites would see its own
//! output the next time. So each repeat begins in `wrapper`, which writes the frame anew and then tail-calls.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
// A program is one crate: what its modules share needs no visibility beyond it.
#![allow(unreachable_pub)]

#[cfg(target_arch = "bpf")]
mod program {
    use core::arch::asm;

    use aya_ebpf::Global;
    use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_action};
    use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
    use aya_ebpf::macros::{map, xdp};
    use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
    use aya_ebpf::programs::XdpContext;
    use lb_common::bench::{LENGTH, Line, PORTS, Plan, SOURCE, WORDS};
    use lb_common::hash::{Seed, scale_high};

    /// One element for each CPU, set by the runner.
    #[map]
    static PLAN: PerCpuArray<Plan> = PerCpuArray::with_max_entries(1, 0);
    /// The program under test.
    #[map]
    static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// As many lines as a table of connections has buckets, in the same kind of memory; all zero.
    #[map]
    static LINES: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
    /// How many there are.
    #[unsafe(no_mangle)]
    static LINE_COUNT: Global<u32> = Global::new(1);
    /// How often something is computed that has nothing to do with the line.
    #[unsafe(no_mangle)]
    static LINE_WORK: Global<u32> = Global::new(0);
    /// Chooses among them.
    #[unsafe(no_mangle)]
    static LINE_SEED: Global<Seed> = Global::new(Seed::new(0));

    /// The floor: what the runner, the wrapper and a tail call take.
    #[xdp]
    pub fn bare(_: XdpContext) -> u32 {
        xdp_action::XDP_TX
    }

    /// The least that any table of connections takes: a hash of the client's address and ports, and a look at one line of
    /// memory; and as much else as is asked for: half of it before, half of it with what the line says, as a packet can only be
    /// rewritten when its connection's entry is there.
    #[xdp]
    pub fn one_line(context: XdpContext) -> u32 {
        let frame = context.data();
        if frame + LENGTH > context.data_end() {
            return xdp_action::XDP_ABORTED;
        }
        // SAFETY: the frame is long enough, and the kernel knows where unaligned accesses to it are allowed.
        let (client, ports) = unsafe {
            (
                *((frame + SOURCE as usize) as *const u32),
                *((frame + PORTS as usize) as *const u32),
            )
        };
        let key = u64::from(client) << 32 | u64::from(ports);
        let hash = LINE_SEED.load().hash(&[key]);
        let (before, after) = (LINE_WORK.load() / 2, LINE_WORK.load().div_ceil(2));
        for _ in 0..before {
            work(hash);
        }
        let Some(line) = LINES.get(scale_high(hash, LINE_COUNT.load())) else {
            return xdp_action::XDP_ABORTED;
        };
        let found = line.words[0];
        for _ in 0..after {
            work(found);
        }
        // All of them are 0: what the processor does not know until it has read it.
        if found == 0 {
            xdp_action::XDP_TX
        } else {
            xdp_action::XDP_ABORTED
        }
    }

    /// 32 instructions with a value: so few times that the processor foresees when it is over.
    #[inline(always)]
    fn work(with: u64) {
        macro_rules! four_times {
            ($($what:literal)*) => { concat!($($what, "\n",)* $($what, "\n",)* $($what, "\n",)* $($what, "\n",)*) };
        }
        // SAFETY: nothing but a register is touched.
        unsafe {
            asm!(
                four_times!("{0} = {1}" "{0} += 1" "{0} = {1}" "{0} += 2" "{0} = {1}" "{0} += 3" "{0} = {1}" "{0} += 4"),
                out(reg) _,
                in(reg) with,
                options(nomem, nostack),
            );
        }
    }

    /// Writes the frame anew, of the next flow, and calls the program under test.
    ///
    /// The stores are cut such that no field is later loaded across two of them: that would stall, and is nothing that
    /// happens to a frame that came from a network card.
    #[xdp]
    pub fn wrapper(context: XdpContext) -> u32 {
        let Some(plan) = PLAN.get_ptr_mut(0) else {
            return xdp_action::XDP_ABORTED;
        };
        // What the program put in front of the last frame, a tunnel's header, is still there.
        let grown = context.data_end() as i64 - context.data() as i64 - LENGTH as i64;
        if grown > 0 {
            // SAFETY: a helper's call with the context that the program was given.
            unsafe { bpf_xdp_adjust_head(context.ctx, grown as i32) };
        }
        let frame = context.data();
        if frame + LENGTH > context.data_end() {
            return xdp_action::XDP_ABORTED;
        }
        if grown > 0 {
            // The tunnel's header has taken the place of the frame's type.
            // SAFETY: as below.
            unsafe {
                let is_ipv6 = (*plan).packet[0] & 0xf0 == 0x60;
                let ether_type: u16 = if is_ipv6 { 0x86dd } else { 0x0800 };
                *((frame + 12) as *mut u16) = ether_type.to_be();
            }
        }
        // SAFETY: the plan is this CPU's own. The frame is long enough, and the kernel knows where unaligned
        // accesses to it are allowed.
        unsafe {
            for word in 0..3 {
                *(frame as *mut u32).add(word) = (*plan).addresses[word];
            }
            for word in 0..WORDS {
                *((frame + 14) as *mut u64).add(word) = (*plan).packet[word];
            }
            let flow = (*plan).next_flow();
            let other = (*plan).other_of(flow);
            for (place, number) in [((*plan).flow, flow), ((*plan).other, other)] {
                let word = (place.word & 7) as usize;
                // The verifier wants to see of each variable offset that it is inside of the frame.
                let at = frame + 14 + word * 8;
                if at + 8 > context.data_end() {
                    return xdp_action::XDP_ABORTED;
                }
                *(at as *mut u64) = (*plan).packet[word] + place.shifted(number);
            }
            NEXT.tail_call(&context, 0);
        }
        xdp_action::XDP_ABORTED
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // Nothing in this crate can panic; if something could, the verifier would refuse the endless loop.
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
