//! What the per-packet benchmark's runner tells its kernel program.

/// The frame that each repeat begins with, and which flows take turns.
///
/// A flow has a number. Flows come in pseudo-random order; only the last six bits of their numbers count up, so that whoever
/// deals flows out in turns deals them out by these. The number goes into the frame at one place, and a number that follows
/// from it, which may be that of a service or of a backend, at another.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Its bytes 14 to 77: from the IP header on.
    pub packet: [u64; WORDS],
    /// Its first twelve bytes.
    pub addresses: [u32; 3],
    /// Where in the order it is, up to `mask`.
    pub state: u32,
    /// The length of the order, a power of two, less one.
    pub mask: u32,
    /// Half the number of flows; 0: there is one.
    pub half: u32,
    /// Half the length of the order as a power of two.
    pub shift: u32,
    /// Where the flow's number goes.
    pub flow: Place,
    /// Where the other number goes.
    pub other: Place,
    /// The flow's number times this, and of that the upper ten bits, say which other number it has.
    pub factor: u32,
    /// How many other numbers there are, from 0 on, at most 1,024.
    pub others: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where a number goes: it is added to a big-endian field of four bytes, which has room for it without a carry between bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The word of the packet that has the field.
    pub word: u32,
    /// Where in that word it begins, in bits.
    pub begins: u32,
    /// By how many bits the number is shifted to the left first.
    pub left: u32,
    /// By how many bits it is shifted to the right before that.
    pub right: u32,
}

/// A cache line.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// What is in it.
    pub words: [u64; 8],
}

/// The offset of an IPv4 packet's source address in a frame.
pub const SOURCE: u32 = 26;
/// The offset of its destination address.
pub const DESTINATION: u32 = 30;
/// The offset of its transport header's ports, of which the last is the destination's.
pub const PORTS: u32 = 34;
/// The offset of the last four bytes of an IPv6 packet's source address.
pub const SOURCE_IPV6: u32 = 34;
/// The offset of the second four bytes of it, the last of which tell subnets apart.
pub const SOURCE_SUBNET_IPV6: u32 = 26;
/// The offset of the last four bytes of its destination address.
pub const DESTINATION_IPV6: u32 = 50;
/// The offset of its transport header's ports.
pub const PORTS_IPV6: u32 = 54;
/// The length of the frame; a plan restores all of it but the two bytes that say IPv4 or IPv6.
pub const LENGTH: usize = HEADER + WORDS * 8;
/// Words of a plan's packet.
pub const WORDS: usize = 8;
/// Bytes of an Ethernet header.
const HEADER: usize = 14;

/// One and an odd number make all numbers of a power of two come in turn; so it does with 1 added, and keeps the last six bits
/// in their order: it is 1 in these.
const MULTIPLIER: u32 = 0x9e37_79c1;

impl Plan {
    /// The number of the next flow. From outside it is the first of a plan that has not been run.
    #[inline(always)]
    pub fn next_flow(&mut self) -> u32 {
        let state = self.state;
        self.state = state.wrapping_mul(MULTIPLIER).wrapping_add(1) & self.mask;
        let upper = (u64::from(state >> 1) * u64::from(self.half)) >> (self.shift & 63);
        ((upper as u32) << 1) | (state & 1)
    }

    /// The other number of a flow.
    #[inline(always)]
    pub fn other_of(&self, flow: u32) -> u32 {
        ((flow.wrapping_mul(self.factor) >> 22) * self.others) >> 10
    }
}

