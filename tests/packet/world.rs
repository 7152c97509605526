//! The program, loaded and told about services, and what it makes of frames.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use lb::dataplane::{BackendEntry, Connection, LoadOptions, ServiceEntry, Snapshot};
use lb_common::abi::BackendCounters;
use lb_common::outcome::Action;
use lb_common::tcp_state::State;
use lb_common::tick::slack;

use crate::frame::{Frame, MTU};
use crate::kind::{NAT, one_port};
use crate::pool::{Leased, OPTIONS};
use crate::seen::{Seen, action_number};
use crate::talk::Talk;

pub const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)), 40000);
pub const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), 443);
/// The router on the clients' side, and the balancer's own address there.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub const UPLINK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// The balancer's address on the servers' side.
pub const INSIDE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];
/// The interface that the kernel's runner pretends frames to come in by: the loopback device.
pub const INGRESS: u32 = 1;
/// Another interface.
pub const INSIDE: u32 = 4242;

/// Ticks: half-open, established, closing.
pub const TIMEOUTS: [u16; 3] = [9, 1800, 30];

/// Whether an entry was noted so many ticks ago, by how long it has left of its timeout; one more may be over meanwhile.
pub fn was_noted(connection: &Connection, ticks_ago: u16, timeout: u16) -> bool {
    let slack = if connection.state == State::Established {
        slack(timeout)
    } else {
        0
    };
    (i32::from(timeout + slack) - i32::from(ticks_ago) - i32::from(connection.ticks_left)).abs() <= 1
}

/// The program and what it decided so far.
pub struct World {
    pub dataplane: Leased,
    /// Ids of all backends that there ever were.
    backends: BTreeSet<u16>,
    /// Frames of which everything was compared.
    checked: AtomicUsize,
    /// The counters after the last frame that was observed, unless others came after it.
    counted: Mutex<Option<Counted>>,
}

/// All counters.
#[derive(Debug, Clone)]
struct Counted {
    outcomes: BTreeMap<&'static str, u64>,
    backends: BTreeMap<u16, BackendCounters>,
}

/// `web1`, `web2`, … at 198.18.N.2:8443, ids 1, 2, …
pub fn web(number: u8) -> BackendEntry {
    NAT.backend(number)
}

pub fn web_mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 1, number]
}

/// The service at [`VIP`] with so many servers, a slot each.
pub fn www(servers: u8) -> ServiceEntry {
    NAT.service(servers)
}

/// A service with a slot for each backend.
pub fn service(number: u16, vip: SocketAddr, backends: Vec<BackendEntry>) -> ServiceEntry {
    ServiceEntry {
        number,
        vip: vip.ip(),
        ports: one_port(vip.port()),
        ..NAT.service_of(backends)
    }
}

impl World {
    pub fn new(services: &[ServiceEntry]) -> anyhow::Result<Self> {
        Self::with_options(services, OPTIONS)
    }

    /// With a table for so many connections of each width.
    pub fn with_room(services: &[ServiceEntry], connections: u32) -> anyhow::Result<Self> {
        let options = LoadOptions {
            max_connections: connections,
            max_wide_connections: connections,
            ..OPTIONS
        };
        Self::with_options(services, options)
    }

    pub fn with_options(services: &[ServiceEntry], options: LoadOptions) -> anyhow::Result<Self> {
        Self::on(Leased::shared(options)?, services)
    }

    /// With a program that nobody else has had, or will have.
    pub fn alone(services: &[ServiceEntry], options: LoadOptions) -> anyhow::Result<Self> {
        Self::on(Leased::alone(options)?, services)
    }

    fn on(dataplane: Leased, services: &[ServiceEntry]) -> anyhow::Result<Self> {
        let mut world = Self {
            dataplane,
            backends: BTreeSet::new(),
            checked: AtomicUsize::new(0),
            counted: Mutex::new(None),
        };
        world.publish(services)?;
        Ok(world)
    }

    pub fn publish(&mut self, services: &[ServiceEntry]) -> anyhow::Result<()> {
        self.publish_with_mtu(services, MTU as u32)
    }

    /// The same, with another least MTU of the interfaces.
    pub fn publish_with_mtu(&mut self, services: &[ServiceEntry], smallest_mtu: u32) -> anyhow::Result<()> {
        self.dataplane.publish(&Snapshot::build(services)?, smallest_mtu);
        let backends = services.iter().flat_map(|service| &service.backends);
        self.backends.extend(backends.map(|backend| backend.id));
        self.forget_counters();
        Ok(())
    }

    /// How many frames were compared whole.
    pub fn checked(&self) -> usize {
        self.checked.load(Ordering::Relaxed)
    }

    /// What a frame that comes in by the loopback device comes to, without looking at counters: the action and the frame.
    pub fn pass(&self, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        self.forget_counters();
        self.send(frame)
    }

    fn send(&self, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 128];
        let result = self.dataplane.run(frame, &mut out)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// The same for a frame that comes in by another interface, which must have an XDP program.
    fn send_from(&self, interface_index: u32, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context = [0, frame.len() as u32, 0, interface_index, 0, 0].map(u32::to_ne_bytes);
        let mut out = vec![0; frame.len() + 128];
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
        self.observe(|| self.send(frame))
    }

    pub fn run_from(&self, interface_index: u32, frame: &[u8]) -> anyhow::Result<Seen> {
        self.observe(|| self.send_from(interface_index, frame))
    }

