//! Functions that are called, and that the kernel's verifier looks at once, by themselves, knowing nothing of their
//! arguments ("global functions", since 5.6), instead of anew at every call on every path. Without them the program would be
//! more than the verifier follows.
//!
//! Only five scalars may be arguments, the context being one, and what depends on the family needs one function for each: BPF
//! knows no generics. What they do stands where it belongs.

use aya_ebpf::bindings::xdp_md;
use lb_common::family::{Ipv4, Ipv6};

use crate::{
    backend_choice, connection_table, explain, forward, fragment, mtu, new_connection, own_ports, packet,
    pipeline, trace,
};

macro_rules! global {
    ($($name:ident($($argument:ident: $type:ty),*) = $what:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $name($($argument: $type),*) -> u64 {
                $what($($argument),*)
            }
        )*
    };
}

global! {
    walk_extensions(context: *mut xdp_md, offset: u32, next_header: u8) = packet::walk;
    take_note(what: u32, first: u64, second: u64) = explain::take_note;
    fits(context: *mut xdp_md) = trace::fits;
    send_notes(context: *mut xdp_md, outcome: u32) = trace::end;
    fit(context: *mut xdp_md, interface_index: u32, growth: u32) = mtu::closer;
    ask_route(context: *mut xdp_md) = forward::ask;
    pick(copy: u32, number: u16, by_hash: u32, hash: u64) = backend_choice::pick;
    store(which: u32, key: u64, value: u64) = new_connection::store_narrow;
    store_wide(which: u32, a: u64, b: u64, c: u64, value: u64) = new_connection::store_wide;
    note_change(key: u64, seen: u32, copy: u32) = connection_table::note_narrow;
    note_change_wide(a: u64, b: u64, c: u64, seen: u32, copy: u32) = connection_table::note_wide;
    intern(neighbour: u64, own: u64) = connection_table::intern;
    take_port(which: u64, low: u64, high: u64, owner: u64, now: u16) = own_ports::take::<Ipv4, 1>;
    take_port_wide(which: u64, low: u64, high: u64, owner: u64, now: u16) = own_ports::take::<Ipv6, 3>;
    give_port(which: u32, low: u64, high: u64, owner: u64, now: u16) = own_ports::give_narrow;
    give_port_wide(which: u32, low: u64, high: u64, owner: u64, now: u16) = own_ports::give_wide;
    note_fragment_ipv4(context: *mut xdp_md, noted: u64, low: u64, high: u64) = fragment::note::<Ipv4>;
    note_fragment_ipv6(context: *mut xdp_md, noted: u64, low: u64, high: u64) = fragment::note::<Ipv6>;
    collides_ipv4(context: *mut xdp_md, copy: u32, number: u16, id: u16) = backend_choice::collides::<Ipv4, 1>;
    collides_ipv4_wide(context: *mut xdp_md, copy: u32, number: u16, id: u16) = backend_choice::collides::<Ipv4, 3>;
    collides_ipv6(context: *mut xdp_md, copy: u32, number: u16, id: u16) = backend_choice::collides::<Ipv6, 3>;
    sibling_ipv4(context: *mut xdp_md, copy: u32, first: u64) = pipeline::sibling::<Ipv4, 1>;
    sibling_ipv4_wide(context: *mut xdp_md, copy: u32, first: u64) = pipeline::sibling::<Ipv4, 3>;
    sibling_ipv6(context: *mut xdp_md, copy: u32, first: u64) = pipeline::sibling::<Ipv6, 3>;
}
