//! The one door to the frame's bytes: every access is checked here against the end of the frame, once.

use core::arch::asm;
use core::intrinsics::is_val_statically_known;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::wire::{Frame, Plain, ipv6};

use crate::global;

/// The frame of a context. It must be made anew after a helper that resizes the frame.
#[derive(Clone, Copy)]
pub struct Packet {
    data: usize,
    data_end: usize,
    context: *mut xdp_md,
}

impl Packet {
    /// The frame as it is now.
    #[inline(always)]
    pub fn of(context: &XdpContext) -> Self {
        Self {
            data: context.data(),
            data_end: context.data_end(),
            context: context.ctx,
        }
    }

    /// Its first bytes, if there are so many: as many as are known when the program is compiled.
    #[inline(always)]
    pub fn front(&self, length: usize) -> Option<Front> {
        self.bytes(0, length).map(|start| Front {
            start: start.cast_mut(),
            length,
            packet: *self,
        })
    }
}

/// Where bytes can be changed.
pub trait Writable {
    /// `N` writable bytes at `offset`, if all of them are there.
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<WindowMut<N>>;
}

impl Writable for Packet {
    #[inline(always)]
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<WindowMut<N>> {
        self.bytes(offset, N).map(|start| WindowMut {
            start: start.cast_mut(),
        })
    }
}

/// The first bytes of a frame, which have been checked to be there: what lies among them at an offset that is known when the
/// program is compiled needs no check of its own.
#[derive(Clone, Copy)]
pub struct Front {
    start: *mut u8,
    length: usize,
    packet: Packet,
}

impl Front {
    /// The whole frame.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        self.packet
    }
}

impl Frame for Front {
    #[inline(always)]
    fn bytes(&self, offset: usize, length: usize) -> Option<*const u8> {
        if offset + length > self.length {
            return self.packet.bytes(offset, length);
        }
        // SAFETY: inside of what was checked.
        Some(unsafe { self.start.add(offset) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.packet.length()
    }

    #[inline(always)]
    fn walk_extensions(&self, offset: usize, next_header: u8) -> u64 {
        self.packet.walk_extensions(offset, next_header)
    }
}

impl Writable for Front {
    #[inline(always)]
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<WindowMut<N>> {
        self.bytes(offset, N).map(|start| WindowMut {
            start: start.cast_mut(),
        })
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn bytes(&self, offset: usize, length: usize) -> Option<*const u8> {
        let start = self.data + offset;
        let start = if is_val_statically_known(offset) {
            start
        } else {
            opaque(start)
        };
        if start + length > self.data_end {
            None
        } else {
            Some(start as *const u8)
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.data_end - self.data
    }

    #[inline(always)]
    fn walk_extensions(&self, offset: usize, next_header: u8) -> u64 {
        global::walk_extensions(self.context, offset as u32, next_header)
    }
}

/// [`ipv6::walk`].
#[inline(always)]
pub fn walk(context: *mut xdp_md, offset: u32, next_header: u8) -> u64 {
    let packet = Packet::of(&XdpContext::new(context));
    ipv6::walk(&packet, (offset & 0x3ff) as usize, next_header)
}

/// The same address, of which LLVM does not know how it came about. Else it checks one register against the end of the frame
/// and computes another one to access it by, or does sums with the end of the frame; the kernel's verifier refuses both.
#[inline(always)]
fn opaque(mut address: usize) -> usize {
    // An instruction that does nothing, but not none: a line of the program's debug information without an instruction of
    // its own is refused as well.
    // SAFETY: it only copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) address, options(pure, nomem, nostack, preserves_flags)) };
    address
}

/// `N` bytes of the frame that have been checked to be there.
pub struct WindowMut<const N: usize> {
    start: *mut u8,
}

impl<const N: usize> WindowMut<N> {
    /// The field at `OFFSET`, in memory order.
    #[inline(always)]
    pub fn field<T: Plain, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N, "field beyond the window") };
        // SAFETY: inside the window. As to alignment, see `lb_common::wire`: a packet's fields are loaded whole, and the
        // verifier refuses the program on machines where that is not possible.
        unsafe { *self.start.add(OFFSET).cast::<T>() }
    }

    /// Writes the field at `OFFSET`, in memory order.
    #[inline(always)]
    pub fn set<T: Plain, const OFFSET: usize>(&mut self, value: T) {
        const { assert!(OFFSET + size_of::<T>() <= N, "field beyond the window") };
        // SAFETY: as above.
        unsafe { *self.start.add(OFFSET).cast::<T>() = value }
    }
}
