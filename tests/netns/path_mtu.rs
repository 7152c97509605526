//! Path MTU discovery: servers learn of a narrow link near the client, and clients of the balancer's tunnels.

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::Full;
use xtask::lab::{Lab, Mode, Node, TRANSFER_PORT, Topology};
use xtask::transfer::Protocol;
use xtask::transfer::client::Direction;

use crate::support::capture::{Capture, Captured, longest};
use crate::support::counted::{nothing_wrong, outcome};
use crate::support::kind::{Family, Kind, prepare};
use crate::support::link::mac;
use crate::support::shared::Shared;
use crate::support::{measured, path_mtu};

/// The tests of narrow links.
pub(crate) fn cases() -> Vec<Case> {
    LABS.iter()
        .flat_map(|&(prefix, topology, mode)| of_lab(prefix, topology, mode))
        .collect()
}

/// Where the mode is at home; the others with `--full`.
const LABS: [(&str, Topology, Mode); 8] = [
    ("lb-p-nat", Topology::Routed, Mode::Nat),
    ("lb-p-full", Topology::Routed, Mode::FullNat),
    ("lb-p-dsr1", Topology::L2, Mode::Dsr),
    ("lb-p-ipip1", Topology::L2, Mode::Ipip),
    ("lb-p-nat1", Topology::L2, Mode::Nat),
    ("lb-p-full1", Topology::L2, Mode::FullNat),
    ("lb-p-dsr", Topology::Routed, Mode::Dsr),
    ("lb-p-ipip", Topology::Routed, Mode::Ipip),
];
const USUAL: usize = 4;

const NARROW: u16 = 1280;
const ETHERNET: usize = 14;
/// A header for the tunnel, IPv4 and IPv6.
const OUTER: (usize, usize) = (20, 40);
/// The longest frame of an ordinary link.
const LONG: usize = ETHERNET + 1500;
const MANY: u64 = 20_000_000;

fn of_lab(prefix: &'static str, topology: Topology, mode: Mode) -> Vec<Case> {
    let lab = Shared::planned(prefix, move |options| {
        prepare(options, topology, mode);
        options.client_mtu = NARROW;
        Kind::all(topology, mode).for_each(|kind| options.add_service(&kind.service("plain", TRANSFER_PORT)));
        Ok(())
    });
    let is_usual = LABS[..USUAL].contains(&(prefix, topology, mode));
    Kind::all(topology, mode)
        .map(|kind| {
            let name = format!("path_mtu/{}/{}/{}", topology.name(), mode.name(), kind.slug());
            let lab = lab.clone();
            let case = Case::of(kind.cell(), name, move || lab.with(|lab| downloads(lab, kind)));
            if is_usual { case } else { case.needs(Full) }
        })
        .collect()
}

/// A server sends the client more than the link before it takes, and is told.
fn downloads(lab: &Lab, kind: Kind) -> Result<usize> {
    path_mtu::forget(lab)?;
    let told = outcome(lab, "icmp_to_backend")?;
    let captures = Node::WEB.map(|node| Ok::<_, anyhow::Error>((node, answers(lab, node, kind.protocol)?)));
    let report = lab.transfer(kind.protocol, Direction::Get, kind.to(TRANSFER_PORT), MANY)?;
    let mut sent = None;
    for capture in captures {
        let (node, capture) = capture?;
        let frames = capture.stop()?;
        if node.name() == report.server {
            sent = Some(frames);
        }
    }
    let sent = sent.with_context(|| format!("{report:?}: there is no such server"))?;
    let told = outcome(lab, "icmp_to_backend")? - told;
    assert_shrinks(&sent, ETHERNET + usize::from(NARROW))
        .with_context(|| format!("{}, {told} errors", report.server))?;
    measured(&format!(
        "{}: 20 MB down in {:.1} s; {} sent {} long packets, {told} errors told it, then {} of at most {NARROW} bytes",
        kind.slug(),
        report.elapsed.as_secs_f32(),
        report.server,
        sent.iter()
            .filter(|frame| frame.length > ETHERNET + usize::from(NARROW))
            .count(),
        sent.iter()
            .filter(|frame| frame.length <= ETHERNET + usize::from(NARROW))
            .count(),
    ));
    ensure!(told > 0, "no ICMP error has passed the balancer");
    nothing_wrong(lab)?;
    Ok(2)
}

/// What a server sends.
fn answers(lab: &Lab, node: Node, protocol: Protocol) -> Result<Capture> {
    let mac = mac(lab, node, "eth0")?;
    let what = match protocol {
        Protocol::Tcp => format!("tcp and src port {TRANSFER_PORT}"),
        // Later fragments have no ports, and IPv6 has an extension header before them.
        Protocol::Udp => "(ip or ip6) and not tcp and not icmp and not icmp6".to_owned(),
    };
    Capture::start(lab, node, "eth0", &format!("ether src {mac} and {what}"))
}

/// At first some of the longest that an ordinary link takes, in the second half none that a link with this longest frame does
/// not take, and some of just that.
fn assert_shrinks(frames: &[Captured], narrow: usize) -> Result<()> {
    let (first, second) = frames.split_at(frames.len() / 2);
    ensure!(
        longest(first) > narrow
            && longest(first) <= LONG
            && (narrow - 16..=narrow).contains(&longest(second)),
        "{} frames of up to {} bytes, then {} of up to {}",
        first.len(),
        longest(first),
        second.len(),
        longest(second)
    );
    Ok(())
}

/// A client sends as much as every link takes, which is too much with the tunnel's header: in one more test for each lab with
/// `ipip`.
pub(crate) fn upload_through_tunnel(lab: &Lab, kind: Kind) -> Result<usize> {
    path_mtu::forget(lab)?;
    let too_big = outcome(lab, "too_big")?;
    let to = kind.to(TRANSFER_PORT);
    let capture = Capture::start(
        lab,
        Node::Client,
        "eth0",
        &format!("dst host {} and dst port {}", to.ip(), to.port()),
    )?;
    let report = lab.transfer(kind.protocol, Direction::Put, to, MANY)?;
    let sent = capture.stop()?;
    let too_big = outcome(lab, "too_big")? - too_big;
    let outer = if kind.family == Family::Ipv4 {
        OUTER.0
    } else {
        OUTER.1
    };
    assert_shrinks(&sent, LONG - outer).with_context(|| format!("{too_big} errors"))?;
    measured(&format!(
        "{}: 20 MB up in {:.1} s; packets of {} bytes at first, after {too_big} errors of {}",
        kind.slug(),
        report.elapsed.as_secs_f32(),
        longest(&sent) - ETHERNET,
        longest(&sent[sent.len() / 2..]) - ETHERNET,
    ));
    ensure!(too_big > 0, "the balancer has not told the client");
    Ok(1)
}
