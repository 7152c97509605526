//! Packets per second through real veths: made on the router, forwarded on the balancer's host, counted at the web servers.
//!
//! The balancer has a lab of its own, and the bare program and nftables have another, so that nobody pays for a neighbour. In both
//! the far ends of the wires drop what arrives, at no more cost than counting it. What is sent and does not arrive does
//! not count: a wire holds 256 frames, and loses what comes on top. All of it runs on one processor, one after the other:
//! making frames, which costs everybody the same, is part of the figure.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::Xdp;
use aya::programs::xdp::{XdpLinkId, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lb_tests::frame_generator::{FrameGenerator, Kind, received};
use lb_tests::programs;
use xtask::bench::experiment::{Reading, Sample, Turn};
use xtask::bench::measurement::{Conditions, Unit};
use xtask::bench::names::{candidate, quantity, row};
use xtask::lab::{self, Backends, Lab, LabOptions, Mode, Namespace, Node, ServiceText, VIP};
use xtask::transfer::Protocol;

/// Clients, each with one connection.
const FLOWS: [u32; 2] = [1, 1 << 16];
const CANDIDATES: [&str; 3] = [candidate::NAT, candidate::BARE_REDIRECT, candidate::NFTABLES];
/// Of the service that is measured.
const PORT: u16 = 9100;
/// Of the balancer's table.
const TABLE: u32 = 1_000_000;
/// Before a sample: every flow more than once, and long enough to say how many frames a sample needs.
const WARM_UP: u32 = 3 << 16;

/// The experiment.
pub struct Forwarding {
    balanced: Lab,
    plain: Lab,
    generators: Vec<Generators>,
    redirect: Attachable,
    pass: Attachable,
    /// At the far ends; there as long as this is.
    _sinks: Vec<Attachable>,
    takes: Duration,
}

/// For so many flows: with the balancer's own lab, and with the plain one.
struct Generators {
    flows: u32,
    balanced: FrameGenerator,
    plain: FrameGenerator,
}

/// Interface of the balancer's host that frames come by.
const UPLINK: &str = "uplink";

impl Forwarding {
    /// Brings everything up, and opens all connections. An interrupt is left to whoever asks for samples: the end of its
    /// requests ends this, too, and takes the labs down.
    pub fn set_up(quick: bool) -> Result<Self> {
        xtask::signals::catch()?;
        let (balanced, plain) = (up("lb-bench-tb", true)?, up("lb-bench-tp", false)?);
        let mut sinks = Vec::new();
        let mut sink_at = |lab: &Lab, node| -> Result<()> {
            sinks.push(Attachable::load("sink", 0)?.attached_instead(lab, node, "eth0")?);
            Ok(())
        };
        for node in Node::WEB {
            sink_at(&balanced, node)?;
            sink_at(&plain, node)?;
        }
        let to = SocketAddr::from((VIP, PORT));
        let mut generators = Vec::new();
        for flows in FLOWS {
            open(&balanced, to, flows)?;
            generators.push(Generators {
                flows,
                balanced: FrameGenerator::of_some(&balanced, to, Kind::Ack, flows)?,
                plain: FrameGenerator::of_some(&plain, to, Kind::Ack, flows)?,
            });
        }
        let out = plain.namespace(Node::Lb).run(|| {
            nix::net::if_::if_nametoindex(Node::Web1.name())
                .context("the balancer's host has no wire to web1")
        })?;
        Ok(Self {
            balanced,
            plain,
            generators,
            redirect: Attachable::load("redirect", out)?,
            pass: Attachable::load("pass", 0)?,
            _sinks: sinks,
            takes: Duration::from_millis(if quick { 300 } else { 600 }),
        })
    }

    /// Those of a round.
    pub fn turns() -> Vec<Turn> {
        let of_row = |flows| CANDIDATES.map(|candidate| Turn::new(row::flows(flows), candidate));
        FLOWS.into_iter().flat_map(of_row).collect()
    }

    /// One sample.
    pub fn take(&mut self, turn: &Turn) -> Result<Sample> {
        let mut generators = self.generators.iter_mut();
        let generators = generators.find(|generators| row::flows(generators.flows) == turn.row);
        let generators = generators.with_context(|| format!("there is no row {}", turn.row))?;
        let host = self.plain.namespace(Node::Lb);
        let rate = match turn.candidate.as_str() {
            candidate::NAT => rate(&self.balanced, &mut generators.balanced, self.takes),
            candidate::BARE_REDIRECT => {
                self.redirect.attach(&host, UPLINK)?;
                let rate = rate(&self.plain, &mut generators.plain, self.takes);
                self.redirect.detach()?;
                rate
            }
            candidate::NFTABLES => {
                // Without a program of its own the interface takes no frames that XDP has sent.
                self.pass.attach(&host, UPLINK)?;
                let rate = with_nftables(&self.plain, || {
                    rate(&self.plain, &mut generators.plain, self.takes)
                });
                self.pass.detach()?;
                rate
            }
            other => anyhow::bail!("there is no candidate {other:?}"),
        };
        let forwarded = Reading::new(quantity::FORWARDED, Unit::MillionPacketsPerSecond, rate? / 1e6);
        Ok(Sample {
            readings: vec![forwarded],
            conditions: Conditions::new()
                .with("bytes of a frame", 64)
                .with("packets", "TCP over IPv4, established")
                .with("seconds", self.takes.as_secs_f32()),
        })
    }
}

fn up(prefix: &str, balancer: bool) -> Result<Lab> {
    let mut options = LabOptions::new(prefix, programs::of_the_lab()?);
    options.balancer = balancer;
    options.max_connections = TABLE;
    let mut service = ServiceText::new("forwarding", VIP, PORT, Protocol::Tcp, Mode::Nat);
    service.backends = Backends::Sinks;
    options.add_service(&service);
    Lab::up(options).with_context(|| format!("the lab {prefix} does not come up"))
}

/// Opens a connection for each flow: a SYN, the answer of the backend that it was given to (both answer; the balancer knows
/// which one it was), and an ACK.
fn open(lab: &Lab, to: SocketAddr, flows: u32) -> Result<()> {
    let all = u64::from(flows);
    FrameGenerator::of_some(lab, to, Kind::Syn, flows)?.send(all)?;
    for node in Node::WEB {
        let (sink, _) = lab.options().topology.sink(node);
        FrameGenerator::answers(lab, node, SocketAddr::from((sink, to.port())), flows)?.send(all)?;
    }
    FrameGenerator::of_some(lab, to, Kind::Ack, flows)?.send(all)?;
    Ok(())
}

/// Frames that arrive at the web servers, per second.
fn rate(lab: &Lab, generator: &mut FrameGenerator, takes: Duration) -> Result<f64> {
    let arrived = || -> Result<u64> {
        Node::WEB
            .iter()
            .map(|node| received(&lab.namespace(*node), "eth0"))
            .sum()
    };
    let began = Instant::now();
    generator.make(WARM_UP)?;
    let frames = f64::from(WARM_UP) * takes.as_secs_f64() / began.elapsed().as_secs_f64();
    // All at one go: beginning and ending takes some milliseconds.
    let (before, began) = (arrived()?, Instant::now());
    generator.make(frames as u32)?;
    let elapsed = began.elapsed();
    let arrived = arrived()? - before;
    ensure!(
        arrived as f64 > frames / 10.0,
        "only {arrived} of {frames:.0} frames arrived at the web servers"
    );
    Ok(arrived as f64 / elapsed.as_secs_f64())
}

/// nftables forwards while `inside` runs.
fn with_nftables<T>(lab: &Lab, inside: impl FnOnce() -> Result<T>) -> Result<T> {
    let [web1, web2] = Node::WEB.map(|node| lab.options().topology.sink(node).0);
    let rules = format!(
        "table ip balancer {{\n  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {VIP} tcp dport {PORT} dnat to numgen inc mod 2 map {{ 0 : {web1}, 1 : {web2} }}\n  }}\n}}\n"
    );
    let file = lab.file("balancer.nft");
    fs::write(&file, rules).context("cannot write nftables' rules")?;
    lab::run(lab.command(Node::Lb, "nft")?.arg("-f").arg(&file))?;
    let outcome = inside();
    lab::run(
        lab.command(Node::Lb, "nft")?
            .args(["delete", "table", "ip", "balancer"]),
    )?;
    outcome
}

/// A program that can be attached to one interface at a time.
struct Attachable {
    ebpf: Ebpf,
    name: &'static str,
    attached: Option<XdpLinkId>,
}

impl Attachable {
    fn load(name: &'static str, to: u32) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("TO", &to, true)
            .load_file(programs::object("wire")?)?;
        program(&mut ebpf, name)?.load()?;
        Ok(Self {
            ebpf,
            name,
            attached: None,
        })
    }

    fn attach(&mut self, namespace: &Namespace, device: &str) -> Result<()> {
        let program = program(&mut self.ebpf, self.name)?;
        let attached = namespace.run(|| {
            let attached = program.attach(device, XdpMode::Driver);
            attached.with_context(|| format!("cannot attach {} to {device}", self.name))
        })?;
        self.attached = Some(attached);
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        if let Some(attached) = self.attached.take() {
            program(&mut self.ebpf, self.name)?.detach(attached)?;
        }
        Ok(())
    }

    /// In the place of what the lab has attached there.
    fn attached_instead(mut self, lab: &Lab, node: Node, device: &str) -> Result<Self> {
        lab::run(
            lab.command(node, "ip")?
                .args(["link", "set", "dev", device, "xdpdrv", "off"]),
        )?;
        self.attach(&lab.namespace(node), device)?;
        Ok(self)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}