impl Place {
    /// What is added to the word.
    #[inline(always)]
    pub fn shifted(&self, number: u32) -> u64 {
        let number = (number >> (self.right & 31)) << (self.left & 31);
        u64::from(number.to_be()) << (self.begins & 63)
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Plan {
    /// A plan for a frame of [`LENGTH`] bytes: so many flows (1, or an even number) take turns, whose number is added to the
    /// field at the offset `flow_at`, one of those above.
    pub fn new(frame: &[u8; LENGTH], flow_at: u32, flows: u32) -> Self {
        let order = flows.next_power_of_two();
        let mut plan = Self {
            packet: [0; WORDS],
            addresses: [0; 3],
            state: 0,
            mask: order - 1,
            half: flows / 2,
            shift: order.trailing_zeros().saturating_sub(1),
            flow: Place::at(flow_at),
            // The last word, to which 0 is added, unless another place is asked for.
            other: Place::at((HEADER + (WORDS - 1) * 8) as u32),
            factor: 0,
            others: 1,
            reserved: 0,
        };
        let (addresses, _) = frame.as_chunks::<4>();
        for (word, bytes) in plan.addresses.iter_mut().zip(addresses) {
            *word = u32::from_ne_bytes(*bytes);
        }
        let (packet, _) = frame[HEADER..].as_chunks::<8>();
        for (word, bytes) in plan.packet.iter_mut().zip(packet) {
            *word = u64::from_ne_bytes(*bytes);
        }
        plan
    }

    /// With the last bits of the flow's number as its other number: so many, a power of two up to 64, take turns.
    #[must_use]
    pub fn with_turns(mut self, at: Place, others: u32) -> Self {
        self.other = at;
        self.factor = 1 << (32 - others.trailing_zeros().max(1));
        self.others = others;
        self
    }

    /// With another number, up to 1,024 of them, that depends on the flow's as a hash does.
    #[must_use]
    pub fn with_scattered(mut self, at: Place, others: u32) -> Self {
        self.other = at;
        self.factor = 0x9e37_79b1;
        self.others = others;
        self
    }

    /// Beginning at another place of the order.
    #[must_use]
    pub fn from(mut self, state: u32) -> Self {
        self.state = state & self.mask;
        self
    }

    /// The frame's type, as in the frame: that of IPv6 if the packet is one, else that of IPv4.
    pub fn ether_type(&self) -> [u8; 2] {
        let [version, ..] = self.packet[0].to_ne_bytes();
        if version >> 4 == 6 {
            [0x86, 0xdd]
        } else {
            [0x08, 0]
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Place {
    /// The field at an offset in the frame.
    pub fn at(offset: u32) -> Self {
        let offset = offset - HEADER as u32;
        Self {
            word: offset / 8,
            begins: offset % 8 * 8,
            left: 0,
            right: 0,
        }
    }
}

const _: () = assert!(size_of::<Plan>() == 136);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flows: u32) -> Plan {
        Plan::new(&[0; LENGTH], SOURCE, flows)
    }

    #[test]
    fn every_flow_has_its_turn() {
        for flows in [1, 2, 64, 4096] {
            let mut plan = plan(flows);
            let mut seen = vec![0; flows as usize];
            for _ in 0..2 * flows {
                seen[plan.next_flow() as usize] += 1;
            }
            assert!(seen.iter().all(|times| *times == 2), "{flows}");
        }
    }

    #[test]
    fn flows_need_not_be_a_power_of_two() {
        let mut plan = plan(10_000);
        let mut seen = vec![0; 10_000];
        for _ in 0..1 << 14 {
            seen[plan.next_flow() as usize] += 1;
        }
        assert!(seen.iter().all(|times| (1..=2).contains(times)));
    }

    #[test]
    fn turns_come_in_order_and_flows_do_not() {
        let mut plan = plan(1 << 16).with_turns(Place::at(DESTINATION), 64);
        let flows: Vec<u32> = (0..1000).map(|_| plan.next_flow()).collect();
        for (turn, flow) in flows.iter().enumerate() {
            assert_eq!(plan.other_of(*flow), turn as u32 % 64);
        }
        let near = flows
            .windows(2)
            .filter(|two| two[0].abs_diff(two[1]) < 1000)
            .count();
        assert!(near < 100, "{near} of 1000 are near the one before");
    }

    #[test]
    fn a_single_other_number_is_zero() {
        let plan = plan(1 << 16).with_turns(Place::at(DESTINATION), 1);
        assert!((0..1000).all(|flow| plan.other_of(flow) == 0));
    }

    #[test]
    fn other_numbers_are_spread() {
        let mut plan = plan(1 << 16).with_scattered(Place::at(DESTINATION), 1000);
        let mut flows_of = vec![0; 1000];
        for _ in 0..1 << 16 {
            let flow = plan.next_flow();
            flows_of[plan.other_of(flow) as usize] += 1;
        }
        assert!(flows_of.iter().all(|flows| (30..140).contains(flows)));
    }
}
