//! What the program says of its decisions where it is asked to: in a dry run (`lbctl why`), and while it is traced (`lbctl
//! trace`). The program that is attached otherwise says nothing, and has none of this in it once it is loaded.

macro_rules! decisions {
    ($( $(#[doc = $meaning:literal])+ $variant:ident, )*) => {
        /// What was decided, and what its two words say.
        #[repr(u64)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Decision {
            $( $(#[doc = $meaning])+ $variant, )*
        }

        impl Decision {
            /// The decision with a number.
            pub fn from_number(number: u64) -> Option<Self> {
                match number {
                    $( number if number == Self::$variant as u64 => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }
    };
}

decisions! {
    /// It is a client's packet: the listener, and the value of the connection's entry, 0 if there is none.
    FromClient,
    /// It is from a backend's endpoint: the membership, and the value of the connection's entry, 0 if there is none.
    FromBackend,
    /// The entry, if there is one, does not hold for this packet: its value.
    NotKept,
    /// A slot was chosen: its position and how many there are (32 bits each), and the backend's id with the [`Way`] above it
    /// (16 bits each).
    Slot,
    /// The backend in the slot cannot be had: its id, and the outcome if there is no other.
    PassedOver,
    /// The slots of now and those before the last change name two backends: the ids.
    Differ,
    /// The table is flooded: everybody is chosen for by hashing.
    Flooded,
    /// `full-nat`: the backend's id, and the balancer's own port towards it, 0 if all are taken.
    OwnPort,
    /// The connection was entered: the [`Entered`], and the value of the entry that holds.
    Entered,
    /// A packet without an entry is an answer to somebody: the membership, and whether it is (1) or is not (0).
    Untracked,
    /// The routing table was asked: the [`Answered`], and the interface.
    Route,
    /// The packet may be too big for an interface: the interface, and 0 if it fits, 1 if the kernel cuts it into fragments, else
    /// how many bytes would fit.
    Mtu,
    /// An ICMP error or a later fragment concerns a backend: its id.
    Concerns,
    /// What becomes of the packet: the outcome, and the interface that it leaves by, 0 if that is of no consequence.
    Outcome,
}

/// How a slot was chosen.
#[repr(u64)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The next one in the service's round.
    Round,
    /// By hashing.
    Hash,
    /// The one of two with fewer connections.
    Least,
    /// By chance.
    Chance,
}

impl Way {
    /// The way with a number.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Round, Self::Hash, Self::Least, Self::Chance]
            .into_iter()
            .find(|way| *way as u64 == number)
    }
}

/// What became of an insertion into the connection table.
#[repr(u64)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// There is an entry now.
    Stored,
    /// There was no room.
    Full,
    /// There was one already, which holds.
    Exists,
}

impl Entered {
    /// The one with a number.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Stored, Self::Full, Self::Exists]
            .into_iter()
            .find(|entered| *entered as u64 == number)
    }
}

/// What the routing table answered.
#[repr(u64)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// A next hop.
    Found,
    /// A route, but the neighbour's address is not known yet.
    NoNeighbour,
    /// No route that leads on from here.
    NoRoute,
}

impl Answered {
    /// The one with a number.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Found, Self::NoNeighbour, Self::NoRoute]
            .into_iter()
            .find(|answered| *answered as u64 == number)
    }
}

/// So many decisions about a packet are kept: more than there can be of any.
pub const MAX_STEPS: usize = 32;
/// So many bytes of a traced frame are kept.
pub const HEAD: usize = 256;

/// A decision.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// A [`Decision`].
    pub what: u64,
    /// As that says.
    pub first: u64,
    /// As that says.
    pub second: u64,
}

/// What was said of one packet. One for each CPU; a packet is done with before the next one comes there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    /// How many decisions there were.
    pub count: u64,
    /// How many slots were chosen from the service's round: what the cursor would have been advanced by in a dry run.
    pub rounds: u64,
    /// The decisions, in order.
    pub steps: [Step; MAX_STEPS],
    /// Of a traced frame: its length as it came, in bytes.
    pub length: u32,
    /// Of a traced frame: the interface that it came in by.
    pub interface_index: u32,
    /// Of a traced frame: whether it passed the filter as it came.
    pub fits: u64,
    /// Of a traced frame: when, in ns since the machine was started.
    pub time: u64,
    /// Of a traced frame: its beginning as it came.
    pub head: [u8; HEAD],
}

