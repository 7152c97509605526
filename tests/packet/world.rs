//! The program, loaded and told about services, and what it makes of frames.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use lb::dataplane::{BackendEntry, Connection, Dataplane, LoadOptions, Object, ServiceEntry, Snapshot};
use lb::neighbours::NextHop;
use lb_common::abi::BackendCounters;
use lb_common::outcome::{Action, Outcome};

use crate::frame::{Frame, Talk};

pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 2), 40000);
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);
/// The router on the clients' side, and the balancer's own address there.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub const UPLINK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// The balancer's address on the servers' side.
pub const INSIDE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];
/// The interface that the kernel's runner pretends frames to come in by: the loopback device.
pub const INGRESS: u32 = 1;
/// Another interface.
pub const INSIDE: u32 = 4242;

/// The load balancer among the kernel crate's binaries.
const OBJECT: &str = "lb-ebpf";

/// Ticks: half-open, established, closing.
pub const TIMEOUTS: [u16; 3] = [9, 1800, 30];

/// The program and what it decided so far.
pub struct World {
    pub dataplane: Dataplane,
    /// Ids of all backends that there ever were.
    backends: BTreeSet<u16>,
}

/// What became of a frame: all that can be seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As the kernel's runner reports it.
    pub action: u32,
    pub frame: Vec<u8>,
    /// Counters that moved.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Counters that moved, by backend.
    pub backends: BTreeMap<u16, BackendCounters>,
}

/// `web1`, `web2`, … at 198.18.N.2:8443, ids 1, 2, …
pub fn web(number: u8) -> BackendEntry {
    BackendEntry {
        id: u16::from(number),
        endpoint: SocketAddrV4::new(Ipv4Addr::new(198, 18, number, 2), 8443),
        next_hop: Some(NextHop {
            interface_index: INSIDE,
            source_mac: INSIDE_MAC,
            destination_mac: web_mac(number),
        }),
        up: true,
        reset: false,
        timeouts: TIMEOUTS,
    }
}

pub fn web_mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 1, number]
}

/// The service at [`VIP`] with so many servers, a slot each.
pub fn www(servers: u8) -> ServiceEntry {
    service(1, VIP, (1..=servers).map(web).collect())
}

/// A service with a slot for each backend.
pub fn service(number: u16, vip: SocketAddrV4, backends: Vec<BackendEntry>) -> ServiceEntry {
    ServiceEntry {
        number,
        vip,
        leaving: false,
        slots: backends.iter().map(|b| b.id).collect(),
        backends,
    }
}

impl Seen {
    fn new(outcome: Outcome, frame: Vec<u8>) -> Self {
        Self {
            action: action(outcome),
            frame,
            outcomes: BTreeMap::from([(outcome.name(), 1)]),
            backends: BTreeMap::new(),
        }
    }

    /// The frame stays as it is, and only the outcome is counted.
    pub fn unchanged(outcome: Outcome, frame: &[u8]) -> Self {
        Self::new(outcome, frame.to_vec())
    }

    /// The frame turns into the RST to it.
    pub fn refused(outcome: Outcome, frame: &Frame) -> Self {
        Self::new(outcome, frame.answered_with_rst().bytes())
    }

    /// A client's frame goes to its backend.
    pub fn to_backend(talk: &Talk, frame: &Frame) -> Self {
        let mut seen = Self::new(Outcome::ToBackend, talk.at_backend(frame).bytes());
        let counters = BackendCounters {
            packets_in: 1,
            bytes_in: frame.len() as u64,
            ..BackendCounters::default()
        };
        seen.backends.insert(talk.backend.id, counters);
        seen
    }

    /// A backend's frame goes to its client. The way back leads through the interface that the runner pretends, so the
    /// frame is transmitted.
    pub fn to_client(talk: &Talk, frame: &Frame) -> Self {
        let mut seen = Self::new(Outcome::ToClient, talk.at_client(frame).bytes());
        seen.action = action_number(Action::Transmit);
        let counters = BackendCounters {
            packets_out: 1,
            bytes_out: frame.len() as u64,
            ..BackendCounters::default()
        };
        seen.backends.insert(talk.backend.id, counters);
        seen
    }