    fn observe(&self, send: impl FnOnce() -> anyhow::Result<(u32, Vec<u8>)>) -> anyhow::Result<Seen> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match counted.take() {
            Some(known) => known,
            None => self.count()?,
        };
        let (action, frame) = send()?;
        let after = self.count()?;
        let seen = Seen {
            action,
            frame,
            outcomes: moved(&before.outcomes, &after.outcomes),
            backends: moved_of_backends(&before.backends, &after.backends),
        };
        *counted = Some(after);
        Ok(seen)
    }

    fn count(&self) -> anyhow::Result<Counted> {
        Ok(Counted {
            outcomes: self.outcomes()?,
            backends: self.backends()?,
        })
    }

    fn forget_counters(&self) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was counted so far, by outcome.
    pub fn outcomes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let outcomes = self.dataplane.counters().outcomes()?;
        Ok(outcomes.into_iter().map(|(o, n)| (o.name(), n)).collect())
    }

    /// What is counted while something is done.
    pub fn counting(
        &self,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let before = self.outcomes()?;
        work()?;
        Ok(moved(&before, &self.outcomes()?))
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
        self.checked.fetch_add(1, Ordering::Relaxed);
        ensure!(
            seen == *expected,
            "{purpose}: sent\n{frame:02x?}\n{}",
            seen.difference(expected)
        );
        Ok(())
    }

    /// A frame stays as it is, and only the outcome is counted.
    pub fn unchanged(
        &self,
        purpose: &str,
        outcome: lb_common::outcome::Outcome,
        frame: &Frame,
    ) -> anyhow::Result<()> {
        let bytes = frame.bytes();
        self.expect(purpose, &bytes, &Seen::unchanged(outcome, &bytes))
    }

    /// A client's frame goes to its backend, whole and counted.
    pub fn forward(&self, purpose: &str, talk: &Talk, frame: Frame) -> anyhow::Result<()> {
        self.expect(purpose, &frame.bytes(), &Seen::to_backend(talk, &frame))
    }

    /// A backend's frame goes to its client, whole and counted.
    pub fn answer(&self, purpose: &str, talk: &Talk, frame: Frame) -> anyhow::Result<()> {
        self.expect(purpose, &frame.bytes(), &Seen::to_client(talk, &frame))
    }

    /// A frame in each direction, as far as the mode has both.
    pub fn both(&self, purpose: &str, talk: &Talk, change: impl Fn(Frame) -> Frame) -> anyhow::Result<()> {
        // Long enough for a datagram that is as ordinary as a segment.
        self.forward(purpose, talk, change(talk.client_says(b"to your house")))?;
        if talk.is_answered() {
            self.answer(purpose, talk, change(talk.backend_says(b"and back again")))?;
        }
        Ok(())
    }

    /// A client's SYN, or first datagram, opens a connection.
    pub fn open(&self, purpose: &str, talk: &Talk) -> anyhow::Result<()> {
        let first = talk.client_opens();
        self.expect(purpose, &first.bytes(), &Seen::opening(talk, &first))
    }

    /// A whole handshake, or an exchange of datagrams, as far as the balancer sees it.
    pub fn establish(&self, talk: &Talk) -> anyhow::Result<()> {
        self.open("SYN", talk)?;
        if talk.is_answered() {
            self.answer("SYN-ACK", talk, talk.backend_accepts())?;
        }
        self.forward("ACK", talk, talk.client_says(b""))
    }

    /// A handshake with whichever backend the program chooses, without looking at counters.
    pub fn establish_somewhere(&self, client: SocketAddr) -> anyhow::Result<Talk> {
        let mut talk = Talk::new(client, 1);
        let number = self.server_of(&talk.client_sends().syn())?;
        talk.backend = web(number);
        self.pass(&talk.backend_sends().syn().ack().bytes())?;
        self.pass(&talk.client_sends().ack().bytes())?;
        Ok(talk)
    }

    /// The server that a client's frame went to, by its MAC address.
    pub fn server_of(&self, frame: &Frame) -> anyhow::Result<u8> {
        let (action, frame) = self.pass(&frame.bytes())?;
        ensure!(action == action_number(Action::Redirect), "action {action}");
        let number = *frame.get(5).context("frame too short")?;
        ensure!(frame.get(..6) == Some(&web_mac(number)[..]), "{frame:02x?}");
        Ok(number)
    }

    /// The table, as `lbctl` lists it.
    pub fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        let now = self.dataplane.now()?;
        Ok(self.dataplane.connections().iter(now).collect())
    }

    /// The only entry of a client.
    pub fn connection(&self, client: SocketAddr) -> anyhow::Result<Connection> {
        let all = self.connections()?;
        let mut of_client = all.iter().filter(|connection| connection.client == client);
        let first = of_client
            .next()
            .with_context(|| format!("{client} has no entry"))?;
        ensure!(of_client.next().is_none(), "{client} has several entries");
        Ok(*first)
    }
}

fn moved(
    before: &BTreeMap<&'static str, u64>,
    after: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    after
        .iter()
        .map(|(name, after)| (*name, after - before.get(name).copied().unwrap_or(0)))
        .filter(|(_, moved)| *moved != 0)
        .collect()
}

fn moved_of_backends(
    before: &BTreeMap<u16, BackendCounters>,
    after: &BTreeMap<u16, BackendCounters>,
) -> BTreeMap<u16, BackendCounters> {
    after
        .iter()
        .map(|(id, after)| {
            let before = before.get(id).copied().unwrap_or_default();
            (*id, difference(*after, before))
        })
        .filter(|(_, moved)| *moved != BackendCounters::default())
        .collect()
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
