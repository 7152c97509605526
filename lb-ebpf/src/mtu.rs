//! Whether a packet fits into what it leaves by. Nearly all are no longer than the least MTU of all interfaces, and nobody
//! looks closer at them.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_check_mtu;
use aya_ebpf::programs::XdpContext;
use lb_common::outcome::Outcome;
use lb_common::wire::ipv4;

use crate::answer::answer;
use crate::global;
use crate::packet::Packet;
use crate::pipeline::Path;

/// What becomes of a packet.
pub enum Fit {
    /// It fits.
    Yes,
    /// It does not, and the kernel may cut it into fragments.
    InFragments,
}

const FITS: u64 = 0;
const IN_FRAGMENTS: u64 = 1;
const NOT_AT_ALL: u64 = 2;
/// BPF_MTU_CHK_RET_FRAG_NEEDED, since 5.12.
const FRAGMENTATION_NEEDED: i64 = 1;

/// Looks closer at a packet that grows by `growth` bytes on its way out of an interface; what does not fit and may not be
/// cut into fragments is answered. So is what may be, but goes into a tunnel, where nobody could cut it: senders heed it
/// (Linux does), and otherwise none of their long datagrams would ever arrive. Only later fragments may not be answered
/// (RFC 1122 section 3.2.2).
#[inline(always)]
pub fn fit<F: Path<K>, const K: usize>(
    context: &XdpContext,
    interface_index: u32,
    growth: usize,
) -> Result<Fit, Outcome> {
    let growth = F::VERSION << 16 | growth as u32;
    match global::fit(context.ctx, interface_index, growth) {
        FITS => Ok(Fit::Yes),
        IN_FRAGMENTS => Ok(Fit::InFragments),
        NOT_AT_ALL => Err(Outcome::TooBigUnanswered),
        room => Err(answer::<F, K>(context, Outcome::TooBig, room as u32)),
    }
}

/// What [`fit`] unpacks: [`FITS`], [`IN_FRAGMENTS`], [`NOT_AT_ALL`], or how big the packet may be. What the kernel does not
/// know of an interface is for the driver to say. Above the growth lies the version of the packet.
#[inline(always)]
pub fn closer(context: *mut xdp_md, interface_index: u32, growth: u32) -> u64 {
    let (version, growth) = (growth >> 16, growth & 0xffff);
    let mut mtu = 0u32;
    // SAFETY: the context is the program's own.
    let result = unsafe { bpf_check_mtu(context.cast(), interface_index, &raw mut mtu, growth as i32, 0) };
    if result != FRAGMENTATION_NEEDED {
        return FITS;
    }
    let packet = Packet::of(&XdpContext::new(context));
    let is_ipv4 = version == 4;
    if is_ipv4 && growth == 0 && !ipv4::must_not_be_fragmented(&packet) {
        return IN_FRAGMENTS;
    }
    if is_ipv4 && ipv4::is_later_fragment(&packet) {
        return NOT_AT_ALL;
    }
    u64::from(mtu.saturating_sub(growth).max(68)) // RFC 791: no link has less
}
