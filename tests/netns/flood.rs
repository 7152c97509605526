//! Floods of spoofed packets against one service leave the connections of another one on the same table alone, those that
//! are there and those that come about meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::frame_generator::{FrameGenerator, Kind as Frames, Sent};
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::Full;
use lb_tests::programs;
use xtask::lab::{Backends, Lab, LabOptions, Mode, Node, ServiceText, TRANSFER_PORT, Topology, Wan};
use xtask::transfer::Protocol;
use xtask::transfer::client::Connection;

use crate::support::counted::{nothing_damaged, outcomes};
use crate::support::held::Held;
use crate::support::kind::{Family, Kind, prepare};
use crate::support::{is_full, measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    let cases = KINDS
        .iter()
        .enumerate()
        .map(|(number, &(topology, mode, family))| {
            let kind = Kind {
                topology,
                mode,
                family,
                protocol: Protocol::Tcp,
            };
            let name = format!("flood/{}/{}", mode.name(), kind.slug());
            let is_usual = number < USUAL;
            let case = Case::of(kind.cell(), name, move || survive(kind, size(is_usual)));
            if is_usual { case } else { case.needs(Full) }
        });
    cases.collect()
}

/// What is flooded; all but the first with `--full` only.
const KINDS: [(Topology, Mode, Family); 5] = [
    (Topology::Routed, Mode::Nat, Family::Ipv4),
    (Topology::Routed, Mode::Nat, Family::Ipv6),
    (Topology::Routed, Mode::FullNat, Family::Ipv4),
    (Topology::L2, Mode::Dsr, Family::Ipv4),
    (Topology::L2, Mode::Ipip, Family::Ipv6),
];
const USUAL: usize = 1;

/// Entries of the table that the floods and the connections share.
const TABLE: u32 = 65_536;
/// Of the other table, which has IPv6 connections in it, there are so many times as many.
const NARROW_PER_WIDE: u32 = 8;
/// A tick and a bit.
const LATER: Duration = Duration::from_secs(6);
const WAN: Wan = Wan {
    delay: Duration::from_millis(50),
    reorder_percent: 0,
};
const FLOODED_PORT: u16 = 81;
/// What they are called, what they consist of, and how many frames each spoofed client sends.
const FLOODS: [(&str, Frames, u64); 3] = [
    ("SYNs", Frames::Syn, 1),
    ("frames of pairs of SYN and ACK", Frames::SynThenAck, 2),
    ("ACKs", Frames::Ack, 1),
];

/// How packets of a flood may end: at the sinks, and with `full-nat` once all ports towards these are taken, or where a
/// connection is unknown.
const FLOODS_END: [&str; 5] = [
    "to_backend",
    "to_backend_untracked",
    "to_backend_at_risk",
    "ports_exhausted",
    "full_nat_unknown",
];

/// Connections that are held open, and clients of each flood.
fn size(is_usual: bool) -> (usize, u64) {
    match (is_full(), is_usual) {
        (true, true) => (10_000, 20_000_000),
        (true, false) => (10_000, 5_000_000),
        (false, _) => (1_000, 2_000_000),
    }
}

/// Clients that connect anew, again and again, at a time.
const NEWCOMERS: usize = 32;
/// Longer than this nobody waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of new connections so many in a thousand must succeed.
const LEAST_PER_MILLE: usize = 990;

fn survive(kind: Kind, (held, clients): (usize, u64)) -> Result<usize> {
    let lab = Lab::up(plan(kind)?)?;
    let began = Instant::now();
    let mut held = Held::open(&lab, kind.to(TRANSFER_PORT), held)?;
    measured(&format!(
        "{} connections held {:?}, opened in {:.1} s",
        held.len(),
        held.split(),
        began.elapsed().as_secs_f32()
    ));
    if kind.mode.backends_have_the_vip() {
        // Where only one side is seen, a connection is taken for one when there is traffic a tick later.
        thread::sleep(LATER);
        held.check()?;
    }
    for (name, frames, frames_each) in FLOODS {
        let what = || format!("{name} to {}", kind.to(FLOODED_PORT));
        flood(&lab, kind, &mut held, (name, frames), clients * frames_each).with_context(what)?;
    }
    nothing_damaged(&lab)?;
    lab.down()?;
    Ok(FLOODS.len() * 2)
}

fn plan(kind: Kind) -> Result<LabOptions> {
    let mut options = LabOptions::new("lb-t-flooded", programs::of_the_lab()?);
    prepare(&mut options, kind.topology, kind.mode);
    options.wan = Some(WAN);
    options.max_connections = if kind.family == Family::Ipv4 {
        TABLE
    } else {
        TABLE * NARROW_PER_WIDE
    };
    // With full-nat as many ports as there are by default.
    let mut held = kind.service("held", TRANSFER_PORT);
    held.lines.clear();
    // As operators have it. The lab's probes have 300 ms and are lost with a packet, of which a flood on two processors costs some:
    // two in a row, and all that were chosen for by hashing go to other servers, as they must when one is down.
    held.pace = "";
    options.add_service(&held);
    let mut flooded: ServiceText = kind.service("flooded", FLOODED_PORT);
    flooded.backends = Backends::Sinks;
    flooded.lines.clear();
    options.add_service(&flooded);
    Ok(options)
}

