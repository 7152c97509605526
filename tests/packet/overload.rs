//! More living connections than the table has room for.

use std::collections::BTreeMap;

use anyhow::ensure;
use lb_common::connection_table::{WAYS, buckets_for};
use lb_common::outcome::{Action, Outcome};
use lb_common::tcp_state::State;
use lb_tests::harness::{Case, report};
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::aging;
use crate::frame::Frame;
use crate::kind::{Flavour, Kind, Mode, OWN_PORTS};
use crate::namespace;
use crate::seen::action_number;
use crate::talk::Talk;
use crate::world::{World, web_mac};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::stateful() {
        if kind.flavour == Flavour::Range || kind.is_ipv4() != kind.is_inside_ipv4() {
            continue;
        }
        for percent in [100, 150, 300] {
            let name = format!(
                "overload::table_of_4096_filled_to_{percent}_percent_{}",
                kind.slug()
            );
            let run = move || namespace::inside(move || overload(kind, percent));
            cases.push(Case::of(kind.cell(), name, run).needs(NetworkNamespaces));
        }
    }
    cases
}

/// Entries that the table has room for: 1,024 buckets, which 55 % of so many connections ask for.
const ROOM: u32 = 4096;
const CONNECTIONS: u32 = ROOM * 55 / 100;
const _: () = assert!(buckets_for(CONNECTIONS) * WAYS as u32 == ROOM);
const SERVERS: u8 = 3;
/// Connections that are opened at about the same time.
const BATCH: u32 = 512;

/// A connection that lives: where its first packet went.
struct Live {
    talk: Talk,
    /// What it sends, again and again.
    sends: Vec<u8>,
    /// What its backend answers, and what of that must reach the client; of a mode whose answers come by here.
    answer: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether it has gone on for a while.
    is_established: bool,
    /// Whether it lost its way.
    is_lost: bool,
}

#[derive(Default)]
struct Found {
    live: Vec<Live>,
    refused: BTreeMap<&'static str, u32>,
    /// Had to make room in their handshake.
    evicted: u32,
}

impl Found {
    /// `full-nat`: what lost its entry is over. Those that were established before must not have been.
    fn give_up(&mut self) {
        let before = self.live.len();
        self.live.retain(|live| live.is_established || !live.is_lost);
        self.evicted += (before - self.live.len()) as u32;
        for live in &mut self.live {
            live.is_established = true;
        }
    }
}

fn overload(kind: Kind, percent: u32) -> anyhow::Result<usize> {
    let mut service = kind.service(SERVERS);
    for backend in &mut service.backends {
        // Ports are not what there is too little of.
        if let lb::dataplane::Forwarding::FullNat { lease, .. } = &mut backend.forwarding {
            (lease.ports, lease.first_element) = (8000, u32::from(backend.id - 1) * 8000);
        }
    }
    const { assert!(OWN_PORTS < 8000) };
    let options = lb::dataplane::LoadOptions {
        max_connections: CONNECTIONS,
        max_wide_connections: CONNECTIONS,
        full_nat_ports: 8000 * u32::from(SERVERS),
        ..crate::pool::OPTIONS
    };
    let mut world = World::with_options(&[service], options)?;
    let mut found = Found::default();
    let connections = ROOM * percent / 100;
    let counted_before = world.outcomes()?;
    for first in (0..connections).step_by(BATCH as usize) {
        for number in first..(first + BATCH).min(connections) {
            open(&world, kind, number, &mut found)?;
        }
        // All of them go on, in this tick and in a later one.
        for round in 0..2 {
            if round == 1 {
                aging::entries(&mut world, 2)?;
            }
            for live in &mut found.live {
                go_on(&world, live)?;
            }
        }
        if kind.mode == Mode::FullNat {
            found.give_up();
        }
    }
    let counted = world.outcomes()?;
    let count = |outcome: Outcome| {
        let of = |counts: &BTreeMap<&'static str, u64>| counts.get(outcome.name()).copied().unwrap_or(0);
        of(&counted) - of(&counted_before)
    };
    let refused = found.refused.values().sum::<u32>();
    let lost = found.live.iter().filter(|live| live.is_lost).count() as u32;
    let entries = world.connections()?;
    let established = entries.iter().filter(|it| it.state == State::Established).count();
    let cell = kind.cell();
    report(
        "a table of 4,096 entries, and more living connections than that",
        format!(
            "{:<8}  {:<4}  {:<3}  {percent:>3} %: {connections:>6} connections, {:>4} in the table; lost {lost}, refused {refused}, \
             evicted in the handshake {}; packets untracked {}, at risk {}",
            cell.mode,
            cell.family,
            cell.protocol,
            entries.len(),
            found.evicted,
            count(Outcome::ToBackendUntracked) + count(Outcome::ToClientUntracked),
            count(Outcome::ToBackendAtRisk),
        ),
    );
    ensure!(lost == 0, "{lost} of {connections} are lost");
    if kind.mode == Mode::FullNat {
        let names: Vec<_> = found.refused.keys().copied().collect();
        ensure!(names == [Outcome::TableFull.name()], "{names:?}");
    } else {
        ensure!(refused + found.evicted == 0, "{:?}", found.refused);
    }
    // Nearly all room is used: what is refused a place has none among eight.
    ensure!(
        established as u32 >= ROOM.min(connections) * 7 / 8,
        "{established} established"
    );
    if percent == 300 && kind.mode != Mode::FullNat {
        ensure!(count(Outcome::ToBackendUntracked) > 0, "the table was never full");
    }
    Ok(1)
}

