//! Reading frames: one file per protocol, each checks once and is infallible after that.
//!
//! `network-types` gives the layouts, by [`core::mem::offset_of`]; bytes are read through [`Frame`], which the kernel
//! program implements over packet pointers and everybody else over slices, so that the same parser runs on both sides.

use core::marker::PhantomData;

#[cfg(not(target_arch = "bpf"))]
pub mod classify;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod network;
pub mod reset;
pub mod segment;
pub mod transport;

/// Types that any bytes are a valid value of.
///
/// # Safety
/// Every bit pattern must be valid, and there must be no padding.
pub unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The bytes of a frame, from the Ethernet header on.
pub trait Frame {
    /// The first of `length` bytes at `offset`, if all of them are there.
    fn bytes(&self, offset: usize, length: usize) -> Option<*const u8>;
    /// The frame's length in bytes.
    fn length(&self) -> usize;

    /// [`ipv6::walk`], which the kernel program has as a function of its own.
    #[inline(always)]
    fn walk_extensions(&self, offset: usize, next_header: u8) -> u64 {
        ipv6::walk(self, offset, next_header)
    }

    /// `N` bytes at `offset`, if all of them are there.
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<'_, N>> {
        let start = self.bytes(offset, N)?;
        Some(Window {
            start,
            frame: PhantomData,
        })
    }
}

/// `N` bytes of a frame that have been checked to be there.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a, const N: usize> {
    start: *const u8,
    frame: PhantomData<&'a [u8]>,
}

impl<const N: usize> Window<'_, N> {
    /// The field at `OFFSET`, in memory order.
    #[inline(always)]
    pub fn field<T: Plain, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N, "field beyond the window") };
        // SAFETY: the window has N bytes, the field lies inside, and any bytes are a valid T.
        unsafe { load(self.start.add(OFFSET)) }
    }
}

/// Loads a value from an address of any alignment.
///
/// # Safety
/// `size_of::<T>()` bytes at `from` must be readable.
#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
unsafe fn load<T: Plain>(from: *const u8) -> T {
    // SAFETY: promised by the caller.
    unsafe { from.cast::<T>().read_unaligned() }
}

/// Loads a value from a packet with one instruction. LLVM would take an unaligned load apart into bytes; the kernel
/// knows on which machines it must not be done (its verifier demands alignment there, and rejects the program).
///
/// # Safety
/// `size_of::<T>()` bytes at `from` must be readable.
#[inline(always)]
#[cfg(target_arch = "bpf")]
unsafe fn load<T: Plain>(from: *const u8) -> T {
    // SAFETY: promised by the caller.
    unsafe { *from.cast::<T>() }
}

impl Frame for [u8] {
    fn bytes(&self, offset: usize, length: usize) -> Option<*const u8> {
        self.get(offset..offset.checked_add(length)?).map(<[u8]>::as_ptr)
    }

    fn length(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests;
