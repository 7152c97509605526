//! What the kernel program and the daemon have in common: the layout of the maps, and every piece of logic that can be
//! written without touching a packet pointer or a map. The XDP program is glue around this crate; the crate itself runs,
//! and is tested, on the host.

#![cfg_attr(not(test), no_std)]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;

// What the tests share with other crates' names this one as those do.
#[cfg(test)]
extern crate self as lb_common;

pub mod abi;
pub mod bench;
pub mod checksum;
pub mod connection_table;
pub mod explain;
pub mod family;
pub mod hash;
pub mod lookup_table;
pub mod outcome;
pub mod return_hop;
pub mod tcp_state;
pub mod tick;
pub mod wire;
pub mod word;
