//! The one door to the frame's bytes: every access is checked here against the end of the frame, once.

use aya_ebpf::programs::XdpContext;
use lb_common::wire::{Frame, Plain};

/// The frame of a context. It must be made anew after a helper that resizes the frame.
#[derive(Clone, Copy)]
pub struct Packet {
    data: usize,
    data_end: usize,
}

impl Packet {
    /// The frame as it is now.
    #[inline(always)]
    pub fn of(context: &XdpContext) -> Self {
        Self {
            data: context.data(),
            data_end: context.data_end(),
        }
    }

    /// `N` writable bytes at `offset`, if all of them are there.
    #[inline(always)]
    pub fn window_mut<const N: usize>(&self, offset: usize) -> Option<WindowMut<N>> {
        self.bytes(offset, N).map(|start| WindowMut {
            start: start.cast_mut(),
        })
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn bytes(&self, offset: usize, length: usize) -> Option<*const u8> {
        let start = self.data + offset;
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
