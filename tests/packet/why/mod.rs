//! What the second instance of the program says about a packet is what then becomes of it, and saying so changes nothing.

mod memory;
mod random_site;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use lb::dataplane::{Explained, Explainer, LoadOptions};
use lb_common::connection_table::Value;
use lb_common::explain::{Decision, Way};
use lb_common::outcome::{Action, Outcome};
use lb_tests::harness::{Case, report};
use lb_tests::random_frames::RandomFrames;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::frame::Frame;
use crate::namespace::inside;
use crate::pool::OPTIONS;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::{CLIENT, INGRESS, VIP, World, www};
use memory::Memory;
use random_site::RandomSite;

/// Of random configurations.
const SEEDS: u64 = 4;
/// For each of them.
const PACKETS: u32 = 1000;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = (1..=SEEDS)
        .map(|seed| {
            let name = format!("why::agrees_with_what_becomes_of_{PACKETS}_packets_of_seed_{seed}");
            Case::new(name, move || inside(move || agree(seed)))
        })
        .collect();
    cases.push(Case::new(
        "why::a_new_connection_is_explained_step_by_step",
        steps,
    ));
    cases.push(Case::new("why::a_port_that_is_used_anew_is_decided_anew", anew));
    cases
}

/// Some things are kept for each CPU.
fn stay_here() -> anyhow::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &here)?)
}

/// At least one, whatever their rate is.
const JIFFY: Duration = Duration::from_millis(11);

/// Connections that there is room for: few, so that entries have to make room.
const ROOM: u32 = 150;

fn agree(seed: u64) -> anyhow::Result<()> {
    stay_here()?;
    let mut random = Rng::with_seed(seed);
    let mut site = RandomSite::new(&mut random);
    let options = LoadOptions {
        max_connections: ROOM,
        max_wide_connections: ROOM,
        ..OPTIONS
    };
    let mut world = World::with_options(&site.services, options)?;
    let mut explainer = explainer(&world)?;
    let mut memory = Memory::of(
        &mut world,
        site.services
            .iter()
            .flat_map(|it| &it.backends)
            .map(|it| it.id)
            .collect(),
    )?;
    let mut frames = RandomFrames::new(seed, &site.endpoints());
    let mut outcomes = BTreeMap::<&str, u32>::new();
    let mut decisions = BTreeMap::<String, u32>::new();
    let (mut compared, mut by_chance) = (0, 0);
    let mut number = 0;
    while compared < PACKETS {
        number += 1;
        if number % 100 == 0 {
            // Another state of the same services: backends go down and come back, and slots change.
            site.change(&mut random);
            world.publish_with_mtu(&site.services, random.choice([0, 600, 1500]).unwrap_or(0))?;
            memory.remember(&world)?;
        }
        let frame = match random.u8(..) {
            0..190 => site.frame(&mut random, &world)?,
            _ => frames.next().context("endless")?.bytes,
        };
        let of = || format!("packet {number} of seed {seed}: {frame:02x?}");
        let before = world.dataplane.now()?;
        let explained = answers(&mut explainer, &frame).with_context(of)?;
        memory.is_as_remembered(&world).with_context(of)?;
        let seen = world.run(&frame)?;
        memory.remember_state(&world)?;
        if world.dataplane.now()? != before {
            // A tick passed in between, and with it perhaps a timeout.
            continue;
        }
        compared += 1;
        by_chance += u32::from(explained.len() > 1);
        for (decision, ..) in explained.iter().flat_map(|it| it.notes.decisions()) {
            *decisions.entry(format!("{decision:?}")).or_default() += 1;
        }
        let outcome = one_of(&explained, &seen).with_context(of)?;
        *outcomes.entry(outcome.name()).or_default() += 1;
        if outcome.action() == Action::Transmit {
            // ICMP errors are limited to one in each jiffy, which is another one when the packet comes.
            std::thread::sleep(JIFFY);
        }
    }
    memory.is_as_remembered_of_nobody(&world)?;
    ensure!(number < PACKETS + 100, "{number} packets were needed");
    ensure!(outcomes.len() >= 15, "only {outcomes:?}");
    ensure!(decisions.len() >= 10, "only {decisions:?}");
    report(
        "packets of random configurations about which lbctl why was right, to the byte, and every byte of the maps as before",
        format!(
            "seed {seed}: {compared} packets, {} outcomes, {} kinds of decisions; of {by_chance} chance decided",
            outcomes.len(),
            decisions.len()
        ),
    );
    Ok(())
}

fn explainer(world: &World) -> anyhow::Result<Explainer> {
    let blueprint = world.dataplane.blueprint().map_err(anyhow::Error::msg)?;
    Ok(Explainer::load(&blueprint)?)
}

/// What would become of a frame: several answers where chance decides.
fn answers(explainer: &mut Explainer, frame: &[u8]) -> anyhow::Result<Vec<Explained>> {
    let mut answers = vec![explainer.explain(frame, 0)?];
    while answers.iter().all(is_by_chance) && answers.len() < 60 {
        answers.push(explainer.explain(frame, 0)?);
    }
    Ok(answers)
}