impl Notes {
    /// Nothing.
    pub const EMPTY: Self = Self {
        count: 0,
        rounds: 0,
        steps: [Step {
            what: 0,
            first: 0,
            second: 0,
        }; MAX_STEPS],
        length: 0,
        interface_index: 0,
        fits: 0,
        time: 0,
        head: [0; HEAD],
    };

    /// The decisions that were made, in order; those of a kind that this version does not know are left out.
    pub fn decisions(&self) -> impl Iterator<Item = (Decision, u64, u64)> + '_ {
        let count = (self.count as usize).min(MAX_STEPS);
        self.steps
            .iter()
            .take(count)
            .filter_map(|step| Some((Decision::from_number(step.what)?, step.first, step.second)))
    }
}

/// Which packets are traced. One element; written by the daemon.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// From or to this address; zeros: any.
    pub address: crate::abi::Address,
    /// Bit by bit the outcomes that are of interest; 0: all.
    pub outcomes: u64,
    /// At most so many packets a second on each CPU.
    pub rate: u64,
    /// From or to this port, as in the packet; 0: any.
    pub port: u16,
    /// Of this protocol, or [`TraceFilter::ICMP`]; 0: any.
    pub protocol: u16,
    /// Of IPv4 (4) or IPv6 (6); 0: any.
    pub version: u32,
}

impl TraceFilter {
    /// Instead of a protocol: ICMP and ICMPv6.
    pub const ICMP: u16 = 256;
}

/// How many packets were traced on this CPU, and how many would have been but for the rate.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceState {
    /// When the present second began, in ns since the machine was started.
    pub since: u64,
    /// Packets in it.
    pub packets: u64,
    /// Packets that were left out, since the program was loaded.
    pub left_out: u64,
}

const _: () = {
    assert!(size_of::<Step>() == 24);
    assert!(size_of::<Notes>() == 16 + MAX_STEPS * 24 + 24 + HEAD);
    assert!(size_of::<Notes>().is_multiple_of(8));
    assert!(size_of::<TraceFilter>() == 64);
    assert!(size_of::<TraceState>() == 24);
    assert!(MAX_STEPS.is_power_of_two());
    assert!(crate::outcome::Outcome::COUNT <= 64);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_told_in_order_and_what_is_unknown_is_left_out() {
        let mut notes = Notes::EMPTY;
        assert_eq!(notes.decisions().count(), 0);
        notes.count = 3;
        notes.steps[0] = Step {
            what: Decision::FromClient as u64,
            first: 1,
            second: 2,
        };
        notes.steps[1].what = 1000;
        notes.steps[2] = Step {
            what: Decision::Outcome as u64,
            first: 3,
            second: 4,
        };
        let told: Vec<_> = notes.decisions().collect();
        assert_eq!(told, [(Decision::FromClient, 1, 2), (Decision::Outcome, 3, 4)]);
        // A packet with more decisions than are kept.
        notes.count = 1000;
        assert!(notes.decisions().count() <= MAX_STEPS);
    }

    #[test]
    fn numbers_name_what_they_were_made_from() {
        for number in 0..=Decision::Outcome as u64 {
            assert_eq!(Decision::from_number(number).map(|it| it as u64), Some(number));
        }
        assert_eq!(Decision::from_number(Decision::Outcome as u64 + 1), None);
        for number in 0..4 {
            assert_eq!(Way::from_number(number).map(|way| way as u64), Some(number));
        }
        for number in 0..3 {
            assert_eq!(Entered::from_number(number).map(|it| it as u64), Some(number));
            assert_eq!(Answered::from_number(number).map(|it| it as u64), Some(number));
        }
        assert_eq!(Way::from_number(4), None);
        assert_eq!(Entered::from_number(3), None);
        assert_eq!(Answered::from_number(3), None);
    }
}