    /// As well, a connection was opened.
    pub fn opening(mut self) -> Self {
        for counters in self.backends.values_mut() {
            counters.opened += 1;
        }
        self
    }

    /// The same, under another name.
    pub fn named(mut self, outcome: Outcome) -> Self {
        self.action = action(outcome);
        self.outcomes = BTreeMap::from([(outcome.name(), 1)]);
        self
    }
}

impl World {
    pub fn new(services: &[ServiceEntry]) -> anyhow::Result<Self> {
        Self::with_room(services, 10_000)
    }

    pub fn with_room(services: &[ServiceEntry], max_connections: u32) -> anyhow::Result<Self> {
        let options = LoadOptions {
            max_connections,
            learn_return_hops: true,
            selection_seed: 7,
        };
        Self::with_options(services, options)
    }

    pub fn with_options(services: &[ServiceEntry], options: LoadOptions) -> anyhow::Result<Self> {
        let mut world = Self {
            dataplane: Dataplane::load(&object()?, options)?,
            backends: BTreeSet::new(),
        };
        world.publish(services)?;
        Ok(world)
    }

    pub fn publish(&mut self, services: &[ServiceEntry]) -> anyhow::Result<()> {
        self.dataplane.publish(&Snapshot::build(services)?);
        let backends = services.iter().flat_map(|service| &service.backends);
        self.backends.extend(backends.map(|backend| backend.id));
        Ok(())
    }

    /// What a frame that comes in by the loopback device comes to, without looking at counters: the action and the frame.
    pub fn pass(&self, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 64];
        let result = self.dataplane.run(frame, &mut out)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// The same for a frame that comes in by another interface, which must have an XDP program.
    pub fn pass_from(&self, interface_index: u32, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context = [0, frame.len() as u32, 0, interface_index, 0, 0].map(u32::to_ne_bytes);
        let mut out = vec![0; frame.len() + 64];
        let result = self.dataplane.program()?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(context.as_flattened()),
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    pub fn run(&self, frame: &[u8]) -> anyhow::Result<Seen> {
        self.observe(|| self.pass(frame))
    }

    pub fn run_from(&self, interface_index: u32, frame: &[u8]) -> anyhow::Result<Seen> {
        self.observe(|| self.pass_from(interface_index, frame))
    }

    fn observe(&self, pass: impl FnOnce() -> anyhow::Result<(u32, Vec<u8>)>) -> anyhow::Result<Seen> {
        let (outcomes, backends) = (self.outcomes()?, self.backends()?);
        let (action, frame) = pass()?;
        Ok(Seen {
            action,
            frame,
            outcomes: self
                .outcomes()?
                .into_iter()
                .map(|(name, after)| (name, after - outcomes.get(name).copied().unwrap_or(0)))
                .filter(|(_, moved)| *moved != 0)
                .collect(),
            backends: self
                .backends()?
                .into_iter()
                .map(|(id, after)| {
                    (
                        id,
                        difference(after, backends.get(&id).copied().unwrap_or_default()),
                    )
                })
                .filter(|(_, moved)| *moved != BackendCounters::default())
                .collect(),
        })
    }

    fn outcomes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let outcomes = self.dataplane.counters().outcomes()?;
        Ok(outcomes.into_iter().map(|(o, n)| (o.name(), n)).collect())
    }

    fn backends(&self) -> anyhow::Result<BTreeMap<u16, BackendCounters>> {
        let counters = self.dataplane.counters();
        self.backends
            .iter()
            .map(|id| Ok((*id, counters.backend(*id)?)))
            .collect()
    }