/// One of the answers is what was seen; its outcome.
fn one_of(explained: &[Explained], seen: &Seen) -> anyhow::Result<Outcome> {
    let mut first = Err(anyhow::anyhow!("there is no answer"));
    for (at, answer) in explained.iter().enumerate() {
        match same(answer, seen) {
            Ok(outcome) => return Ok(outcome),
            Err(error) if at == 0 => first = Err(error),
            Err(_) => {}
        }
    }
    first.with_context(|| format!("none of {} answers", explained.len()))
}

/// What was said is what was seen; the outcome.
fn same(explained: &Explained, seen: &Seen) -> anyhow::Result<Outcome> {
    let (outcome, _) = explained.outcome().context("nothing was said of the outcome")?;
    let said = BTreeMap::from([(outcome.name(), 1)]);
    let of = || format!("{:?}", explained.notes.decisions().collect::<Vec<_>>());
    ensure!(
        seen.outcomes == said,
        "said {said:?}, seen {:?}: {}",
        seen.outcomes,
        of()
    );
    ensure!(
        explained.action == seen.action,
        "action {}, seen {}: {}",
        explained.action,
        seen.action,
        of()
    );
    let counted: Vec<_> = seen.backends.keys().copied().collect();
    if let [id] = counted[..] {
        ensure!(
            backend(explained) == Some(id),
            "said {:?}, seen {id}: {}",
            backend(explained),
            of()
        );
    }
    ensure!(
        explained.frame == seen.frame,
        "said\n{:02x?}\nseen\n{:02x?}\n{}",
        explained.frame,
        seen.frame,
        of()
    );
    Ok(outcome)
}

fn is_by_chance(explained: &Explained) -> bool {
    explained.notes.decisions().any(|(decision, _, second)| {
        let way = Way::from_number(second >> 16);
        decision == Decision::Slot && matches!(way, Some(Way::Least | Way::Chance))
    })
}

/// The backend that a packet goes to or comes from, by what was said.
fn backend(explained: &Explained) -> Option<u16> {
    let mut backend = None;
    for (decision, first, second) in explained.notes.decisions() {
        match decision {
            Decision::FromClient if second != 0 => backend = Some(Value(second).backend()),
            Decision::FromBackend => backend = Some((first >> 16) as u16),
            Decision::Slot => backend = Some(second as u16),
            Decision::Entered if second != 0 => backend = Some(Value(second).backend()),
            Decision::Differ => backend = None,
            Decision::Concerns => backend = Some(first as u16),
            _ => {}
        }
    }
    backend
}

/// Asked about the same connection again and again, the answer stays the same, until the packet comes; and the round goes on
/// from where it was.
fn steps() -> anyhow::Result<()> {
    let world = World::new(&[www(3)])?;
    let mut explainer = explainer(&world)?;
    let syn = Talk::new(CLIENT, 1).client_opens().bytes();
    for _ in 0..5 {
        let explained = explainer.explain(&syn, INGRESS)?;
        let decisions: Vec<_> = explained.notes.decisions().collect();
        let [
            (Decision::FromClient, listener, 0),
            (Decision::Slot, slot, chosen),
            (Decision::Entered, 0, value),
            (Decision::Outcome, outcome, interface),
        ] = decisions[..]
        else {
            anyhow::bail!("{decisions:?}");
        };
        ensure!(listener & 0xffff == 1, "service {listener:x}");
        ensure!(slot == 3 << 32 && chosen == 1, "slot {slot:x}, chosen {chosen:x}");
        ensure!(Value(value).backend() == 1, "entry {value:x}");
        ensure!(
            outcome == Outcome::ToBackend as u64 && interface == 4242,
            "{outcome} {interface}"
        );
    }
    ensure!(world.connections()?.is_empty(), "an entry was made");
    for server in [1, 2, 3, 1] {
        let talk = Talk::new((CLIENT.ip(), 50_000 + u16::from(server)).into(), server);
        ensure!(
            world.server_of(&talk.client_opens())? == server,
            "the round was moved"
        );
    }
    Ok(())
}

/// A client's port whose connection is over: the entry is given to another connection, which a dry run only says.
fn anew() -> anyhow::Result<()> {
    let world = World::new(&[www(2)])?;
    let mut explainer = explainer(&world)?;
    let talk = Talk::new((CLIENT.ip(), 41_000).into(), 1);
    world.establish(&talk)?;
    let ends: [Frame; 2] = [talk.backend_says(b"").fin(), talk.client_says(b"").fin()];
    for frame in ends {
        world.pass(&frame.bytes())?;
    }
    let again = talk.client_opens().bytes();
    let explained = explainer.explain(&again, 0)?;
    let (value, _) = explained
        .last(Decision::NotKept)
        .context("nothing said of the old entry")?;
    ensure!(Value(value).backend() == 1, "{value:x}");
    ensure!(backend(&explained) == Some(2), "{:?}", backend(&explained));
    let seen = world.run(&again)?;
    ensure!(explained.frame == seen.frame, "{VIP}: another frame");
    Ok(())
}
