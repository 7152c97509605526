//! The state of a TCP connection as somebody sees it who forwards its packets but keeps no sequence numbers.
//!
//! The state decides how long a silent connection is remembered and whether a new one may take its place, and nothing
//! else: a packet of a known connection is forwarded in every state. So a forged segment can shorten a timeout but not
//! cut a connection: what follows it revives the entry.

use core::hint::black_box;

/// What is remembered of a connection. The discriminants are stored in the table; 0 and 1 mean empty and being written.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The client's SYN was seen.
    SynSeen = 2,
    /// The backend's SYN-ACK as well.
    SynAckSeen = 3,
    /// A segment from the middle of a connection that was not known; nothing confirms yet that the backend knows it.
    Unconfirmed = 4,
    /// The handshake is complete.
    Established = 5,
    /// The client has sent its FIN; the other direction may go on for hours.
    ClientFin = 6,
    /// The backend has sent its FIN.
    BackendFin = 7,
    /// A RST ended an established connection, or somebody wanted us to think so.
    Reset = 8,
    /// Both FINs were seen, or the handshake was refused.
    Closed = 9,
}

/// Every state, for listings and tests.
pub const STATES: [State; 8] = [
    State::SynSeen,
    State::SynAckSeen,
    State::Unconfirmed,
    State::Established,
    State::ClientFin,
    State::BackendFin,
    State::Reset,
    State::Closed,
];

/// Which of a service's idle timeouts holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutClass {
    /// Until the handshake is complete.
    HalfOpen,
    /// After it.
    Established,
    /// After a FIN or RST.
    Closing,
}

/// Who sent a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The backend.
    Backend,
}

/// The flags of a TCP segment that matter here, as they lie in the header's 14th byte (RFC 9293 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;

    /// Whether this asks for a new connection: SYN and neither ACK nor RST nor FIN.
    #[inline(always)]
    pub fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// Whether this accepts a new connection: SYN and ACK.
    #[inline(always)]
    pub fn accepts(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// Of a datagram, which has none.
    pub const NONE: Self = Self(0);

    /// Whether this says nothing about the connection as such: data, acknowledgments, and every datagram. An established
    /// connection stays so.
    #[inline(always)]
    pub fn is_ordinary(self) -> bool {
        self.0 & (Self::SYN | Self::FIN | Self::RST) == 0
    }

    /// Whether the RST flag is set.
    #[inline(always)]
    pub fn resets(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Whether the FIN flag is set.
    #[inline(always)]
    pub fn finishes(self) -> bool {
        self.0 & Self::FIN != 0
    }

    #[inline(always)]
    fn kind(self) -> Kind {
        if self.0 == 0 {
            Kind::Datagram
        } else if self.0 & (Self::SYN | Self::FIN | Self::RST) == 0 {
            Kind::Other
        } else if self.resets() {
            Kind::Reset
        } else if self.finishes() {
            Kind::Finish
        } else if self.0 & Self::ACK != 0 {
            Kind::Accept
        } else {
            Kind::Open
        }
    }
}

/// What a segment says, by the flag that matters most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// RST.
    Reset,
    /// FIN.
    Finish,
    /// SYN and ACK.
    Accept,
    /// SYN.
    Open,
    /// None of them: data, and acknowledgments.
    Other,
    /// No flags at all: a UDP datagram.
    Datagram,
}

/// Who sees a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    FromClient,
    FromBackend,
    /// From the client, where the backend's answers are not seen; and in the same tick as the segment before.
    Alone,
    /// Likewise, of a connection that goes on.
    AloneLater,
}

/// The state after a segment: this is how connections live.
const fn transition(state: State, seen: Seen, kind: Kind) -> State {
    use State::{BackendFin, ClientFin, Closed, Established, Reset, SynAckSeen, SynSeen, Unconfirmed};
    match (seen, state, kind) {
        // A refused handshake is over; an established connection only looks so, since a RST is easily forged.
        (_, SynSeen | SynAckSeen | Unconfirmed | Closed, Kind::Reset) => Closed,
        (_, Established | ClientFin | BackendFin | Reset, Kind::Reset) => Reset,

        (Seen::FromClient, SynAckSeen | Established | Reset, Kind::Finish) => ClientFin,
        (Seen::FromClient, SynAckSeen | Reset, Kind::Other) => Established,
        // The port is used anew, or the SYN is forged and the connection lives: either way it is not the end.
        (Seen::FromClient, Reset, Kind::Open) => Established,
        (Seen::FromClient, BackendFin, Kind::Finish) => Closed,

        // Of a connection that one side had closed: so the client has used its port anew.
        (Seen::FromBackend, SynSeen | ClientFin | BackendFin, Kind::Accept) => SynAckSeen,
        (Seen::FromBackend, SynAckSeen | Unconfirmed | Established | Reset, Kind::Finish) => BackendFin,
        (Seen::FromBackend, ClientFin, Kind::Finish) => Closed,
        // An answer alone proves nothing of the client, whose address may be forged; that it goes on does.
        (Seen::FromBackend, Unconfirmed, Kind::Datagram) => SynAckSeen,
        (_, _, Kind::Datagram) => transition(state, seen, Kind::Other),
        (Seen::FromBackend, Unconfirmed | Reset, _) => Established,

        (Seen::Alone | Seen::AloneLater, SynSeen | SynAckSeen, Kind::Finish | Kind::Other) => Unconfirmed,
        // What goes on was not a flood's.
        (Seen::AloneLater, Unconfirmed, Kind::Other) => Established,
        (Seen::AloneLater, Unconfirmed, Kind::Finish) => ClientFin,
        (Seen::Alone | Seen::AloneLater, Established | Reset, Kind::Finish) => ClientFin,
        (Seen::Alone | Seen::AloneLater, Reset, Kind::Other) => Established,
        // The client has used its port anew. Not half-open: the SYN may be forged, and the backend still sending.
        (Seen::Alone | Seen::AloneLater, ClientFin, Kind::Open) => Established,

        _ => state,
    }
}

