//! What packets cost without a clock: the instructions that the program goes through on each path, and what it calls, held
//! against what is recorded (`lb_tests::recorded`). The kernel makes about one instruction of the processor of each, and puts six
//! more in the place of a lookup in an array.

mod code;
mod machine;
mod memory;

use anyhow::ensure;
use lb::config::Protocol;
use lb_common::outcome::Action;
use lb_tests::harness::Case;
use lb_tests::measured::measured;
use lb_tests::programs;
use lb_tests::recorded::{Compiler, hold};

use self::code::Code;
use self::machine::{Cost, Machine};
use self::memory::Memory;
use crate::frame::Frame;
use crate::kind::{Family, Flavour, Kind, Mode, NAT};
use crate::pool::OPTIONS;
use crate::seen::action_number;
use crate::talk::Talk;
use crate::world::{INGRESS, World};

/// Kinds of services that go different ways.
const KINDS: [(&str, Kind); 9] = [
    ("nat", NAT),
    (
        "nat UDP",
        Kind {
            protocol: Protocol::Udp,
            ..NAT
        },
    ),
    (
        "nat IPv6",
        Kind {
            family: Family::Ipv6,
            ..NAT
        },
    ),
    (
        "nat several ports",
        Kind {
            flavour: Flavour::Range,
            ..NAT
        },
    ),
    (
        "full-nat",
        Kind {
            mode: Mode::FullNat,
            ..NAT
        },
    ),
    (
        "dsr",
        Kind {
            mode: Mode::Dsr,
            ..NAT
        },
    ),
    (
        "dsr IPv6",
        Kind {
            mode: Mode::Dsr,
            family: Family::Ipv6,
            ..NAT
        },
    ),
    (
        "ipip",
        Kind {
            mode: Mode::Ipip,
            ..NAT
        },
    ),
    (
        "ipip IPv6",
        Kind {
            mode: Mode::Ipip,
            family: Family::Ipv6,
            ..NAT
        },
    ),
];

/// Of Ethernet, without its checksum.
const SHORTEST_FRAME: usize = 60;

pub fn cases() -> Vec<Case> {
    let paths = KINDS.map(|(name, kind)| {
        let slug = name.replace([' ', '-'], "_").to_lowercase();
        Case::new(format!("path_cost::{slug}_is_as_recorded"), move || {
            paths(name, kind)
        })
    });
    let size = Case::new("path_cost::programs_are_as_large_as_recorded", sizes);
    paths.into_iter().chain([size]).collect()
}

fn object() -> anyhow::Result<(Code, Compiler)> {
    let bytes = std::fs::read(programs::object("lb-ebpf")?)?;
    Ok((Code::of(&bytes)?, Compiler::of(&bytes)))
}

/// Every program and function of the object.
fn sizes() -> anyhow::Result<()> {
    let (code, compiler) = object()?;
    let rows = code.lengths.iter().map(|(name, length)| {
        measured("instructions in the object", name, "instructions", length);
        (name.clone(), vec![("instructions", *length)])
    });
    hold("size", &rows.collect::<Vec<_>>(), &compiler)
}

/// The ways that packets of a kind of service go.
fn paths(name: &str, kind: Kind) -> anyhow::Result<()> {
    let (code, compiler) = object()?;
    // Of its own, so that it always is the same copy of the tables that is active.
    let world = World::alone(&[kind.service(2)], OPTIONS)?;
    let mut machine = Machine {
        memory: Memory::of(&world.dataplane, &code)?,
        code: &code,
        ingress: INGRESS,
        jiffies: 1 << 32,
    };
    let talk = kind.talk(0, 1);
    let mut rows = Vec::new();
    let mut measure = |path: &str, frame: &Frame, action: Action| -> anyhow::Result<()> {
        let mut bytes = frame.bytes();
        // As every frame on a wire is padded.
        bytes.resize(bytes.len().max(SHORTEST_FRAME), 0);
        machine.memory.frame = bytes;
        let cost = machine.run()?;
        ensure!(
            cost.action == u64::from(action_number(action)),
            "{path}: {cost:?}"
        );
        rows.push((format!("{name}: {path}"), row(&cost)));
        Ok(())
    };
    measure("new connection", &talk.client_opens(), Action::Redirect)?;
    if talk.is_answered() {
        measure("first answer", &talk.backend_accepts(), Action::Transmit)?;
    }
    measure("second packet", &talk.client_says(b""), Action::Redirect)?;
    if !talk.is_answered() {
        // Goes on, and so counts as established.
        measure("third packet", &talk.client_says(b""), Action::Redirect)?;
        measure("fourth packet", &talk.client_says(b""), Action::Redirect)?;
    }
    measure("to backend", &talk.client_says(b""), Action::Redirect)?;
    if talk.is_answered() {
        measure("to client", &talk.backend_says(b""), Action::Transmit)?;
    }
    measure("not ours", &elsewhere(&talk).client_says(b""), Action::Pass)?;
    hold("path", &rows, &compiler)
}

/// To an address that no service is at.
fn elsewhere(talk: &Talk) -> Talk {
    let mut talk = talk.clone();
    talk.vip.set_port(talk.vip.port() ^ 0x4000);
    talk
}

fn row(cost: &Cost) -> Vec<(&'static str, u64)> {
    cost.counted.iter().map(|(what, count)| (*what, *count)).collect()
}
