//! Twenty megabytes through a way that loses every fifth packet, and through a long one that changes their order: whatever
//! is sent again, late or twice goes to the same server, and all of it arrives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::Full;
use xtask::lab::{Lab, Mode, Node, TRANSFER_PORT, Topology, Wan};
use xtask::transfer::Protocol;
use xtask::transfer::client::{Connection, Datagrams, Direction};

use crate::support::counted::nothing_damaged;
use crate::support::kind::{Family, Kind, prepare};
use crate::support::shared::Shared;
use crate::support::{is_full, measured};
use crate::surroundings::router_gets_another_mac;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    LABS.iter()
        .flat_map(|&(prefix, topology, mode)| of_lab(prefix, topology, mode))
        .collect()
}

const LABS: [(&str, Topology, Mode); 4] = [
    ("lb-l-nat", Topology::Routed, Mode::Nat),
    ("lb-l-full", Topology::Routed, Mode::FullNat),
    ("lb-l-dsr", Topology::L2, Mode::Dsr),
    ("lb-l-ipip", Topology::L2, Mode::Ipip),
];

/// What is tried without `--full`: of each mode something, of each family and protocol something.
const USUAL: [(Mode, Family, Protocol); 5] = [
    (Mode::Nat, Family::Ipv4, Protocol::Tcp),
    (Mode::FullNat, Family::Ipv6, Protocol::Udp),
    (Mode::Dsr, Family::Ipv6, Protocol::Tcp),
    (Mode::Ipip, Family::Ipv4, Protocol::Udp),
    (Mode::Ipip, Family::Ipv4InIpv6, Protocol::Tcp),
];

const MANY: u64 = 20_000_000;
const WAN: Wan = Wan {
    delay: Duration::from_millis(5),
    reorder_percent: 10,
};
/// So that no datagram is cut into fragments, not in a tunnel either: of one whose fragments change their order only the first
/// gets through, and fills the server's memory for those that wait for the rest.
const BLOCK: usize = 1300;
/// Connections that share the bytes, and how many of them are open at a time.
const PIECES: u64 = 100;
const AT_A_TIME: usize = 20;
const LOSS_PERCENT: u8 = 20;
/// With every fifth packet lost, the third or fourth repetition of one may be lost as well, and is waited for twice as long
/// each time.
const PATIENCE: Duration = Duration::from_secs(400);

fn of_lab(prefix: &'static str, topology: Topology, mode: Mode) -> Vec<Case> {
    let lab = Shared::planned(prefix, move |options| {
        prepare(options, topology, mode);
        options.wan = Some(WAN);
        Kind::all(topology, mode).for_each(|kind| options.add_service(&kind.service("plain", TRANSFER_PORT)));
        Ok(())
    });
    let mut cases: Vec<_> = Kind::all(topology, mode)
        .map(|kind| {
            let (lab, name) = (lab.clone(), format!("lossy/{}/{}", mode.name(), kind.slug()));
            let case = Case::of(kind.cell(), name, move || lab.with(|lab| check(lab, kind)));
            if USUAL.contains(&(mode, kind.family, kind.protocol)) {
                case
            } else {
                case.needs(Full)
            }
        })
        .collect();
    if topology == Topology::Routed {
        cases.push(Case::new(
            format!("lossy/{}/router_gets_another_mac", mode.name()),
            move || lab.with(|lab| router_gets_another_mac(lab, mode)),
        ));
    }
    cases
}

fn check(lab: &Lab, kind: Kind) -> Result<usize> {
    let reordered = both_ways(lab, kind, MANY).context("out of order")?;
    lab.lose(LOSS_PERCENT)?;
    let lossy = with_losses(lab, kind).context("with losses");
    lab.lose(0)?;
    let lossy = lossy?;
    measured(&format!(
        "{}: 20 MB each way took {:.1} s out of order, {:.1} s with losses",
        kind.slug(),
        reordered.elapsed.as_secs_f32(),
        lossy.elapsed.as_secs_f32(),
    ));
    if kind.protocol == Protocol::Udp {
        let blocks = 2 * MANY / BLOCK as u64;
        ensure!(
            lossy.resent > blocks / 4,
            "only {} datagrams of {blocks} were sent again",
            lossy.resent
        );
    }
    nothing_damaged(lab)?;
    Ok(4)
}

/// What transfers have taken.
struct Took {
    elapsed: Duration,
    resent: u64,
}

/// TCP shares the bytes among many connections, of which some are open at a time: through such losses the speed of one is a
/// matter of luck, and a single one may take minutes. With `--full` it may.
fn with_losses(lab: &Lab, kind: Kind) -> Result<Took> {
    if kind.protocol == Protocol::Udp {
        return both_ways(lab, kind, MANY);
    }
    if is_full() {
        both_ways(lab, kind, MANY)?;
    }
    let started = Instant::now();
    let left = AtomicU64::new(PIECES);
    let take_turns = || {
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            both_ways(lab, kind, MANY / PIECES)?;
        }
        Ok::<_, anyhow::Error>(())
    };
    thread::scope(|scope| {
        let threads = [(); AT_A_TIME].map(|()| scope.spawn(take_turns));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(Took {
        elapsed: started.elapsed(),
        resent: 0,
    })
}

/// To and from the same server.
fn both_ways(lab: &Lab, kind: Kind, bytes: u64) -> Result<Took> {
    let started = Instant::now();
    let [get, put] = lab.namespace(Node::Client).run(|| match kind.protocol {
        Protocol::Tcp => {
            let mut connection = Connection::open(kind.to(TRANSFER_PORT))?;
            connection.set_patience(PATIENCE)?;
            Ok([connection.get(bytes)?, connection.put(bytes)?])
        }
        Protocol::Udp => {
            let mut datagrams = Datagrams::open(kind.to(TRANSFER_PORT))?;
            let mut carry = |direction| datagrams.transfer(direction, bytes, BLOCK);
            Ok([carry(Direction::Get)?, carry(Direction::Put)?])
        }
    })?;
    ensure!(
        get.server == put.server && get.peer == put.peer,
        "{get:?}, {put:?}"
    );
    ensure!(get.peer.ip() == lab.client_seen_at(kind.family.vip()), "{get:?}");
    Ok(Took {
        elapsed: started.elapsed(),
        resent: get.resent + put.resent,
    })
}
