//! Tracing: what is told is what becomes of packets, and packets do not notice.

use anyhow::{Context as _, ensure};
use lb::dataplane::Tracer;
use lb_common::abi::{Address, address};
use lb_common::connection_table::Value;
use lb_common::explain::{Decision, Notes, TraceFilter};
use lb_common::outcome::{OUTCOMES, Outcome};
use lb_tests::harness::Case;

use crate::frame::Frame;
use crate::kind::{FIRST_OWN_PORT, Kind, Mode, NAT};
use crate::talk::Talk;
use crate::world::{INGRESS, World, www};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("trace::tells_what_was_decided", told),
        Case::new("trace::only_what_the_filter_wants", filtered),
        Case::new("trace::no_more_than_the_rate", limited),
        Case::new("trace::packets_do_not_notice", unnoticed),
    ]
}

const ALL: TraceFilter = TraceFilter {
    address: [0; 2],
    outcomes: 0,
    rate: 1_000_000,
    port: 0,
    protocol: 0,
    version: 0,
};

fn trace(world: &mut World, filter: TraceFilter) -> anyhow::Result<Tracer> {
    let blueprint = world.dataplane.blueprint().map_err(anyhow::Error::msg)?;
    let tracer = Tracer::load(&blueprint, filter)?;
    let first = tracer.first()?;
    world.dataplane.trace(Some(&first))?;
    Ok(tracer)
}

fn outcome(notes: &Notes) -> anyhow::Result<Outcome> {
    let (decision, first, _) = notes.decisions().last().context("nothing was decided")?;
    ensure!(decision == Decision::Outcome, "{decision:?} was the last");
    Outcome::from_index(first as u32).context("no such outcome")
}

/// Whole connections of every kind: while there is tracing, when that ends, and when it ends since the daemon is gone.
fn unnoticed() -> anyhow::Result<()> {
    let mut traffic = Traffic {
        world: World::new(&[www(1)])?,
        client: 0,
        own_port: FIRST_OWN_PORT,
    };
    let mut tracer = trace(&mut traffic.world, ALL)?;
    let first = tracer.first()?;
    traffic.of_every_kind()?;
    let mut told = 0;
    while let Some(notes) = tracer.read() {
        outcome(&notes)?;
        told += 1;
    }
    ensure!(
        told == traffic.world.checked(),
        "{told} packets of {} were told of",
        traffic.world.checked()
    );
    traffic.world.dataplane.trace(None)?;
    traffic.of_every_kind()?;
    ensure!(tracer.read().is_none(), "tracing goes on");
    ensure!(tracer.left_out()? == 0, "something was left out");

    traffic.world.dataplane.trace(Some(&first))?;
    traffic.of_every_kind()?;
    ensure!(tracer.read().is_some(), "tracing does not begin again");
    // Without a word to the program, as when the daemon is killed.
    drop(tracer);
    traffic.of_every_kind()
}

/// Connections, each of another client.
struct Traffic {
    world: World,
    client: u32,
    own_port: u16,
}

impl Traffic {
    fn of_every_kind(&mut self) -> anyhow::Result<()> {
        for kind in Kind::all() {
            self.world.publish(&[kind.service(1)])?;
            self.client += 1;
            let talk = kind.talk(self.client, 1).by_own_port(self.own_port);
            if kind.mode == Mode::FullNat {
                self.own_port += 1;
            }
            self.of(kind, &talk).with_context(|| format!("{kind:?}"))?;
        }
        Ok(())
    }

    fn of(&self, kind: Kind, talk: &Talk) -> anyhow::Result<()> {
        let world = &self.world;
        if kind.is_stateless() {
            world.open("first packet", talk)?;
            world.forward("another", talk, talk.client_says(b"more"))?;
        } else {
            world.establish(talk)?;
            world.both("while it lasts", talk, |frame| frame)?;
        }
        let nobodys = Frame::tcp(kind.client(9), kind.client(7));
        world.unchanged("nobody's", Outcome::NotOurs, &nobodys)
    }
}

fn told() -> anyhow::Result<()> {
    let mut world = World::new(&[www(2)])?;
    let mut tracer = trace(&mut world, ALL)?;
    let talk = NAT.talk(1, 1);
    let (syn, accept) = (talk.client_opens(), talk.backend_accepts());
    for frame in [&syn, &accept] {
        world.pass(&frame.bytes())?;
    }
    let notes = tracer.read().context("nothing of the SYN")?;
    let bytes = syn.bytes();
    ensure!(notes.length as usize == bytes.len(), "{} bytes", notes.length);
    ensure!(
        notes.interface_index == INGRESS,
        "interface {}",
        notes.interface_index
    );
    ensure!(
        notes.head[..bytes.len()] == bytes,
        "another frame: {:02x?}",
        notes.head
    );
    let decisions: Vec<_> = notes.decisions().map(|(decision, ..)| decision).collect();
    ensure!(
        decisions
            == [
                Decision::FromClient,
                Decision::Slot,
                Decision::Entered,
                Decision::Outcome
            ],
        "{decisions:?}"
    );
    ensure!(outcome(&notes)? == Outcome::ToBackend, "{:?}", outcome(&notes)?);
    let notes = tracer.read().context("nothing of the SYN-ACK")?;
    let (decision, _, value) = notes.decisions().next().context("no decision")?;
    ensure!(decision == Decision::FromBackend, "{decision:?}");
    ensure!(Value(value).backend() == 1, "{value:x}");
    ensure!(outcome(&notes)? == Outcome::ToClient, "{:?}", outcome(&notes)?);
    world.dataplane.trace(None).map_err(Into::into)
}

