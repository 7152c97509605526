//! From bytes to what the stages after this one need to know of a packet.

use lb_common::family::Family;
use lb_common::outcome::Outcome;
use lb_common::wire::segment;

pub use lb_common::wire::segment::Segment;

use crate::packet::Packet;

/// Reads the headers of a frame that is known to carry the family; the outcome of a packet that is no business of ours is
/// its error.
#[inline(always)]
pub fn parse<F: Family>(packet: &Packet) -> Result<Segment<F>, Outcome> {
    segment::parse::<F, Packet>(packet)
}
