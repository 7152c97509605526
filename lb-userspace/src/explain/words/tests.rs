use lb_common::explain::Step;
use lb_common::tcp_state::State;
use lb_common::tick::Tick;

use super::*;
use crate::config::{Ports, Protocol};
use crate::dataplane::{BackendEntry, Forwarding, ServiceEntry};
use crate::explain::Interface;
use crate::neighbours::NextHop;
use lb_common::abi::Choice;

const NOW: u16 = 1000;

fn site() -> Site {
    let backend = |id: u16| BackendEntry {
        id,
        endpoint: format!("198.18.{id}.2:8443").parse().unwrap(),
        forwarding: Forwarding::Nat,
        next_hop: Some(NextHop {
            interface_index: 7,
            source_mac: [2, 0, 0, 0, 0, 3],
            destination_mac: [2, 0, 0, 0, 1, id as u8],
        }),
        up: true,
        leaving: false,
        reset: false,
        weight: 1,
        timeouts: [9, 1800, 30],
    };
    let service = ServiceEntry {
        number: 3,
        vip: "203.0.113.10".parse().unwrap(),
        ports: Ports::One(443.try_into().unwrap()),
        protocol: Protocol::Tcp,
        leaving: false,
        stateless: false,
        silent: false,
        answer_ping: false,
        choice: Choice::Cursor,
        slots: vec![1, 2],
        previous_slots: Vec::new(),
        backends: vec![backend(1), backend(2)],
    };
    let inside = Interface {
        name: "inside".to_owned(),
        index: 7,
        mac: [2, 0, 0, 0, 0, 3],
    };
    let mut site = Site::new(vec![inside], NOW, 4000);
    site.add(&service, "www", |backend| format!("web{}", backend.id));
    site
}

fn notes(steps: &[(Decision, u64, u64)]) -> Notes {
    let mut notes = Notes::EMPTY;
    notes.count = steps.len() as u64;
    for (step, (what, first, second)) in notes.steps.iter_mut().zip(steps) {
        *step = Step {
            what: *what as u64,
            first: *first,
            second: *second,
        };
    }
    notes
}

/// What is said of steps, `about: says`.
fn said(steps: &[(Decision, u64, u64)]) -> Vec<String> {
    let (site, notes) = (site(), notes(steps));
    let told = Told {
        site: &site,
        notes: &notes,
        came: &[],
        left: None,
    };
    told.decisions()
        .iter()
        .map(|line| format!("{}: {}", line.about, line.says))
        .collect()
}

fn entry(backend: u16, state: State) -> u64 {
    Value::new(state, backend, 0, Tick(NOW + 15)).0
}

const SENT: (Decision, u64, u64) = (Decision::Outcome, Outcome::ToBackend as u64, 7);

#[test]
fn a_new_connection_is_told_from_its_service_to_its_next_hop() {
    let steps = [
        (Decision::FromClient, 3, 0),
        (Decision::Slot, 2 << 32, 1 | (Way::Round as u64) << 16),
        (Decision::PassedOver, 1, Outcome::HairpinToSelf as u64),
        (Decision::Slot, 1 | 2 << 32, 2 | (Way::Round as u64) << 16),
        (
            Decision::Entered,
            Entered::Stored as u64,
            entry(2, State::SynSeen),
        ),
        SENT,
    ];
    assert_eq!(
        said(&steps),
        [
            "service: www (tcp 203.0.113.10:443)",
            "connection: none",
            "slot: 1 of 2, next in the round: web1 (198.18.1.2:8443)",
            "slot: not web1 (198.18.1.2:8443): it is the client itself",
            "slot: 2 of 2, next in the round: web2 (198.18.2.2:8443)",
            "entry: syn-seen with web2 (198.18.2.2:8443), 60 s left, from now on",
            "next hop: on inside",
        ]
    );
}

