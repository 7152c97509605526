//! Floods: frames of millions of spoofed clients, transmitted by the lab's router to the balancer at the kernel's own speed,
//! through the real wire between them.
//!
//! ```ignore
//! let mut flood = FrameGenerator::new(&lab, "203.0.113.10:80".parse()?, Kind::Syn)?;
//! let sent = flood.send(20_000_000)?;
//! measured(&format!("{:.1} million SYNs a second", sent.rate() / 1e6));
//! ```
//!
//! The clients are in [`NOBODY`] (198.19.0.0/16; [`NOBODY6`]), which the lab routes nowhere. Each has an address and port of
//! its own: the first 2³² of a generator all differ, but for about one in 10,000. Two generators make the same clients in
//! the same order, unless [`skip`](FrameGenerator::skip) is used, so that ACKs can follow SYNs.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use etherparse::PacketBuilder;
use xtask::lab::{Lab, NOBODY, NOBODY6, Namespace, Node};

use crate::programs;

/// What each client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SYN.
    Syn,
    /// A SYN and then, as the next frame, an ACK: a handshake as far as it is seen from the client's side.
    SynThenAck,
    /// An ACK, of a connection that nobody has opened.
    Ack,
    /// A segment with both flags, as servers send it.
    SynAck,
    /// A UDP datagram of a few bytes.
    Udp,
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Kind {
    /// TCP's flags of a client's frames, and how many frames that are.
    fn flags(self) -> ([u8; 2], u8) {
        match self {
            Self::Syn => ([SYN, 0], 1),
            Self::SynThenAck => ([SYN, ACK], 2),
            Self::Ack => ([ACK, 0], 1),
            Self::SynAck => ([SYN | ACK, 0], 1),
            Self::Udp => ([0, 0], 1),
        }
    }
}

/// What has been sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Frames that were made.
    pub frames: u64,
    /// Frames that arrived at the balancer's interface, others that arrived at that time included. The wire holds 256 and
    /// loses what comes on top.
    pub arrived: u64,
    /// For how long.
    pub elapsed: Duration,
}

impl Sent {
    /// Frames that arrived, per second.
    pub fn rate(&self) -> f64 {
        self.arrived as f64 / self.elapsed.as_secs_f64()
    }
}

/// A wire on which frames are sent to the balancer.
#[derive(Debug, Clone, Copy)]
struct Wire {
    sender: Node,
    /// Its end there.
    near: &'static str,
    /// The balancer's.
    far: &'static str,
}

/// From the router, where clients' frames come from.
const UPLINK: Wire = Wire {
    sender: Node::Router,
    near: "lb",
    far: "uplink",
};
/// All the clients that there can be.
const EVERYBODY: u32 = u32::MAX;
/// Words of the longest frame, and of one of IPv4.
const WORDS: usize = 10;
const WORDS_IPV4: usize = 8;
/// At a time: few enough for the wire, many enough to be fast.
const BATCH: u32 = 64;
/// Between two looks at how many have arrived.
const PIECE: u32 = 100_000;

/// One kind of frames to one address. For use by one thread at a time.
#[derive(Debug)]
pub struct FrameGenerator {
    ebpf: Ebpf,
    sender: Namespace,
    balancer: Namespace,
    device: &'static str,
    frame: Vec<u8>,
    context: Vec<u8>,
}

impl FrameGenerator {
    /// Frames of this kind to this address and port.
    ///
    /// # Errors
    /// When the lab is not up, or the kernel does not take the program.
    pub fn new(lab: &Lab, to: SocketAddr, kind: Kind) -> Result<Self> {
        Self::of_clients(lab, to, kind, EVERYBODY)
    }

    /// The same of no more than so many clients, a power of two, over and over again in the same order.
    ///
    /// # Errors
    /// Likewise.
    pub fn of_some(lab: &Lab, to: SocketAddr, kind: Kind, clients: u32) -> Result<Self> {
        ensure!(clients.is_power_of_two(), "{clients} is no power of two");
        Self::of_clients(lab, to, kind, clients - 1)
    }

    /// SYN-ACKs of this server, which is on the wire of this web server in the routed topology, to as many clients.
    ///
    /// # Errors
    /// Likewise.
    pub fn answers(lab: &Lab, web: Node, from: SocketAddr, clients: u32) -> Result<Self> {
        ensure!(clients.is_power_of_two(), "{clients} is no power of two");
        let wire = Wire {
            sender: web,
            near: "eth0",
            far: web.name(),
        };
        Self::with(lab, wire, from, Kind::SynAck, clients - 1, true)
    }

    fn of_clients(lab: &Lab, to: SocketAddr, kind: Kind, mask: u32) -> Result<Self> {
        Self::with(lab, UPLINK, to, kind, mask, false)
    }

