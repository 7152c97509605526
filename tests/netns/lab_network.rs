//! The lab's networks without a balancer: what the tests of modes, families, loss and path MTU stand on.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use aya::Ebpf;
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use etherparse::{SlicedPacket, TransportSlice};
use lb_tests::frame_generator::{FrameGenerator, Kind};
use lb_tests::{harness::Case, programs};
use xtask::lab::{
    Backends, Lab, LabOptions, Mode, Node, ServiceText, TRANSFER_PORT, Topology, VIP, VIP6, Wan, run,
};
use xtask::transfer::Protocol;
use xtask::transfer::client::{Connection, Datagrams, Direction};

use crate::support::capture::{Capture, Captured, longest};
use crate::support::held::Held;
use crate::support::{measured, site, tunnel};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("lab_network/transfers_arrive", transfers_arrive),
        Case::new("lab_network/answers_past_the_balancer", answers_past_the_balancer),
        Case::new("lab_network/tunnels_are_unpacked", tunnels_are_unpacked),
        Case::new("lab_network/loss", loss),
        Case::new("lab_network/distance_and_order", distance_and_order),
        Case::new("lab_network/distance_carries_enough", distance_carries_enough),
        Case::new("lab_network/narrow_link", narrow_link),
        Case::new(
            "lab_network/generated_frames_are_right",
            generated_frames_are_right,
        ),
        Case::new("lab_network/floods_end_in_sinks", floods_end_in_sinks),
        Case::new("lab_network/some_clients_are_answered", some_clients_are_answered),
        Case::new(
            "lab_network/many_connections_stay_open",
            many_connections_stay_open,
        ),
    ]
}

const BYTES: u64 = 2_000_000;

fn without_balancer(prefix: &str, topology: Topology, mode: Mode) -> Result<LabOptions> {
    let mut options = LabOptions::new(prefix, programs::of_the_lab()?);
    options.balancer = false;
    options.topology = topology;
    options.mode = mode;
    Ok(options)
}

/// A node's own addresses with the transfer service's port.
fn own_addresses(lab: &Lab, node: Node) -> [SocketAddr; 2] {
    [
        (lab.address(node), TRANSFER_PORT).into(),
        (lab.address6(node), TRANSFER_PORT).into(),
    ]
}

fn clients_address(lab: &Lab, to: SocketAddr) -> IpAddr {
    lab.client_seen_at(to.ip())
}

/// Everything there is, in both directions.
fn assert_transfers(lab: &Lab, to: SocketAddr, server: Node) -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for direction in [Direction::Get, Direction::Put] {
            let what = || format!("{protocol:?} {direction:?} {to}");
            let report = lab.transfer(protocol, direction, to, BYTES).with_context(what)?;
            ensure!(
                report.server == server.name()
                    && report.peer.ip() == clients_address(lab, to)
                    && report.bytes == BYTES,
                "{}: {report:?}",
                what()
            );
        }
    }
    // In fragments.
    lab.namespace(Node::Client).run(|| {
        for direction in [Direction::Get, Direction::Put] {
            Datagrams::open(to)?.transfer(direction, BYTES, 4000)?;
        }
        let echo = Datagrams::open(to)?.ping(7, 20_000)?;
        ensure!(echo.bytes == 20_000, "{echo:?}");
        let mut connection = Connection::open(to)?;
        for sequence in 0..3 {
            connection.ping(sequence)?;
        }
        connection.get(1000)?;
        connection.put(1000)?;
        connection.ping(3)?;
        Ok(())
    })
}

fn transfers_arrive() -> Result<()> {
    for topology in [Topology::Routed, Topology::L2] {
        let lab = Lab::up(without_balancer("lb-t-transfer", topology, Mode::FullNat)?)?;
        for node in Node::WEB {
            for to in own_addresses(&lab, node) {
                assert_transfers(&lab, to, node)?;
            }
            let requests = lab.https_requests(lab.address6(node), 5)?;
            ensure!(
                requests.failures.is_empty() && requests.split().get(node.name()) == Some(&5),
                "{requests:?}"
            );
        }
        lab.down()?;
    }
    Ok(())
}