fn record(text: &str) -> anyhow::Result<Address> {
    Ok(match text.parse()? {
        std::net::IpAddr::V4(it) => address(&it.octets()),
        std::net::IpAddr::V6(it) => address(&it.octets()),
    })
}

fn filtered() -> anyhow::Result<()> {
    let mut world = World::new(&[www(2)])?;
    let talk = Talk::new("198.18.0.77:40077".parse()?, 1);
    let other = Frame::udp("198.18.0.78:53".parse()?, "198.18.0.79:5353".parse()?);
    let other6 = Frame::udp("[2001:db8::78]:53".parse()?, "[2001:db8::79]:443".parse()?);
    let echo = Frame::echo_request("198.18.0.77".parse()?, "198.18.0.79".parse()?, b"ping");
    let neither = [[0xff; 12].as_slice(), &[0x08, 0x06], &[0; 46]].concat();
    let bit = |outcome: Outcome| 1u64 << outcome as u64;
    let (syn, accept) = (talk.client_opens().bytes(), talk.backend_accepts().bytes());
    let frames = [syn, accept, other.bytes(), other6.bytes(), echo.bytes(), neither];
    for (filter, wanted) in [
        (ALL, &[0, 1, 2, 3, 4, 5][..]),
        (
            TraceFilter {
                address: record("198.18.0.77")?,
                ..ALL
            },
            &[0, 1, 4],
        ),
        // The VIP: of the answer, only as it leaves.
        (
            TraceFilter {
                address: record("203.0.113.10")?,
                ..ALL
            },
            &[0, 1],
        ),
        (
            TraceFilter {
                address: record("2001:db8::79")?,
                ..ALL
            },
            &[3],
        ),
        (
            TraceFilter {
                port: 443u16.to_be(),
                ..ALL
            },
            &[0, 1, 3],
        ),
        (
            TraceFilter {
                port: 53u16.to_be(),
                ..ALL
            },
            &[2, 3],
        ),
        (TraceFilter { protocol: 17, ..ALL }, &[2, 3]),
        (
            TraceFilter {
                protocol: TraceFilter::ICMP,
                ..ALL
            },
            &[4],
        ),
        (TraceFilter { version: 6, ..ALL }, &[3]),
        (TraceFilter { version: 4, ..ALL }, &[0, 1, 2, 4]),
        (
            TraceFilter {
                outcomes: bit(Outcome::ToClient),
                ..ALL
            },
            &[1],
        ),
        (
            TraceFilter {
                outcomes: bit(Outcome::ToBackend) | bit(Outcome::NotOurs),
                ..ALL
            },
            &[0, 2, 3],
        ),
        (
            TraceFilter {
                port: 53u16.to_be(),
                version: 4,
                ..ALL
            },
            &[2],
        ),
        (
            TraceFilter {
                port: 54u16.to_be(),
                ..ALL
            },
            &[],
        ),
    ] {
        let mut tracer = trace(&mut world, filter)?;
        for frame in &frames {
            world.pass(frame)?;
        }
        let mut told = Vec::new();
        while let Some(notes) = tracer.read() {
            let head = &notes.head[..notes.length as usize];
            told.push(
                frames
                    .iter()
                    .position(|frame| frame == head)
                    .context("no frame of ours")?,
            );
        }
        ensure!(
            told == wanted,
            "{filter:?}: {told:?} were told of, not {wanted:?}"
        );
        ensure!(
            tracer.left_out()? == 0,
            "what the filter does not want was left out"
        );
        world.dataplane.trace(None)?;
    }
    ensure!(OUTCOMES.len() <= 64, "outcomes do not fit the filter");
    Ok(())
}

fn limited() -> anyhow::Result<()> {
    let mut world = World::new(&[www(2)])?;
    let mut tracer = trace(&mut world, TraceFilter { rate: 10, ..ALL })?;
    let frame = NAT.talk(1, 1).client_opens().bytes();
    // Perhaps on several CPUs, and perhaps over the end of a second.
    let cpus = std::thread::available_parallelism()?.get();
    for _ in 0..200 {
        world.pass(&frame)?;
    }
    let mut told = 0;
    while tracer.read().is_some() {
        told += 1;
    }
    ensure!(
        (10..=20 * cpus as u64).contains(&told),
        "{told} packets were told of"
    );
    ensure!(
        tracer.left_out()? == 200 - told,
        "{} were left out, {told} told of",
        tracer.left_out()?
    );
    world.dataplane.trace(None)?;
    Ok(())
}