/// The states after a kind of segment, by the state before, four bits each.
const fn transitions(seen: Seen, kind: Kind) -> u64 {
    let mut table = 0;
    let mut at = 0;
    while at < STATES.len() {
        let state = STATES[at];
        table |= (transition(state, seen, kind) as u64) << (state as u64 * 4);
        at += 1;
    }
    table
}

/// Looks a transition up by shifting: a branch for each state would be one more path for the kernel's verifier to follow to
/// the end. That the flags pass through `black_box` keeps LLVM from choosing the table early and carrying it along.
macro_rules! after {
    ($state:expr, $seen:path, $flags:expr) => {{
        let table = match Flags(black_box($flags.0)).kind() {
            Kind::Other => const { transitions($seen, Kind::Other) },
            Kind::Finish => const { transitions($seen, Kind::Finish) },
            Kind::Accept => const { transitions($seen, Kind::Accept) },
            Kind::Open => const { transitions($seen, Kind::Open) },
            Kind::Reset => const { transitions($seen, Kind::Reset) },
            Kind::Datagram => const { transitions($seen, Kind::Datagram) },
        };
        State::stored((table >> ($state as u64 * 4)) as u8 & 0xf)
    }};
}

impl State {
    /// The state of the table's discriminant; `None` for empty, being written, and what no version ever wrote.
    pub fn from_bits(bits: u8) -> Option<Self> {
        STATES.into_iter().find(|state| *state as u8 == bits)
    }

    /// The state of an entry's discriminant; an unknown one, which only a newer program could have written, counts as
    /// closed.
    #[inline(always)]
    pub fn stored(bits: u8) -> Self {
        match bits {
            2 => Self::SynSeen,
            3 => Self::SynAckSeen,
            4 => Self::Unconfirmed,
            5 => Self::Established,
            6 => Self::ClientFin,
            7 => Self::BackendFin,
            8 => Self::Reset,
            _ => Self::Closed,
        }
    }

    /// The state after a segment.
    #[inline(always)]
    pub fn after(self, sender: Sender, flags: Flags) -> Self {
        match sender {
            Sender::Client => after!(self, Seen::FromClient, flags),
            Sender::Backend => after!(self, Seen::FromBackend, flags),
        }
    }

    /// The state after a client's segment, or datagram, where the backend's answers are not seen. What goes on (`later`), in
    /// a later tick than the segment before or after several of them, was not a flood's, and counts as established.
    #[inline(always)]
    pub fn after_alone(self, flags: Flags, later: bool) -> Self {
        if later {
            after!(self, Seen::AloneLater, flags)
        } else {
            after!(self, Seen::Alone, flags)
        }
    }

    /// Which idle timeout holds in this state. A half-closed connection that still carries data lives on, since every
    /// packet starts the timeout anew.
    #[inline(always)]
    pub fn timeout_class(self) -> TimeoutClass {
        match self {
            Self::SynSeen | Self::SynAckSeen | Self::Unconfirmed => TimeoutClass::HalfOpen,
            Self::Established => TimeoutClass::Established,
            Self::ClientFin | Self::BackendFin | Self::Reset | Self::Closed => TimeoutClass::Closing,
        }
    }

    /// Whether a SYN on this entry is a new connection that reuses the client's port, to be decided anew. Not after a RST
    /// alone: both may be forged, and the connection may live.
    #[inline(always)]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Whether it is over, as far as can be told: what counts as a connection is not.
    #[inline(always)]
    pub fn looks_over(self) -> bool {
        matches!(self, Self::Reset | Self::Closed)
    }

    /// The name in listings and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::SynSeen => "syn-seen",
            Self::SynAckSeen => "syn-ack-seen",
            Self::Unconfirmed => "unconfirmed",
            Self::Established => "established",
            Self::ClientFin => "client-fin",
            Self::BackendFin => "backend-fin",
            Self::Reset => "reset",
            Self::Closed => "closed",
        }
    }
}

#[cfg(test)]
mod tests;