/// A plain router in the balancer's place does what `dsr` does: the same packet with another MAC address.
fn answers_past_the_balancer() -> Result<()> {
    let lab = Lab::up(without_balancer("lb-t-past", Topology::L2, Mode::Dsr)?)?;
    for (vip, web1) in [
        (IpAddr::from(VIP), IpAddr::from(lab.address(Node::Web1))),
        (VIP6.into(), lab.address6(Node::Web1).into()),
    ] {
        let (vip, web1) = (vip.to_string(), web1.to_string());
        run(lab
            .command(Node::Lb, "ip")?
            .args(["route", "add", &vip, "via", &web1]))?;
    }
    for vip in [IpAddr::from(VIP), VIP6.into()] {
        let requests = Capture::start(&lab, Node::Lb, "uplink", &format!("dst host {vip}"))?;
        let answers = Capture::start(&lab, Node::Web1, "eth0", &format!("src host {vip}"))?;
        assert_transfers(&lab, (vip, TRANSFER_PORT).into(), Node::Web1)?;
        let (requests, answers) = (requests.stop()?, answers.stop()?);
        ensure!(
            requests.len() > 1000 && answers.len() > 1000,
            "the balancer saw {} packets to {vip}, web1 sent {}",
            requests.len(),
            answers.len()
        );
        let answers = Capture::start(&lab, Node::Lb, "uplink", &format!("src host {vip}"))?;
        lab.transfer(Protocol::Tcp, Direction::Get, (vip, TRANSFER_PORT).into(), BYTES)?;
        let answers = answers.stop()?;
        ensure!(
            answers.is_empty(),
            "the balancer saw {} answers of {vip}",
            answers.len()
        );
    }
    lab.down()
}

/// All four pairs of families, by packets that a raw socket on the balancer sends.
fn tunnels_are_unpacked() -> Result<()> {
    for topology in [Topology::Routed, Topology::L2] {
        let lab = Lab::up(without_balancer("lb-t-tunnel", topology, Mode::Ipip)?)?;
        // As with `lbd`: the balancer has the VIPs itself, and in the routed topology forwards answers that come from them.
        for vip in [format!("{VIP}/32"), format!("{VIP6}/128")] {
            run(lab
                .command(Node::Lb, "ip")?
                .args(["address", "add", &vip, "dev", "uplink"]))?;
        }
        for vip in [IpAddr::from(VIP), VIP6.into()] {
            let to = SocketAddr::new(vip, TRANSFER_PORT);
            let from = SocketAddr::new(clients_address(&lab, to), 40_000);
            let socket = lab.namespace(Node::Client).run(|| {
                let socket = UdpSocket::bind(from)?;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                Ok(socket)
            })?;
            for (number, through) in own_addresses(&lab, Node::Web2).into_iter().enumerate() {
                let payload = format!("ping {number}\nin {through}");
                tunnel::send_udp(&lab, Node::Lb, through.ip(), from, to, payload.as_bytes())?;
                let mut answer = [0; 200];
                let (length, answered_by) = socket
                    .recv_from(&mut answer)
                    .with_context(|| format!("no answer from {to} through {through}"))?;
                let wanted = format!("web2 {from} {number}\nin {through}");
                ensure!(
                    answered_by == to && answer[..length] == *wanted.as_bytes(),
                    "{answered_by} answered {:?}",
                    String::from_utf8_lossy(&answer[..length])
                );
            }
        }
        lab.down()?;
    }
    Ok(())
}

fn loss() -> Result<()> {
    let lab = Lab::up(without_balancer("lb-t-loss", Topology::Routed, Mode::Nat)?)?;
    let blocks = BYTES / Datagrams::BLOCK as u64;
    for to in own_addresses(&lab, Node::Web1) {
        lab.lose(20)?;
        let lossy = lab.transfer(Protocol::Udp, Direction::Get, to, BYTES)?;
        let tcp = lab.transfer(Protocol::Tcp, Direction::Put, to, BYTES)?;
        lab.lose(0)?;
        let whole = lab.transfer(Protocol::Udp, Direction::Get, to, BYTES)?;
        measured(&format!(
            "{to}: {} of {blocks} datagrams repeated with a loss of 20 % each way, {} without; TCP took {:.1} s",
            lossy.resent,
            whole.resent,
            tcp.elapsed.as_secs_f32()
        ));
        // Of a request and its answer, 36 % are lost: 0.36 / 0.64 repetitions.
        ensure!((blocks * 4 / 10..).contains(&lossy.resent), "{lossy:?}");
        ensure!(whole.resent < blocks / 10, "{whole:?}");
    }
    lab.down()
}