/// One flood, with new connections meanwhile, and all held ones used afterwards.
fn flood(lab: &Lab, kind: Kind, held: &mut Held, (name, frames): (&str, Frames), count: u64) -> Result<()> {
    let before = outcomes(lab)?;
    let mut generator = FrameGenerator::new(lab, kind.to(FLOODED_PORT), frames)?;
    let over = AtomicBool::new(false);
    let (sent, newcomers) = thread::scope(|scope| {
        let newcomers = scope.spawn(|| Newcomers::come(lab, kind.to(TRANSFER_PORT), &over));
        let sent = generator.send(count);
        over.store(true, Ordering::Relaxed);
        let newcomers = newcomers.join().map_err(|_| anyhow!("a newcomer panicked"))?;
        Ok::<_, anyhow::Error>((sent?, newcomers?))
    })?;
    let began = Instant::now();
    held.check().context("a held connection after the flood")?;
    report(lab, name, sent, &newcomers, &before)?;
    measured(&format!(
        "    all {} held connections carry data both ways afterwards, within {:.1} s",
        held.len(),
        began.elapsed().as_secs_f32()
    ));
    let flooded = site::service(lab, &format!("flooded-{}", kind.slug()))?.traffic;
    ensure!(flooded.packets_out == 0, "sinks have answered: {flooded:?}");
    let after = outcomes(lab)?;
    let ended = |name: &&str| after.get(*name).unwrap_or(&0) - before.get(*name).unwrap_or(&0);
    let judged: u64 = FLOODS_END.iter().map(ended).sum();
    ensure!(
        judged >= count * 99 / 100,
        "only {judged} frames of {count} came to the service"
    );
    newcomers
        .assert_good()
        .with_context(|| format!("lbd says:\n{}", site::log(lab).unwrap_or_default()))
}

fn report(
    lab: &Lab,
    name: &str,
    sent: Sent,
    newcomers: &Newcomers,
    before: &BTreeMap<String, u64>,
) -> Result<()> {
    let after = outcomes(lab)?;
    let changed: Vec<_> = after
        .iter()
        .filter_map(|(name, after)| {
            let more = after - before.get(name).unwrap_or(&0);
            (more > 0).then(|| format!("{name} {more}"))
        })
        .collect();
    measured(&format!(
        "{:.1} million {name} in {:.1} s ({:.2} million a second); {newcomers}",
        sent.arrived as f64 / 1e6,
        sent.elapsed.as_secs_f32(),
        sent.rate() / 1e6,
    ));
    measured(&format!("    {}", changed.join(", ")));
    Ok(())
}

/// What became of connections that were opened during a flood.
#[derive(Debug, Default)]
struct Newcomers {
    succeeded: usize,
    /// Why the others did not.
    failures: Vec<String>,
    slowest: Duration,
}

impl Newcomers {
    /// Connects, uses the connection and leaves, again and again, until it is over.
    fn come(lab: &Lab, to: SocketAddr, over: &AtomicBool) -> Result<Self> {
        let come = || {
            let mut own = Self::default();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                match visit(to) {
                    Ok(()) => own.succeeded += 1,
                    Err(error) => own.failures.push(format!("{error:#}")),
                }
                own.slowest = own.slowest.max(began.elapsed());
            }
            own
        };
        lab.namespace(Node::Client).run(|| {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..NEWCOMERS).map(|_| scope.spawn(come)).collect();
                threads.into_iter().try_fold(Self::default(), |mut all, thread| {
                    let own = thread.join().map_err(|_| anyhow!("a newcomer panicked"))?;
                    all.succeeded += own.succeeded;
                    all.failures.extend(own.failures);
                    all.slowest = all.slowest.max(own.slowest);
                    Ok(all)
                })
            })
        })
    }

    fn assert_good(&self) -> Result<()> {
        let all = self.succeeded + self.failures.len();
        ensure!(all >= NEWCOMERS, "only {all} new connections were tried");
        ensure!(
            self.succeeded * 1000 >= all * LEAST_PER_MILLE,
            "{} of {all} new connections failed, the first: {}",
            self.failures.len(),
            self.failures[0]
        );
        Ok(())
    }
}

impl std::fmt::Display for Newcomers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.succeeded + self.failures.len();
        write!(
            formatter,
            "{} of {all} new connections succeeded ({:.2} %), the slowest took {:.1} s",
            self.succeeded,
            100.0 * self.succeeded as f64 / all.max(1) as f64,
            self.slowest.as_secs_f32()
        )
    }
}

/// A connection that is used three times, which all the same server must answer, and lasts about half a second.
fn visit(to: SocketAddr) -> Result<()> {
    let began = Instant::now();
    let mut connection = Connection::open(to)?;
    connection.set_patience(PATIENCE)?;
    let first = connection.ping(1)?;
    thread::sleep(Duration::from_millis(fastrand::u64(50..250)));
    for sequence in 2..4 {
        let next = connection.ping(sequence)?;
        ensure!(
            next.server == first.server && next.peer == first.peer,
            "{first:?}, then {next:?}"
        );
    }
    let took = began.elapsed();
    ensure!(took < PATIENCE, "it took {took:?}");
    Ok(())
}