    fn with(
        lab: &Lab,
        wire: Wire,
        server: SocketAddr,
        kind: Kind,
        mask: u32,
        are_answers: bool,
    ) -> Result<Self> {
        let (sender, balancer) = (lab.namespace(wire.sender), lab.namespace(Node::Lb));
        let macs = (mac(lab, wire.sender, wire.near)?, mac(lab, Node::Lb, wire.far)?);
        let frame = frame(macs, server, kind, are_answers)?;
        let mut words = [0_u64; WORDS];
        for (word, bytes) in words.iter_mut().zip(frame.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let (flags, turns) = kind.flags();
        let family: u8 = if server.is_ipv4() { 4 } else { 6 };
        let protocol: u8 = if kind == Kind::Udp { 17 } else { 6 };
        let mut ebpf = EbpfLoader::new()
            .override_global("FRAME", &words, true)
            .override_global("FAMILY", &family, true)
            .override_global("PROTOCOL", &protocol, true)
            .override_global("FLAGS", &flags, true)
            .override_global("TURNS", &turns, true)
            .override_global("MASK", &mask, true)
            .override_global("ANSWERS", &u8::from(are_answers), true)
            .load_file(programs::object("frame_generator")?)?;
        program(&mut ebpf)?.load()?;
        let index = sender.run(|| {
            nix::net::if_::if_nametoindex(wire.near)
                .with_context(|| format!("there is no interface {} on {}", wire.near, wire.sender))
        })?;
        let context = context(u32::try_from(frame.len())?, index);
        Ok(Self {
            ebpf,
            sender,
            balancer,
            device: wire.far,
            frame,
            context,
        })
    }

    /// Goes on with the frame of this number, counted from 0.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn skip(&mut self, number: u64) -> Result<()> {
        let next = self.ebpf.map_mut("NEXT").context("no map NEXT")?;
        Ok(Array::<&mut MapData, u64>::try_from(next)?.set(0, number, 0)?)
    }

    /// Sends frames until so many have arrived at the balancer.
    ///
    /// # Errors
    /// When hardly any arrive: nobody takes frames at the balancer's end (`lbd` is not running).
    pub fn send(&mut self, count: u64) -> Result<Sent> {
        let (before, started) = (self.arrived()?, Instant::now());
        let mut sent = Sent {
            frames: 0,
            arrived: 0,
            elapsed: Duration::ZERO,
        };
        while sent.arrived < count {
            let piece = u32::try_from(count - sent.arrived).map_or(PIECE, |left| left.min(PIECE));
            self.run(piece)?;
            sent.frames += u64::from(piece);
            sent.arrived = self.arrived()? - before;
            ensure!(
                sent.arrived * 4 + u64::from(PIECE) > sent.frames,
                "only {} of {} frames arrived at the balancer",
                sent.arrived,
                sent.frames
            );
        }
        sent.elapsed = started.elapsed();
        Ok(sent)
    }

    /// Makes so many frames at one go, whatever becomes of them: beginning and ending takes the kernel some milliseconds, which
    /// do not matter then.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn make(&mut self, frames: u32) -> Result<()> {
        self.run(frames)
    }

    fn run(&mut self, frames: u32) -> Result<()> {
        let program = program(&mut self.ebpf)?;
        let (frame, context) = (&self.frame, &self.context);
        self.sender.run(|| {
            program
                .test_run(TestRunOptions {
                    data_in: Some(frame),
                    ctx_in: Some(context),
                    repeat: frames,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..TestRunOptions::new()
                })
                .context("cannot run the frame generator")
        })?;
        Ok(())
    }

    /// Frames that the balancer's interface has received since it exists.
    fn arrived(&self) -> Result<u64> {
        received(&self.balancer, self.device)
    }
}

/// Frames that an interface has received since it exists, those that an XDP program has dropped included.
///
/// # Errors
/// When there is no such interface.
pub fn received(namespace: &Namespace, device: &str) -> Result<u64> {
    let devices = namespace.run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let packets = devices.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace();
        (name.trim() == device).then(|| numbers.nth(1)?.parse().ok())?
    });
    packets.with_context(|| format!("no {device} in\n{devices}"))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut("frame_generator")
        .context("no program frame_generator")?;
    Ok(program.try_into()?)
}

/// `struct xdp_md` as the program runner wants it: where the frame begins and ends, and the interface that it is of.
fn context(length: u32, interface_index: u32) -> Vec<u8> {
    [0, length, 0, interface_index, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect()
}

/// The first client's frame, or one to that client, but that its port and flags are zero: the program adds them.
fn frame(
    (from_mac, to_mac): ([u8; 6], [u8; 6]),
    server: SocketAddr,
    kind: Kind,
    is_answer: bool,
) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(from_mac, to_mac);
    let (packet, words) = match server.ip() {
        IpAddr::V4(server) => {
            let (from, to) = if is_answer {
                (server, NOBODY)
            } else {
                (NOBODY, server)
            };
            (ethernet.ipv4(from.octets(), to.octets(), 60), WORDS_IPV4)
        }
        IpAddr::V6(server) => {
            let (from, to) = if is_answer {
                (server, NOBODY6)
            } else {
                (NOBODY6, server)
            };
            (ethernet.ipv6(from.octets(), to.octets(), 60), WORDS)
        }
    };
    let (from_port, to_port) = if is_answer {
        (server.port(), 0)
    } else {
        (0, server.port())
    };
    let mut frame = Vec::new();
    if kind == Kind::Udp {
        packet.udp(from_port, to_port).write(&mut frame, b"flood\n")?;
    } else {
        packet
            .tcp(from_port, to_port, 1000, 64240)
            .write(&mut frame, &[])?;
    }
    frame.resize(words * 8, 0);
    Ok(frame)
}

/// The MAC address of an interface of a node.
fn mac(lab: &Lab, node: Node, device: &str) -> Result<[u8; 6]> {
    let shown = xtask::lab::run(
        lab.command(node, "ip")?
            .args(["-o", "link", "show", "dev", device]),
    )?;
    let mut words = shown.split_ascii_whitespace();
    let address = words
        .find(|word| *word == "link/ether")
        .and_then(|_| words.next());
    let address = address.with_context(|| format!("no MAC address in {shown}"))?;
    let bytes = address
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<Vec<_>, _>>()?;
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("{address} is no MAC address"))
}