fn distance_and_order() -> Result<()> {
    for (reorder_percent, name) in [(0, "lb-t-far"), (10, "lb-t-order")] {
        let mut options = without_balancer(name, Topology::Routed, Mode::Nat)?;
        options.wan = Some(Wan {
            delay: Duration::from_millis(50),
            reorder_percent,
        });
        let lab = Lab::up(options)?;
        for to in own_addresses(&lab, Node::Web1) {
            let (elapsed, overtaken) = lab.namespace(Node::Client).run(|| {
                let mut datagrams = Datagrams::open(to)?;
                datagrams.ping(0, 10)?;
                let mut quickest = Duration::MAX;
                for number in 1..=5 {
                    let started = Instant::now();
                    datagrams.ping(number, 10)?;
                    quickest = quickest.min(started.elapsed());
                }
                Ok((quickest, overtaken(&datagrams)?))
            })?;
            measured(&format!(
                "{to}: {:.1} ms there and back, {overtaken} of 300 datagrams overtaken",
                elapsed.as_secs_f32() * 1000.0
            ));
            ensure!(
                (Duration::from_millis(100)..Duration::from_millis(150)).contains(&elapsed),
                "{elapsed:?}"
            );
            ensure!(
                (overtaken > 10) == (reorder_percent > 0),
                "{overtaken} datagrams were overtaken of {reorder_percent} %"
            );
        }
        lab.down()?;
    }
    Ok(())
}

/// How many of 300 datagrams, sent in a row, come back after a later one.
fn overtaken(datagrams: &Datagrams) -> Result<usize> {
    let socket = datagrams.socket();
    for number in 0..300 {
        socket.send(format!("ping {number}\n").as_bytes())?;
    }
    let (mut latest, mut overtaken) = (0, 0);
    for _ in 0..300 {
        let mut answer = [0; 200];
        let length = socket.recv(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..length]);
        let number: u32 = answer
            .split_ascii_whitespace()
            .nth(2)
            .context("no number")?
            .parse()?;
        overtaken += usize::from(number < latest);
        latest = latest.max(number);
    }
    Ok(overtaken)
}

fn distance_carries_enough() -> Result<()> {
    const MANY: u64 = 100_000_000;
    let mut options = without_balancer("lb-t-carry", Topology::Routed, Mode::Nat)?;
    options.wan = Some(Wan {
        delay: Duration::from_millis(1),
        reorder_percent: 0,
    });
    let lab = Lab::up(options)?;
    let [to, _] = own_addresses(&lab, Node::Web1);
    let report = lab.transfer(Protocol::Tcp, Direction::Put, to, MANY)?;
    let rate = MANY as f64 / 1448.0 / report.elapsed.as_secs_f64();
    measured(&format!("the relay carried {rate:.0} full packets a second"));
    ensure!(rate > 20_000.0, "{report:?}");
    lab.down()
}

/// Servers begin with segments as long as the client announces, and shrink them when the router says that they are too long.
fn narrow_link() -> Result<()> {
    const NARROW: usize = 14 + 1280;
    let mut options = without_balancer("lb-t-narrow", Topology::Routed, Mode::Nat)?;
    options.client_mtu = 1280;
    let lab = Lab::up(options)?;
    for to in own_addresses(&lab, Node::Web1) {
        let filter = format!("tcp and src host {}", to.ip());
        let capture = Capture::start(&lab, Node::Web1, "eth0", &filter)?;
        lab.transfer(Protocol::Tcp, Direction::Get, to, BYTES)?;
        let frames = capture.stop()?;
        let (first, last) = frames.split_at(frames.len() / 2);
        measured(&format!(
            "{to}: {} frames, at first up to {} bytes, then up to {}",
            frames.len(),
            longest(first),
            longest(last)
        ));
        ensure!(
            longest(first) == 14 + 1500 && longest(last) == NARROW,
            "{} and {}",
            longest(first),
            longest(last)
        );
        // What is sent to the narrow link from the other side has always fitted it.
        let capture = Capture::start(&lab, Node::Web1, "eth0", &format!("tcp and dst host {}", to.ip()))?;
        lab.transfer(Protocol::Tcp, Direction::Put, to, BYTES)?;
        ensure!(longest(&capture.stop()?) == NARROW, "{to}");
        lab.transfer(Protocol::Udp, Direction::Get, to, BYTES)?;
        lab.transfer(Protocol::Udp, Direction::Put, to, BYTES)?;
    }
    lab.down()
}

