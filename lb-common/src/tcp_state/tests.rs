use Sender::{Backend, Client};
use State::{BackendFin, ClientFin, Closed, Established, Reset, SynAckSeen, SynSeen, Unconfirmed};

use super::*;

const SYN: Flags = Flags(Flags::SYN);
const SYN_ACK: Flags = Flags(Flags::SYN | Flags::ACK);
const ACK: Flags = Flags(Flags::ACK);
const FIN: Flags = Flags(Flags::FIN | Flags::ACK);
const RST: Flags = Flags(Flags::RST);

fn all_flags() -> impl Iterator<Item = Flags> {
    (0..=255).map(Flags)
}

fn walk(segments: &[(Sender, Flags)]) -> State {
    segments
        .iter()
        .fold(SynSeen, |state, (sender, flags)| state.after(*sender, *flags))
}

#[test]
fn stories() {
    type Story = (&'static str, &'static [(Sender, Flags)], State);
    let table: &[Story] = &[
        ("a retransmitted SYN", &[(Client, SYN)], SynSeen),
        (
            "a flood's SYN and ACK without a backend",
            &[(Client, ACK)],
            SynSeen,
        ),
        ("handshake", &[(Backend, SYN_ACK), (Client, ACK)], Established),
        (
            "a retransmitted SYN-ACK",
            &[(Backend, SYN_ACK), (Client, ACK), (Backend, SYN_ACK)],
            Established,
        ),
        ("refused", &[(Backend, RST)], Closed),
        (
            "the client gives up",
            &[(Backend, SYN_ACK), (Client, RST)],
            Closed,
        ),
        (
            "a flood's SYN, RST and ACK",
            &[(Client, RST), (Client, ACK)],
            Closed,
        ),
        (
            "client closes",
            &[(Backend, SYN_ACK), (Client, ACK), (Client, FIN), (Backend, FIN)],
            Closed,
        ),
        (
            "backend closes",
            &[(Backend, SYN_ACK), (Client, ACK), (Backend, FIN), (Client, FIN)],
            Closed,
        ),
        (
            "the last acknowledgment does not revive",
            &[
                (Backend, SYN_ACK),
                (Client, ACK),
                (Backend, FIN),
                (Client, FIN),
                (Backend, ACK),
            ],
            Closed,
        ),
        (
            "half-closed download",
            &[(Backend, SYN_ACK), (Client, FIN), (Backend, ACK)],
            ClientFin,
        ),
        (
            "half-closed upload",
            &[(Backend, SYN_ACK), (Client, ACK), (Backend, FIN), (Client, ACK)],
            BackendFin,
        ),
        (
            "RST, then silence",
            &[(Backend, SYN_ACK), (Client, ACK), (Client, RST)],
            Reset,
        ),
        (
            "a forged RST does not kill",
            &[(Backend, SYN_ACK), (Client, ACK), (Client, RST), (Backend, ACK)],
            Established,
        ),
        (
            "nor for the client",
            &[(Backend, SYN_ACK), (Client, ACK), (Backend, RST), (Client, ACK)],
            Established,
        ),
        (
            "a FIN that a RST has overtaken",
            &[(Backend, SYN_ACK), (Client, ACK), (Client, RST), (Client, FIN)],
            ClientFin,
        ),
        (
            "a backend's, likewise",
            &[(Backend, SYN_ACK), (Client, ACK), (Backend, RST), (Backend, FIN)],
            BackendFin,
        ),
        (
            "a SYN from a port whose connection was reset",
            &[(Backend, SYN_ACK), (Client, ACK), (Client, RST), (Client, SYN)],
            Established,
        ),
        (
            "a port used anew, whose last connection was half-closed",
            &[
                (Backend, SYN_ACK),
                (Client, ACK),
                (Client, FIN),
                (Client, SYN),
                (Backend, SYN_ACK),
                (Client, ACK),
            ],
            Established,
        ),
    ];
    for (story, segments, expected) in table {
        assert_eq!(walk(segments), *expected, "{story}");
    }
}