/// The server that a client's frame goes to, or what else becomes of it.
fn server_of(world: &World, frame: &[u8]) -> anyhow::Result<Option<u8>> {
    let (action, out) = world.pass(frame)?;
    if action != action_number(Action::Redirect) {
        return Ok(None);
    }
    let number = out[5];
    ensure!(out[..6] == web_mac(number), "{out:02x?}");
    Ok(Some(number))
}

fn open(world: &World, kind: Kind, number: u32, found: &mut Found) -> anyhow::Result<()> {
    let first = kind.talk(number, 1).client_opens();
    let (action, out) = world.pass(&first.bytes())?;
    if action != action_number(Action::Redirect) {
        *found.refused.entry(refusal(world, &first)?).or_default() += 1;
        return Ok(());
    }
    let own_port = match kind.mode {
        Mode::FullNat => own_port(kind, &out),
        _ => 0,
    };
    let talk = kind.talk(number, out[5]).by_own_port(own_port);
    let answer = talk.backend_says(b"y");
    let mut live = Live {
        sends: talk.client_says(b"x").bytes(),
        answer: talk
            .is_answered()
            .then(|| (answer.bytes(), talk.at_client(&answer).bytes())),
        talk,
        is_established: false,
        is_lost: false,
    };
    if live.talk.is_answered() {
        let accepted = live.talk.backend_accepts();
        let expected = live.talk.at_client(&accepted).bytes();
        live.is_lost |= !is_answered(world, &accepted.bytes(), &expected)?;
    }
    found.live.push(live);
    Ok(())
}

/// `full-nat`: the source port of what went to a backend.
fn own_port(kind: Kind, frame: &[u8]) -> u16 {
    let at = 14 + if kind.is_ipv4() { 20 } else { 40 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn refusal(world: &World, frame: &Frame) -> anyhow::Result<&'static str> {
    let counted = world.counting(|| world.pass(&frame.bytes()).map(drop))?;
    Ok(counted.keys().next().copied().unwrap_or("nothing"))
}

/// A packet each way, as far as the mode has both.
fn go_on(world: &World, live: &mut Live) -> anyhow::Result<()> {
    live.is_lost |= server_of(world, &live.sends)? != Some(live.talk.backend.id as u8);
    if let Some((answer, expected)) = &live.answer {
        live.is_lost |= !is_answered(world, answer, expected)?;
    }
    Ok(())
}

/// Whether an answer reaches the client, as if it came from the VIP.
fn is_answered(world: &World, answer: &[u8], expected: &[u8]) -> anyhow::Result<bool> {
    let (action, out) = world.pass(answer)?;
    Ok(action != action_number(Action::Pass) && out == expected)
}