/// The balancer's end of the wire takes frames only with a program.
fn attach_pass(lab: &Lab) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load_file(programs::object("veth_pass")?)?;
    let program: &mut Xdp = ebpf
        .program_mut("veth_pass")
        .context("no program veth_pass")?
        .try_into()?;
    program.load()?;
    lab.namespace(Node::Lb)
        .run(|| Ok(program.attach("uplink", XdpMode::Driver)?))?;
    Ok(ebpf)
}

fn generated_frames_are_right() -> Result<()> {
    const FEW: u64 = 1000;
    const MANY: u64 = 200_000;
    for topology in [Topology::Routed, Topology::L2] {
        let lab = Lab::up(without_balancer("lb-t-flood", topology, Mode::Nat)?)?;
        let _attached = attach_pass(&lab)?;
        let addresses = [IpAddr::from(lab.address(Node::Lb)), lab.address6(Node::Lb).into()];
        for to in addresses.map(|address| SocketAddr::new(address, 9)) {
            for kind in [Kind::Syn, Kind::SynThenAck, Kind::Ack, Kind::SynAck, Kind::Udp] {
                let capture = Capture::start(
                    &lab,
                    Node::Lb,
                    "uplink",
                    &format!("dst host {} and dst port 9", to.ip()),
                )?;
                let mut generator = FrameGenerator::new(&lab, to, kind)?;
                generator.send(FEW)?;
                let frames = capture.stop()?;
                let what = || format!("{kind:?} to {to}");
                assert_frames(&frames, to, kind).with_context(what)?;
                ensure!(frames.len() >= FEW as usize - 10, "{}: {}", what(), frames.len());
            }
            let mut generator = FrameGenerator::new(&lab, to, Kind::Syn)?;
            let sent = generator.send(MANY)?;
            measured(&format!(
                "{to}: {:.2} million frames a second arrive, {} of {} made",
                sent.rate() / 1e6,
                sent.arrived,
                sent.frames
            ));
        }
        lab.down()?;
    }
    Ok(())
}

/// Their checksums are right, their flags those of the kind, and every client is another one.
fn assert_frames(frames: &[Captured], to: SocketAddr, kind: Kind) -> Result<()> {
    let mut clients = HashSet::new();
    for (number, frame) in frames.iter().enumerate() {
        let packet = SlicedPacket::from_ethernet(&frame.bytes)?;
        let net = packet.net.context("no IP packet")?;
        let transport = packet.transport.context("no transport")?;
        let (source, flags) = match (&net, &transport) {
            (etherparse::NetSlice::Ipv4(ip), transport) => {
                let header = ip.header().to_header();
                ensure!(
                    header.calc_header_checksum() == header.header_checksum,
                    "{header:?}"
                );
                (IpAddr::from(header.source), flags_v4(&header, transport)?)
            }
            (etherparse::NetSlice::Ipv6(ip), transport) => {
                let header = ip.header().to_header();
                (IpAddr::from(header.source), flags_v6(&header, transport)?)
            }
            _ => return Err(anyhow!("no IP packet")),
        };
        ensure!(source.is_ipv4() == to.is_ipv4(), "{source}");
        let (port, flags) = flags;
        let wanted = match kind {
            Kind::Syn => (true, false),
            Kind::Ack => (false, true),
            Kind::SynAck => (true, true),
            Kind::SynThenAck => (number % 2 == 0, number % 2 == 1),
            Kind::Udp => (false, false),
        };
        ensure!(flags == wanted, "frame {number} has the flags {flags:?}");
        ensure!(port >= 1024, "frame {number} comes from port {port}");
        clients.insert((source, port));
    }
    let frames_each = if kind == Kind::SynThenAck { 2 } else { 1 };
    ensure!(
        clients.len() == frames.len().div_ceil(frames_each),
        "{} clients of {} frames",
        clients.len(),
        frames.len()
    );
    Ok(())
}

type PortAndFlags = (u16, (bool, bool));

fn flags_v4(ip: &etherparse::Ipv4Header, transport: &TransportSlice<'_>) -> Result<PortAndFlags> {
    match transport {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            ensure!(
                header.calc_checksum_ipv4(ip, tcp.payload())? == header.checksum,
                "{header:?}"
            );
            Ok((header.source_port, (header.syn, header.ack)))
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            ensure!(
                header.calc_checksum_ipv4(ip, udp.payload())? == header.checksum,
                "{header:?}"
            );
            Ok((header.source_port, (false, false)))
        }
        _ => Err(anyhow!("neither TCP nor UDP")),
    }
}

