//! Whether a packet fits into what it leaves by. Nearly all are no longer than the least MTU of all interfaces, and nobody
//! looks closer at them.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_check_mtu;
use aya_ebpf::programs::XdpContext;
use lb_common::explain::Decision;
use lb_common::outcome::Outcome;
use lb_common::wire::ipv4;

use crate::answer::answer;
use crate::forward::{How, Route};
use crate::packet::Packet;
use crate::pipeline::Path;
use crate::{explain, global};

/// What may be done with a packet that does not fit.
#[derive(Clone, Copy)]
pub struct Otherwise {
    /// The kernel may cut it into fragments, if its sender has nothing against that.
    pub cut: bool,
    /// Its sender may be told. Also one who has nothing against fragments, where nobody can cut them: in a tunnel, his packets
    /// would vanish else. He then cuts them himself, since that is what the answer makes systems do whatever they had asked for.
    pub answer: bool,
}

impl Otherwise {
    /// Of whole packets on their way to clients, whose answers have an address of the host's to come back to.
    pub const ANYTHING: Self = Self {
        cut: true,
        answer: true,
    };
}

const FITS: u64 = 0;
const IN_FRAGMENTS: u64 = 1;
/// BPF_MTU_CHK_RET_FRAG_NEEDED, since 5.12.
const FRAGMENTATION_NEEDED: i64 = 1;
/// RFC 791: no link has less.
const LEAST: u32 = 68;

/// The route of a packet that may not fit, growing by `growth` bytes on its way: the same if it does, else the kernel's.
#[inline(always)]
pub fn fitting<F: Path<K>, const K: usize>(
    context: &XdpContext,
    route: Route,
    growth: usize,
    otherwise: Otherwise,
) -> Result<Route, Outcome> {
    if route.how != How::Known {
        return Ok(route);
    }
    let may_be_cut = F::VERSION == 4 && otherwise.cut;
    let growth = u32::from(may_be_cut) << 16 | growth as u32;
    let fits = global::fit(context.ctx, route.interface_index, growth);
    explain::note(Decision::Mtu, u64::from(route.interface_index), fits);
    match fits {
        FITS => Ok(route),
        IN_FRAGMENTS => Ok(Route::other(How::Kernel)),
        room if otherwise.answer => Err(answer::<F, K>(context, Outcome::TooBig, room as u32)),
        _ => Err(Outcome::TooBigUnanswered),
    }
}

/// What [`fitting`] unpacks: [`FITS`], [`IN_FRAGMENTS`], or how big the packet may be. What the kernel does not know of an
/// interface is for the driver to say. Above the growth lies whether an IPv4 packet may be cut into fragments.
#[inline(always)]
pub fn closer(context: *mut xdp_md, interface_index: u32, growth: u32) -> u64 {
    let (may_be_cut, growth) = (growth >> 16 != 0, growth & 0xffff);
    let mut mtu = 0u32;
    // SAFETY: the context is the program's own.
    let result = unsafe { bpf_check_mtu(context.cast(), interface_index, &raw mut mtu, growth as i32, 0) };
    if result != FRAGMENTATION_NEEDED {
        return FITS;
    }
    if may_be_cut && !ipv4::must_not_be_fragmented(&Packet::of(&XdpContext::new(context))) {
        return IN_FRAGMENTS;
    }
    u64::from(mtu.saturating_sub(growth).max(LEAST))
}