#[test]
fn a_known_connection_needs_no_slot() {
    let steps = [(Decision::FromClient, 3, entry(1, State::Established)), SENT];
    assert_eq!(
        said(&steps)[1],
        "connection: established with web1 (198.18.1.2:8443), 60 s left"
    );
}

#[test]
fn an_answer_is_told_from_its_backend() {
    let membership = Membership {
        service: 3,
        backend: 2,
        next: 0,
        flags: 0,
    };
    let steps = [
        (Decision::FromBackend, membership.pack(), 0),
        (Decision::Untracked, membership.pack(), 0),
        (Decision::Outcome, Outcome::NoConnection as u64, 0),
    ];
    assert_eq!(
        said(&steps),
        [
            "from: web2 (198.18.2.2:8443), a backend of www (tcp 203.0.113.10:443)",
            "connection: none",
            "answer: to none that is balanced: a health probe's, or direct access",
        ]
    );
}

#[test]
fn every_kind_of_decision_has_words() {
    let told = |decision, first, second| said(&[(decision, first, second)]).concat();
    for (says, words) in [
        (
            told(Decision::NotKept, entry(1, State::Closed), 0),
            "closed with web1",
        ),
        (told(Decision::Differ, 1, 2), "before the last change it was web2"),
        (told(Decision::Flooded, 0, 0), "hashing chooses for everybody"),
        (told(Decision::OwnPort, 1, 0), "all own ports towards web1"),
        (told(Decision::OwnPort, 1, 20_000), "20000 of the balancer's own"),
        (
            told(Decision::Entered, Entered::Full as u64, 0),
            "there is no room",
        ),
        (
            told(
                Decision::Entered,
                Entered::Exists as u64,
                entry(1, State::SynSeen),
            ),
            "there is one already: syn-seen with web1",
        ),
        (told(Decision::Untracked, 0, 1), "a connection without an entry"),
        (told(Decision::Route, Answered::Found as u64, 7), "through inside"),
        (
            told(Decision::Route, Answered::NoNeighbour as u64, 0),
            "not known yet",
        ),
        (
            told(Decision::Route, Answered::NoRoute as u64, 0),
            "none that leads on",
        ),
        (told(Decision::Mtu, 7, 0), "fits into inside"),
        (told(Decision::Mtu, 7, 1), "cuts it into fragments"),
        (
            told(Decision::Mtu, 9, 1280),
            "interface 9, which has room for 1280 bytes",
        ),
        (told(Decision::Concerns, 1, 0), "backend: web1"),
        (told(Decision::Concerns, 77, 0), "backend: backend 77"),
    ] {
        assert!(says.contains(words), "{says:?} lacks {words:?}");
    }
    for way in [Way::Hash, Way::Least, Way::Chance] {
        let says = told(Decision::Slot, 2 << 32, 1 | (way as u64) << 16);
        assert!(says.contains("1 of 2, "), "{says}");
        assert_eq!(says.contains("asked again"), way != Way::Hash, "{says}");
    }
}

#[test]
fn of_a_packet_that_nothing_is_looked_up_for_that_is_said() {
    let said = said(&[(Decision::Outcome, Outcome::NotOurs as u64, 0)]);
    assert_eq!(said, ["service: none that has to do with it"]);
}

#[test]
fn a_backend_is_named_only_if_the_packet_gets_there() {
    let (site, chosen) = (site(), (Decision::Slot, 2 << 32, 1));
    let backend = |outcome: Outcome| {
        let notes = notes(&[chosen, (Decision::Outcome, outcome as u64, 7)]);
        let told = Told {
            site: &site,
            notes: &notes,
            came: &[],
            left: None,
        };
        told.backend()
    };
    assert_eq!(
        backend(Outcome::ToBackend),
        Some("web1 (198.18.1.2:8443)".to_owned())
    );
    for nowhere in [
        Outcome::HairpinToSelf,
        Outcome::FullNatUnknown,
        Outcome::TableFull,
    ] {
        assert_eq!(backend(nowhere), None, "{nowhere:?}");
    }
}