    /// Runs a frame and asserts everything: action, every byte, every counter.
    pub fn expect(&self, purpose: &str, frame: &[u8], expected: &Seen) -> anyhow::Result<()> {
        let seen = self.run(frame)?;
        ensure!(
            seen == *expected,
            "{purpose}: seen\n{seen:02x?}\nexpected\n{expected:02x?}"
        );
        Ok(())
    }

    /// A client's frame goes to its backend, whole and counted.
    pub fn forward(&self, purpose: &str, talk: &Talk, frame: Frame) -> anyhow::Result<()> {
        self.expect(purpose, &frame.bytes(), &Seen::to_backend(talk, &frame))
    }

    /// A backend's frame goes to its client, whole and counted.
    pub fn answer(&self, purpose: &str, talk: &Talk, frame: Frame) -> anyhow::Result<()> {
        self.expect(purpose, &frame.bytes(), &Seen::to_client(talk, &frame))
    }

    /// A client's SYN opens a connection.
    pub fn open(&self, purpose: &str, talk: &Talk) -> anyhow::Result<()> {
        let syn = talk.client_sends().syn();
        self.expect(purpose, &syn.bytes(), &Seen::to_backend(talk, &syn).opening())
    }

    /// A whole handshake.
    pub fn establish(&self, talk: &Talk) -> anyhow::Result<()> {
        self.open("SYN", talk)?;
        self.answer("SYN-ACK", talk, talk.backend_sends().syn().ack())?;
        self.forward("ACK", talk, talk.client_sends().ack())
    }

    /// A handshake with whichever backend the program chooses, without looking at counters.
    pub fn establish_somewhere(&self, client: SocketAddrV4) -> anyhow::Result<Talk> {
        let mut talk = Talk::new(client, 1);
        let number = self.server_of(&talk.client_sends().syn())?;
        talk.backend = web(number);
        self.pass(&talk.backend_sends().syn().ack().bytes())?;
        self.pass(&talk.client_sends().ack().bytes())?;
        Ok(talk)
    }

    /// The server, N of 198.18.N.2, that a client's frame went to.
    pub fn server_of(&self, frame: &Frame) -> anyhow::Result<u8> {
        let (action, frame) = self.pass(&frame.bytes())?;
        ensure!(action == action_number(Action::Redirect), "action {action}");
        let address: [u8; 4] = frame.get(30..34).context("frame too short")?.try_into()?;
        Ok(address[2])
    }

    /// The table, as `lbctl` lists it.
    pub fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        let now = self.dataplane.now()?;
        Ok(self.dataplane.connections().iter(now).collect())
    }

    /// The only entry of a client.
    pub fn connection(&self, client: SocketAddrV4) -> anyhow::Result<Connection> {
        let all = self.connections()?;
        let mut of_client = all.iter().filter(|connection| connection.client == client);
        let first = of_client
            .next()
            .with_context(|| format!("{client} has no entry"))?;
        ensure!(of_client.next().is_none(), "{client} has several entries");
        Ok(*first)
    }
}

/// What `cargo xtask test` built, or what is embedded if the test was started without it.
fn object() -> anyhow::Result<Object> {
    match lb_tests::programs::object(OBJECT) {
        Ok(file) => Ok(Object::from_file(&file)?),
        Err(_) => Ok(Object::embedded()?),
    }
}

fn difference(after: BackendCounters, before: BackendCounters) -> BackendCounters {
    BackendCounters {
        opened: after.opened - before.opened,
        packets_in: after.packets_in - before.packets_in,
        bytes_in: after.bytes_in - before.bytes_in,
        packets_out: after.packets_out - before.packets_out,
        bytes_out: after.bytes_out - before.bytes_out,
    }
}

fn action(outcome: Outcome) -> u32 {
    action_number(outcome.action())
}

/// As the kernel's runner reports it (`enum xdp_action`).
pub fn action_number(action: Action) -> u32 {
    match action {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Transmit => 3,
        Action::Redirect => 4,
    }
}
