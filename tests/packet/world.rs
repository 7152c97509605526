//! The program, loaded and told about services, and packets to run through it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, ensure};
use etherparse::{PacketBuilder, TcpHeader};
use lb::dataplane::{BackendEntry, Dataplane, LoadOptions, Object, ServiceEntry, Snapshot};
use lb::neighbours::NextHop;
use lb_common::abi::BackendCounters;
use lb_common::outcome::{Action, Outcome};

pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 2), 40000);
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);
/// The router on the clients' side, and the balancer's own address there.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub const UPLINK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// The balancer's address on the servers' side.
pub const INSIDE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];
/// An interface that is not the loopback device, which the kernel's runner pretends that frames come in by.
pub const INSIDE: u32 = 4242;

pub const TIMEOUTS: [u16; 3] = [9, 1800, 30];

/// The program and what it decided so far.
pub struct World {
    pub dataplane: Dataplane,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub action: u32,
    pub frame: Vec<u8>,
    /// Counters that moved.
    pub outcomes: BTreeMap<&'static str, u64>,
}

/// `web1`, `web2`, … at 198.18.N.2, ids 1, 2, …
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
    let backends: Vec<_> = (1..=servers).map(web).collect();
    ServiceEntry {
        number: 1,
        vip: VIP,
        leaving: false,
        slots: backends.iter().map(|b| b.id).collect(),
        backends,
    }
}

/// A TCP segment from the client's side to the VIP.
pub fn from_client(client: SocketAddrV4, to: SocketAddrV4, tcp: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    segment(ROUTER_MAC, UPLINK_MAC, client, to, 64, tcp, b"")
}

/// Any TCP segment, encoded by a crate that is not ours.
pub fn segment(
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    from: SocketAddrV4,
    to: SocketAddrV4,
    time_to_live: u8,
    tcp: impl FnOnce(&mut TcpHeader),
    payload: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(from.port(), to.port(), 1000, 64240);
    tcp(&mut header);
    let builder = PacketBuilder::ethernet2(source_mac, destination_mac)
        .ipv4(from.ip().octets(), to.ip().octets(), time_to_live)
        .tcp_header(header);
    let mut frame = Vec::new();
    builder
        .write(&mut frame, payload)
        .expect("a vector takes everything");
    frame
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
        let mut world = Self {
            dataplane: Dataplane::load(&Object::embedded()?, options)?,
        };
        world.publish(services)?;
        Ok(world)
    }

    pub fn publish(&mut self, services: &[ServiceEntry]) -> anyhow::Result<()> {
        self.dataplane.publish(&Snapshot::build(services)?);
        Ok(())
    }

    pub fn run(&self, frame: &[u8]) -> anyhow::Result<Seen> {
        let before = self.outcomes()?;
        let mut out = vec![0; frame.len() + 64];
        let result = self.dataplane.run(frame, &mut out)?;
        out.truncate(result.data_size_out as usize);
        let outcomes = self
            .outcomes()?
            .into_iter()
            .filter_map(|(name, after)| {
                Some((name, after - before.get(name)?)).filter(|(_, moved)| *moved != 0)
            })
            .collect();
        Ok(Seen {
            action: result.return_value,
            frame: out,
            outcomes,
        })
    }

    fn outcomes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        Ok(self
            .dataplane
            .counters()
            .outcomes()?
            .into_iter()
            .map(|(o, n)| (o.name(), n))
            .collect())
    }

    pub fn counters(&self, backend: u16) -> anyhow::Result<BackendCounters> {
        Ok(self.dataplane.counters().backend(backend)?)
    }

    /// Runs a frame and asserts everything: the outcome's counter and no other, its action, the whole frame.
    pub fn expect(
        &self,
        purpose: &str,
        frame: &[u8],
        outcome: Outcome,
        expected: &[u8],
    ) -> anyhow::Result<()> {
        let seen = self.run(frame)?;
        let outcomes = BTreeMap::from([(outcome.name(), 1)]);
        ensure!(
            seen.outcomes == outcomes,
            "{purpose}: came to {:?}, not {}",
            seen.outcomes,
            outcome.name()
        );
        ensure!(
            seen.action == action(outcome),
            "{purpose}: action {}",
            seen.action
        );
        ensure!(
            seen.frame == expected,
            "{purpose}: the frame is\n{:02x?}, not\n{expected:02x?}",
            seen.frame
        );
        Ok(())
    }

    /// The backend that a frame of a client was sent to, by the destination address that it left with.
    pub fn backend_of(&self, frame: &[u8]) -> anyhow::Result<Ipv4Addr> {
        let seen = self.run(frame)?;
        ensure!(
            seen.action == action(Outcome::ToBackend),
            "came to {:?}",
            seen.outcomes
        );
        destination(&seen.frame)
    }
}

pub fn destination(frame: &[u8]) -> anyhow::Result<Ipv4Addr> {
    let address: [u8; 4] = frame.get(30..34).context("frame too short")?.try_into()?;
    Ok(address.into())
}

/// As the kernel's runner reports it.
fn action(outcome: Outcome) -> u32 {
    match outcome.action() {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Transmit => 3,
        Action::Redirect => 4,
    }
}