/// Every transition where both directions are seen; what is not listed changes nothing.
#[test]
fn transitions_of_both_directions() {
    let client: &[(State, Flags, State)] = &[
        (SynSeen, RST, Closed),
        (SynAckSeen, ACK, Established),
        (SynAckSeen, FIN, ClientFin),
        (SynAckSeen, RST, Closed),
        (Unconfirmed, RST, Closed),
        (Established, FIN, ClientFin),
        (Established, RST, Reset),
        (ClientFin, RST, Reset),
        (BackendFin, FIN, Closed),
        (BackendFin, RST, Reset),
        (Reset, ACK, Established),
        (Reset, SYN, Established),
        (Reset, FIN, ClientFin),
    ];
    let backend: &[(State, Flags, State)] = &[
        (SynSeen, SYN_ACK, SynAckSeen),
        (SynSeen, RST, Closed),
        (SynAckSeen, FIN, BackendFin),
        (SynAckSeen, RST, Closed),
        (Unconfirmed, Flags::NONE, SynAckSeen),
        (Unconfirmed, ACK, Established),
        (Unconfirmed, SYN, Established),
        (Unconfirmed, SYN_ACK, Established),
        (Unconfirmed, FIN, BackendFin),
        (Unconfirmed, RST, Closed),
        (Established, FIN, BackendFin),
        (Established, RST, Reset),
        (ClientFin, FIN, Closed),
        (ClientFin, SYN_ACK, SynAckSeen),
        (ClientFin, RST, Reset),
        (BackendFin, SYN_ACK, SynAckSeen),
        (BackendFin, RST, Reset),
        (Reset, ACK, Established),
        (Reset, SYN, Established),
        (Reset, SYN_ACK, Established),
        (Reset, FIN, BackendFin),
    ];
    for (sender, changes) in [(Client, client), (Backend, backend)] {
        check(changes, |state, flags| state.after(sender, flags));
    }
}

/// Every transition where only the client is seen, in the same tick and in a later one.
#[test]
fn transitions_of_one_direction() {
    let always: &[(State, Flags, State)] = &[
        (SynSeen, ACK, Unconfirmed),
        (SynSeen, FIN, Unconfirmed),
        (SynSeen, RST, Closed),
        (SynAckSeen, ACK, Unconfirmed),
        (SynAckSeen, FIN, Unconfirmed),
        (SynAckSeen, RST, Closed),
        (Unconfirmed, RST, Closed),
        (Established, FIN, ClientFin),
        (Established, RST, Reset),
        (ClientFin, SYN, Established),
        (ClientFin, RST, Reset),
        (BackendFin, RST, Reset),
        (Reset, ACK, Established),
        (Reset, FIN, ClientFin),
    ];
    let later = [
        always,
        &[(Unconfirmed, ACK, Established), (Unconfirmed, FIN, ClientFin)],
    ]
    .concat();
    check(always, |state, flags| state.after_alone(flags, false));
    check(&later, |state, flags| state.after_alone(flags, true));
}

/// Compares the state after every state and every combination of flags with a list of changes.
fn check(changes: &[(State, Flags, State)], after: impl Fn(State, Flags) -> State) {
    for state in STATES {
        for flags in all_flags() {
            // The flag that matters most.
            let kind = if flags.resets() {
                RST
            } else if flags.finishes() {
                FIN
            } else if flags.accepts() {
                SYN_ACK
            } else if flags.opens() {
                SYN
            } else {
                ACK
            };
            let datagram = changes
                .iter()
                .find(|(from, on, _)| (*from, *on) == (state, flags) && flags == Flags::NONE);
            let change = datagram.or(changes.iter().find(|(from, on, _)| (*from, *on) == (state, kind)));
            let expected = change.map_or(state, |(_, _, to)| *to);
            assert_eq!(after(state, flags), expected, "{state:?}, {flags:?}");
        }
    }
}