fn flags_v6(ip: &etherparse::Ipv6Header, transport: &TransportSlice<'_>) -> Result<PortAndFlags> {
    match transport {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            ensure!(
                header.calc_checksum_ipv6(ip, tcp.payload())? == header.checksum,
                "{header:?}"
            );
            Ok((header.source_port, (header.syn, header.ack)))
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            ensure!(
                header.calc_checksum_ipv6(ip, udp.payload())? == header.checksum,
                "{header:?}"
            );
            Ok((header.source_port, (false, false)))
        }
        _ => Err(anyhow!("neither TCP nor UDP")),
    }
}

/// The same to a service with sinks behind it: they reach these, and nobody answers.
fn floods_end_in_sinks() -> Result<()> {
    const MANY: u64 = 2_000_000;
    for topology in [Topology::Routed, Topology::L2] {
        let mut options = LabOptions::new("lb-t-sinks", programs::of_the_lab()?);
        options.topology = topology;
        options.max_connections = 65_536;
        let mut service = ServiceText::new("flooded", VIP, 81, Protocol::Tcp, Mode::Nat);
        service.backends = Backends::Sinks;
        options.add_service(&service);
        let lab = Lab::up(options)?;
        let answers = Capture::start(&lab, Node::Router, "lb", "src host 203.0.113.10 and src port 81")?;
        let mut generator = FrameGenerator::new(&lab, (VIP, 81).into(), Kind::Syn)?;
        let sent = generator.send(MANY)?;
        let answers = answers.stop()?.len();
        let flooded = site::service(&lab, "flooded")?;
        measured(&format!(
            "{topology:?}: {:.2} million SYNs a second, {} made, {} arrived, {} to the sinks",
            sent.rate() / 1e6,
            sent.frames,
            sent.arrived,
            flooded.traffic.packets_in
        ));
        ensure!(
            flooded.traffic.packets_in >= MANY * 99 / 100,
            "{:?}",
            flooded.traffic
        );
        ensure!(answers == 0, "{answers} answers from sinks");
        lab.down()?;
    }
    Ok(())
}

/// What the bench of forwarding begins with: so many clients and no more, each with a connection that its backend has accepted.
fn some_clients_are_answered() -> Result<()> {
    const CLIENTS: u32 = 1024;
    let mut options = LabOptions::new("lb-t-some", programs::of_the_lab()?);
    let to = SocketAddr::from((VIP, 81));
    let mut service = ServiceText::new("some", VIP, to.port(), Protocol::Tcp, Mode::Nat);
    service.backends = Backends::Sinks;
    options.add_service(&service);
    let lab = Lab::up(options)?;
    let answers = Capture::start(&lab, Node::Router, "lb", "src host 203.0.113.10 and src port 81")?;
    let all = u64::from(CLIENTS);
    FrameGenerator::of_some(&lab, to, Kind::Syn, CLIENTS)?.send(all)?;
    for node in Node::WEB {
        let (sink, _) = lab.options().topology.sink(node);
        FrameGenerator::answers(&lab, node, SocketAddr::from((sink, to.port())), CLIENTS)?.send(all)?;
    }
    FrameGenerator::of_some(&lab, to, Kind::Ack, CLIENTS)?.send(3 * all)?;
    let answers = answers.stop()?.len();
    let traffic = site::service(&lab, "some")?.traffic;
    ensure!(traffic.opened == all && traffic.connections == all, "{traffic:?}");
    ensure!(traffic.packets_in == 4 * all, "{traffic:?}");
    // Both backends have answered everybody; what the wrong one said is not rewritten.
    ensure!(
        traffic.packets_out == all && answers == CLIENTS as usize,
        "{answers}, {traffic:?}"
    );
    lab.down()
}

fn many_connections_stay_open() -> Result<()> {
    const MANY: usize = 8000;
    let mut lab = Lab::up(without_balancer("lb-t-held", Topology::Routed, Mode::Nat)?)?;
    let [to, _] = own_addresses(&lab, Node::Web1);
    let mut held = Held::open(&lab, to, MANY)?;
    ensure!(
        held.len() == MANY && held.split() == BTreeMap::from([("web1", MANY)]),
        "{:?}",
        held.split()
    );
    held.check()?;
    lab.stop_web(Node::Web1)?;
    lab.start_web(Node::Web1)?;
    ensure!(held.check().is_err(), "connections outlive their server");
    lab.down()
}
