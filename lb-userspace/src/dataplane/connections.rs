//! The connection tables, read at memory speed. User space only ever deletes from them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicU64;

use aya::maps::MapData;
use lb_common::connection_table::entry::{ipv4_key_parts, wide_key_parts};
use lb_common::connection_table::{Bucket, Value, Way};
use lb_common::tcp_state::State;
use lb_common::tick::Tick;

use super::DataplaneError;
use super::memory::MappedArray;

/// One connection as a table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub client: SocketAddr,
    /// The VIP's port, of a service of several ports; else 0.
    pub vip_port: u16,
    /// The service's number.
    pub service: u16,
    /// The backend's id.
    pub backend: u16,
    /// The balancer's own port towards the backend, of a `full-nat` connection; else 0.
    pub own_port: u16,
    /// The state.
    pub state: State,
    /// Ticks until it is forgotten; negative: it is over, but not swept yet.
    pub ticks_left: i16,
    /// Whether it is in the wide table.
    pub wide: bool,
}

impl Connection {
    /// Whether it counts as a connection now: not closed, not reset, not timed out.
    pub fn is_open(&self) -> bool {
        self.ticks_left >= 0 && !self.state.looks_over()
    }

    fn narrow(key: [u64; 1], value: Value, now: Tick) -> Self {
        let (client, port, service) = ipv4_key_parts(key);
        Self {
            client: SocketAddr::new(IpAddr::V4(Ipv4Addr::from(client)), port),
            vip_port: 0,
            service,
            backend: value.backend(),
            own_port: value.port(),
            state: value.state(),
            ticks_left: value.deadline().until(now),
            wide: false,
        }
    }

    fn wide(key: [u64; 3], value: Value, now: Tick) -> Self {
        let (client, port, service, vip_port) = wide_key_parts(key);
        Self {
            client: SocketAddr::new(Ipv6Addr::from(client).to_canonical(), port),
            vip_port,
            service,
            wide: true,
            ..Self::narrow([0], value, now)
        }
    }
}

/// The little that counting needs of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// 1 if there is an entry, else 0, and then so is everything else.
    pub entries: u64,
    /// 1 if the entry counts as a connection now, as [`Connection::is_open`] says.
    pub open: u64,
    /// The service's number.
    pub service: u16,
    /// The backend's id.
    pub backend: u16,
}

/// By a value's state bits: bit 0, whether there is an entry; bit 1, whether its state is that of a connection which is not
/// over.
struct Kinds([u8; 256]);

impl Kinds {
    fn new() -> Self {
        let mut kinds = [0; 256];
        for (bits, kind) in (0..=u8::MAX).zip(&mut kinds) {
            let value = Value(bits.into());
            *kind = u8::from(value.is_entry()) | u8::from(!value.state().looks_over()) << 1;
        }
        Self(kinds)
    }

    #[inline(always)]
    fn glance(&self, value: Value, service: u16, now: Tick) -> Glance {
        let kind = self.0[usize::from(value.state_bits())];
        let entries = u16::from(kind & 1);
        let open = u16::from(kind >> 1) & u16::from(!value.deadline().is_past(now)) & entries;
        Glance {
            entries: entries.into(),
            open: open.into(),
            service: service & entries.wrapping_neg(),
            backend: value.backend() & entries.wrapping_neg(),
        }
    }
}

/// The tables' memory: one for IPv4 connections to services of one port, and a wide one, with room for IPv6 addresses and for
/// the VIP's port, for all others.
#[derive(Debug)]
pub struct ConnectionTable {
    pub(super) narrow: MappedArray<Bucket<AtomicU64, 1>>,
    pub(super) wide: MappedArray<Bucket<AtomicU64, 3>>,
}

impl ConnectionTable {
    pub(super) fn new(narrow: &MapData, wide: &MapData) -> Result<Self, DataplaneError> {
        Ok(Self {
            narrow: MappedArray::new("CONNECTIONS", narrow)?,
            wide: MappedArray::new("WIDE_CONNECTIONS", wide)?,
        })
    }

    /// Every entry, also those that are over.
    pub fn iter(&self, now: Tick) -> impl Iterator<Item = Connection> {
        let narrow =
            entries(self.narrow.shared()).map(move |(_, key, value)| Connection::narrow(key, value, now));
        let wide = entries(self.wide.shared()).map(move |(_, key, value)| Connection::wide(key, value, now));
        narrow.chain(wide)
    }

    /// Shows each way of the narrow table, then of the wide one, whether it has an entry or not: what counting needs of it,
    /// found without a branch that depends on it, since in a table that is neither full nor empty no processor foresees
    /// which ways are taken.
    pub fn glance(&self, now: Tick, mut narrow: impl FnMut(Glance), mut wide: impl FnMut(Glance)) {
        let kinds = Kinds::new();
        for way in self.narrow.shared().iter().flat_map(Bucket::ways) {
            let (key, value) = way.glance();
            narrow(kinds.glance(value, ipv4_key_parts(key).2, now));
        }
        for way in self.wide.shared().iter().flat_map(Bucket::ways) {
            let (key, value) = way.glance();
            wide(kinds.glance(value, wide_key_parts(key).2, now));
        }
    }

    /// Removes the entries whose time is over; how many.
    pub fn sweep(&self, now: Tick) -> usize {
        sweep(self.narrow.shared(), now) + sweep(self.wide.shared(), now)
    }

    /// Bytes of memory that the tables take.
    pub fn bytes(&self) -> u64 {
        (size_of_val(self.narrow.shared()) + size_of_val(self.wide.shared())) as u64
    }
}

type Entry<'a, const K: usize> = (&'a Way<AtomicU64, K>, [u64; K], Value);

fn entries<const K: usize>(buckets: &[Bucket<AtomicU64, K>]) -> impl Iterator<Item = Entry<'_, K>> {
    buckets
        .iter()
        .flat_map(Bucket::ways)
        .filter_map(|way| way.read().map(|(key, value)| (way, key, value)))
}

fn sweep<const K: usize>(buckets: &[Bucket<AtomicU64, K>], now: Tick) -> usize {
    entries(buckets)
        .filter(|(way, _, value)| value.deadline().is_past(now) && way.remove(*value))
        .count()
}