#[test]
fn datagrams_are_established_once_they_go_on() {
    assert_eq!(Unconfirmed.after(Client, Flags::NONE), Unconfirmed);
    assert_eq!(Unconfirmed.after(Backend, Flags::NONE), SynAckSeen);
    assert_eq!(SynAckSeen.after(Backend, Flags::NONE), SynAckSeen);
    assert_eq!(SynAckSeen.after(Client, Flags::NONE), Established);
    assert_eq!(Established.after(Client, Flags::NONE), Established);
    assert_eq!(Unconfirmed.after_alone(Flags::NONE, false), Unconfirmed);
    assert_eq!(Unconfirmed.after_alone(Flags::NONE, true), Established);
}

#[test]
fn only_a_backend_confirms_what_came_from_nowhere() {
    for flags in all_flags() {
        let state = Unconfirmed.after(Client, flags);
        assert_ne!(state.timeout_class(), TimeoutClass::Established, "{flags:?}");
    }
    assert_eq!(Unconfirmed.after(Backend, ACK), Established);
}

/// Every state that can be reached from some by segments that one step gives.
fn reachable(from: &[State], step: impl Fn(State, Flags) -> State) -> Vec<State> {
    let mut reached = from.to_vec();
    let mut next = 0;
    while let Some(&state) = reached.get(next) {
        for flags in all_flags() {
            let after = step(state, flags);
            if !reached.contains(&after) {
                reached.push(after);
            }
        }
        next += 1;
    }
    reached
}

/// Whatever a client sends, in any order, without an answer it holds no more than a half-open or closed entry; nor, where
/// answers are not seen, within one tick.
#[test]
fn no_client_alone_gets_past_half_open() {
    let with_answers = reachable(&[SynSeen, Unconfirmed], |state, flags| state.after(Client, flags));
    let without = reachable(&[SynSeen, Unconfirmed], |state, flags| {
        state.after_alone(flags, false)
    });
    for reached in [with_answers, without] {
        assert!(
            reached
                .iter()
                .all(|s| s.timeout_class() == TimeoutClass::HalfOpen || *s == Closed),
            "{reached:?}"
        );
    }
}

/// Whatever is sent in a client's name, a connection that lives does not become one that others may evict. (With the
/// backend's FIN, a client's ends it.)
#[test]
fn nothing_forged_in_a_clients_name_makes_an_established_connection_evictable() {
    let living = [Established, ClientFin, Reset];
    for step in [
        (&|state: State, flags| state.after(Client, flags)) as &dyn Fn(State, Flags) -> State,
        &|state, flags| state.after_alone(flags, false),
        &|state, flags| state.after_alone(flags, true),
    ] {
        let reached = reachable(&living, step);
        assert!(reached.iter().all(|state| living.contains(state)), "{reached:?}");
    }
}

#[test]
fn bits_round_trip() {
    for state in STATES {
        assert_eq!(State::from_bits(state as u8), Some(state));
        assert_eq!(State::stored(state as u8), state);
    }
    for bits in [0, 1, 10, 15, 255] {
        assert_eq!(State::from_bits(bits), None);
        assert_eq!(State::stored(bits), Closed);
    }
}

#[test]
fn names_are_unique() {
    let names: std::collections::HashSet<_> = STATES.iter().map(|state| state.name()).collect();
    assert_eq!(names.len(), STATES.len());
}

/// The program does not even ask then.
#[test]
fn an_ordinary_segment_leaves_an_established_connection_as_it_is() {
    let ordinary: Vec<Flags> = all_flags().filter(|flags| flags.is_ordinary()).collect();
    assert!(ordinary.contains(&ACK) && ordinary.contains(&Flags::NONE));
    for flags in ordinary {
        for sender in [Client, Backend] {
            assert_eq!(Established.after(sender, flags), Established, "{flags:?}");
        }
        for later in [false, true] {
            assert_eq!(Established.after_alone(flags, later), Established, "{flags:?}");
        }
    }
}
