//! The state of a TCP connection as somebody sees it who forwards its packets but keeps no sequence numbers.
//!
//! The state decides how long a silent connection is remembered and whether a new one may take its place, and nothing
//! else: a packet of a known connection is forwarded in every state. So a forged segment can shorten a timeout but not
//! cut a connection: what follows it revives the entry.

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
}

impl State {
    /// The state of the table's discriminant; `None` for empty, being written, and what no version ever wrote.
    pub fn from_bits(bits: u8) -> Option<Self> {
        STATES.into_iter().find(|state| *state as u8 == bits)
    }

    /// The state after a segment.
    #[inline(always)]
    pub fn after(self, sender: Sender, flags: Flags) -> Self {
        if flags.resets() {
            return self.after_rst();
        }
        match sender {
            Sender::Client => self.after_client(flags),
            Sender::Backend => self.after_backend(flags),
        }
    }

    /// The state after a client's segment, or datagram, where the backend's answers are not seen: what goes on in a later
    /// tick (`later`) than the one before was not a flood's, and counts as established.
    #[inline(always)]
    pub fn after_alone(self, flags: Flags, later: bool) -> Self {
        if flags.resets() {
            return self.after_rst();
        }
        let finishes = flags.finishes();
        match self {
            Self::SynSeen | Self::SynAckSeen if flags.0 & Flags::SYN == 0 => Self::Unconfirmed,
            Self::Unconfirmed if later => Self::Established,
            Self::Established if finishes => Self::ClientFin,
            Self::Reset if flags.0 & Flags::SYN == 0 => Self::Established,
            state => state,
        }
    }

    /// A refused handshake is over; an established connection only looks so, since a RST is easily forged.
    #[inline(always)]
    fn after_rst(self) -> Self {
        match self {
            Self::SynSeen | Self::SynAckSeen | Self::Unconfirmed | Self::Closed => Self::Closed,
            Self::Established | Self::ClientFin | Self::BackendFin | Self::Reset => Self::Reset,
        }
    }

    #[inline(always)]
    fn after_client(self, flags: Flags) -> Self {
        let finishes = flags.finishes();
        match self {
            Self::SynAckSeen | Self::Established if finishes => Self::ClientFin,
            Self::SynAckSeen if flags.0 & Flags::SYN == 0 => Self::Established,
            Self::BackendFin if finishes => Self::Closed,
            Self::Reset if flags.0 & Flags::SYN == 0 => Self::Established,
            state => state,
        }
    }

    #[inline(always)]
    fn after_backend(self, flags: Flags) -> Self {
        let finishes = flags.finishes();
        match self {
            Self::SynSeen if flags.accepts() => Self::SynAckSeen,
            Self::Established | Self::SynAckSeen | Self::Unconfirmed if finishes => Self::BackendFin,
            Self::ClientFin if finishes => Self::Closed,
            Self::Unconfirmed | Self::Reset => Self::Established,
            state => state,
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

    /// Whether a SYN on this entry is a new connection that reuses the client's port, to be decided anew.
    #[inline(always)]
    pub fn is_over(self) -> bool {
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
mod tests {
    use Sender::{Backend, Client};

    use super::*;

    const SYN: Flags = Flags(Flags::SYN);
    const SYN_ACK: Flags = Flags(Flags::SYN | Flags::ACK);
    const ACK: Flags = Flags(Flags::ACK);
    const FIN: Flags = Flags(Flags::FIN | Flags::ACK);
    const RST: Flags = Flags(Flags::RST);

    fn walk(segments: &[(Sender, Flags)]) -> State {
        segments.iter().fold(State::SynSeen, |state, (sender, flags)| {
            state.after(*sender, *flags)
        })
    }

    #[test]
    fn stories() {
        type Story = (&'static str, &'static [(Sender, Flags)], State);
        let table: &[Story] = &[
            ("a retransmitted SYN", &[(Client, SYN)], State::SynSeen),
            (
                "a flood's SYN and ACK without a backend",
                &[(Client, ACK)],
                State::SynSeen,
            ),
            (
                "handshake",
                &[(Backend, SYN_ACK), (Client, ACK)],
                State::Established,
            ),
            ("refused", &[(Backend, RST)], State::Closed),
            (
                "the client gives up",
                &[(Backend, SYN_ACK), (Client, RST)],
                State::Closed,
            ),
            (
                "a flood's SYN, RST and ACK",
                &[(Client, RST), (Client, ACK)],
                State::Closed,
            ),
            (
                "client closes",
                &[(Backend, SYN_ACK), (Client, ACK), (Client, FIN), (Backend, FIN)],
                State::Closed,
            ),
            (
                "backend closes",
                &[(Backend, SYN_ACK), (Client, ACK), (Backend, FIN), (Client, FIN)],
                State::Closed,
            ),
            (
                "half-closed download",
                &[(Backend, SYN_ACK), (Client, FIN), (Backend, ACK)],
                State::ClientFin,
            ),
            (
                "RST, then silence",
                &[(Backend, SYN_ACK), (Client, ACK), (Client, RST)],
                State::Reset,
            ),
            (
                "a forged RST does not kill",
                &[(Backend, SYN_ACK), (Client, ACK), (Client, RST), (Backend, ACK)],
                State::Established,
            ),
            (
                "a SYN does not revive",
                &[(Backend, SYN_ACK), (Client, ACK), (Client, RST), (Client, SYN)],
                State::Reset,
            ),
        ];
        for (story, segments, expected) in table {
            assert_eq!(walk(segments), *expected, "{story}");
        }
    }

    #[test]
    fn only_a_backend_confirms_what_came_from_nowhere() {
        for flags in (0..=255).map(Flags) {
            let state = State::Unconfirmed.after(Client, flags);
            assert_ne!(state.timeout_class(), TimeoutClass::Established, "{flags:?}");
        }
        assert_eq!(State::Unconfirmed.after(Backend, ACK), State::Established);
    }

    #[test]
    fn no_client_alone_gets_past_half_open() {
        // Whatever a client sends, in any order, without an answer it holds no more than a half-open or closed entry.
        let mut reached = vec![State::SynSeen, State::Unconfirmed];
        let mut next = 0;
        while let Some(&state) = reached.get(next) {
            for flags in (0..=255).map(Flags) {
                let after = state.after(Client, flags);
                if !reached.contains(&after) {
                    reached.push(after);
                }
            }
            next += 1;
        }
        assert!(
            reached
                .iter()
                .all(|s| s.timeout_class() == TimeoutClass::HalfOpen || *s == State::Closed),
            "{reached:?}"
        );
    }

    #[test]
    fn bits_round_trip() {
        for state in STATES {
            assert_eq!(State::from_bits(state as u8), Some(state));
        }
        assert_eq!(State::from_bits(0), None);
        assert_eq!(State::from_bits(1), None);
        assert_eq!(State::from_bits(10), None);
    }
}
