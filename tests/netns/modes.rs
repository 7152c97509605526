//! Every mode, family and protocol, with the balancer between its servers and with one arm: real requests, megabytes both
//! ways, ports that are mapped or kept, and datagrams in fragments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, LabOptions, Mode, Node, ServiceText, TRANSFER_PORT, TRANSFER_PORTS, Topology};
use xtask::transfer::Protocol;
use xtask::transfer::client::{Connection, Datagrams, Direction, Report};

use crate::path_mtu::upload_through_tunnel;
use crate::support::counted::{nothing_wrong, outcome};
use crate::support::kind::{Kind, VIP_WITH_ALL_PORTS, prepare};
use crate::support::shared::Shared;
use crate::support::{measured, path_mtu};
use crate::surroundings;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    LABS.iter()
        .flat_map(|&(prefix, topology, mode)| of_lab(prefix, topology, mode))
        .collect()
}

const LABS: [(&str, Topology, Mode); 8] = [
    ("lb-m-nat", Topology::Routed, Mode::Nat),
    ("lb-m-full", Topology::Routed, Mode::FullNat),
    ("lb-m-dsr", Topology::Routed, Mode::Dsr),
    ("lb-m-ipip", Topology::Routed, Mode::Ipip),
    ("lb-m-nat1", Topology::L2, Mode::Nat),
    ("lb-m-full1", Topology::L2, Mode::FullNat),
    ("lb-m-dsr1", Topology::L2, Mode::Dsr),
    ("lb-m-ipip1", Topology::L2, Mode::Ipip),
];

/// To the same port of the servers.
const PLAIN: u16 = TRANSFER_PORT;
/// To another port of theirs, in the modes that can.
const MAPPED: (u16, u16) = (7001, TRANSFER_PORT + 1);
/// Several ports.
const RANGE: (u16, u16) = (TRANSFER_PORT + 2, TRANSFER_PORT + 3);
/// UDP without a connection table, in the modes that can.
const STATELESS: u16 = TRANSFER_PORT + 4;
const HTTPS: u16 = 443;

/// What every kind carries each way.
const MANY: u64 = 20_000_000;
/// What further services carry.
const SOME: u64 = 300_000;
const LONG_BLOCK: usize = 4400;

fn of_lab(prefix: &'static str, topology: Topology, mode: Mode) -> Vec<Case> {
    let name = |what: &str| format!("modes/{}/{}/{what}", topology.name(), mode.name());
    let lab = Shared::planned(prefix, move |options| {
        prepare(options, topology, mode);
        Kind::all(topology, mode).for_each(|kind| add_services(options, kind));
        if mode.backends_have_the_vip() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let name = format!("any-{}", protocol.name());
                let mut any = ServiceText::new(&name, VIP_WITH_ALL_PORTS, 1, protocol, mode);
                any.last_port = Some(u16::MAX);
                options.add_service(&any);
            }
        }
        Ok(())
    });
    let mut cases: Vec<_> = Kind::all(topology, mode)
        .map(|kind| {
            let lab = lab.clone();
            Case::of(kind.cell(), name(&kind.slug()), move || {
                lab.with(|lab| check(lab, kind))
            })
        })
        .collect();
    let tunnels =
        Kind::all(topology, mode).filter(|kind| kind.mode == Mode::Ipip && kind.protocol == Protocol::Tcp);
    cases.extend(tunnels.map(|kind| {
        let lab = lab.clone();
        Case::of(kind.cell(), name(&format!("{}-upload", kind.slug())), move || {
            lab.with(|lab| upload_through_tunnel(lab, kind))
        })
    }));
    if mode.backends_have_the_vip() {
        let lab = lab.clone();
        cases.push(Case::new(name("any_port"), move || lab.with(|lab| any_port(lab))));
    }
    cases.extend(surroundings::of_lab(&lab, topology, mode));
    cases.push(Case::new(name("nothing_wrong"), move || {
        lab.with(|lab| nothing_wrong(lab))
    }));
    cases
}

fn add_services(options: &mut LabOptions, kind: Kind) {
    options.add_service(&kind.service("plain", PLAIN));
    let mut range = kind.service("range", RANGE.0);
    range.last_port = Some(RANGE.1);
    options.add_service(&range);
    if maps_ports(kind) {
        let mut mapped = kind.service("mapped", MAPPED.0);
        mapped.backend_port = Some(MAPPED.1);
        options.add_service(&mapped);
    }
    if can_be_stateless(kind) {
        let mut stateless = kind.service("stateless", STATELESS);
        stateless.lines += "scheduler = \"maglev\"\nstateless = true\n";
        options.add_service(&stateless);
    }
    if kind.protocol == Protocol::Tcp && kind.family.vip() != xtask::lab::VIP {
        options.add_service(&kind.service("https", HTTPS));
    }
}

fn maps_ports(kind: Kind) -> bool {
    matches!(kind.mode, Mode::Nat | Mode::FullNat)
}

fn can_be_stateless(kind: Kind) -> bool {
    kind.protocol == Protocol::Udp && kind.mode != Mode::FullNat
}

/// All there is to a kind: how many cases that were.
fn check(lab: &Lab, kind: Kind) -> Result<usize> {
    path_mtu::forget(lab)?;
    let mut cases = 0;
    let mut case = |what: &str, passed: Result<()>| -> Result<()> {
        cases += 1;
        passed.with_context(|| what.to_owned())
    };
    case("connections take turns", take_turns(lab, kind))?;
    if kind.protocol == Protocol::Tcp {
        case("HTTPS", https(lab, kind))?;
    }
    let mut ports = vec![PLAIN, RANGE.0, RANGE.1];
    if maps_ports(kind) {
        ports.push(MAPPED.0);
    }
    if can_be_stateless(kind) {
        ports.push(STATELESS);
    }
    for port in ports {
        for direction in [Direction::Get, Direction::Put] {
            case("bytes", carries(lab, kind, port, direction))?;
        }
    }
    if kind.protocol == Protocol::Udp {
        case("fragments", in_fragments(lab, kind))?;
        for length in [1473, 9000, 40_000] {
            case("a long datagram", echoes(lab, kind, length))?;
        }
    }
    Ok(cases)
}

/// Four connections, two for each server, which sees the client's own address and port where the mode keeps them.
fn take_turns(lab: &Lab, kind: Kind) -> Result<()> {
    let mut split = BTreeMap::new();
    for sequence in 0..4 {
        let (from, report) = lab.namespace(Node::Client).run(|| match kind.protocol {
            Protocol::Tcp => {
                let mut connection = Connection::open(kind.to(PLAIN))?;
                Ok((connection.stream().local_addr()?, connection.ping(sequence)?))
            }
            Protocol::Udp => {
                let mut datagrams = Datagrams::open(kind.to(PLAIN))?;
                Ok((datagrams.socket().local_addr()?, datagrams.ping(sequence, 100)?))
            }
        })?;
        ensure!(
            (report.peer == from) == (kind.mode != Mode::FullNat),
            "{from} was seen as {}",
            report.peer
        );
        assert_seen(lab, kind, &report)?;
        *split.entry(report.server).or_insert(0) += 1;
    }
    ensure!(split.values().eq(&[2, 2]), "{split:?}");
    Ok(())
}

fn assert_seen(lab: &Lab, kind: Kind, report: &Report) -> Result<()> {
    let wanted = lab.client_seen_at(kind.family.vip());
    ensure!(report.peer.ip() == wanted, "{report:?}, not from {wanted}");
    Ok(())
}

fn https(lab: &Lab, kind: Kind) -> Result<()> {
    let requests = lab.https_requests(kind.family.vip(), 10)?;
    ensure!(requests.failures.is_empty(), "{:?}", requests.failures);
    ensure!(requests.split().values().eq(&[5, 5]), "{:?}", requests.split());
    Ok(())
}

fn carries(lab: &Lab, kind: Kind, port: u16, direction: Direction) -> Result<()> {
    let to = kind.to(port);
    let bytes = if port == PLAIN { MANY } else { SOME };
    let report = lab
        .transfer(kind.protocol, direction, to, bytes)
        .with_context(|| format!("{direction:?} {bytes} bytes, {to}"))?;
    assert_seen(lab, kind, &report)?;
    if bytes == MANY {
        measured(&format!(
            "{} {direction:?}: {:.0} MB/s, {} datagrams sent again",
            kind.slug(),
            bytes as f64 / report.elapsed.as_secs_f64() / 1e6,
            report.resent,
        ));
    }
    Ok(())
}

/// Datagrams of three or four fragments, both ways.
fn in_fragments(lab: &Lab, kind: Kind) -> Result<()> {
    let fragments = |towards: &str| outcome(lab, &format!("fragment_to_{towards}"));
    let before = (fragments("backend")?, fragments("client")?);
    for direction in [Direction::Get, Direction::Put] {
        let report = lab
            .namespace(Node::Client)
            .run(|| Datagrams::open(kind.to(PLAIN))?.transfer(direction, SOME, LONG_BLOCK))?;
        assert_seen(lab, kind, &report)?;
    }
    let (to_backend, to_client) = (fragments("backend")? - before.0, fragments("client")? - before.1);
    let least = SOME / LONG_BLOCK as u64 * 2;
    ensure!(
        to_backend >= least,
        "only {to_backend} fragments went to backends"
    );
    let are_seen = !kind.mode.backends_have_the_vip();
    ensure!(
        if are_seen {
            to_client >= least
        } else {
            to_client == 0
        },
        "{to_client} fragments went to clients"
    );
    Ok(())
}

/// A datagram of so many bytes there and back.
fn echoes(lab: &Lab, kind: Kind, length: usize) -> Result<()> {
    let report = lab
        .namespace(Node::Client)
        .run(|| Datagrams::open(kind.to(PLAIN))?.ping(1, length))
        .with_context(|| format!("{length} bytes"))?;
    assert_seen(lab, kind, &report)
}

/// Whatever port of its VIP, TCP and UDP.
fn any_port(lab: &Lab) -> Result<()> {
    let vip = VIP_WITH_ALL_PORTS;
    let requests = lab.https_requests(vip, 10)?;
    ensure!(requests.failures.is_empty(), "{:?}", requests.failures);
    for port in TRANSFER_PORTS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for direction in [Direction::Get, Direction::Put] {
                let report = lab
                    .transfer(protocol, direction, (vip, port).into(), SOME)
                    .with_context(|| format!("{direction:?} {}, port {port}", protocol.name()))?;
                ensure!(report.peer.ip() == lab.client_seen_at(vip.into()), "{report:?}");
            }
        }
    }
    Ok(())
}
