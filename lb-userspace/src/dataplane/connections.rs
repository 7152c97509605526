//! The connection table, read at memory speed. User space only ever deletes from it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::AtomicU64;

use aya::maps::MapData;
use lb_common::connection_table::entry::ipv4_key_parts;
use lb_common::connection_table::{Bucket, Value, Way};
use lb_common::tcp_state::State;
use lb_common::tick::Tick;

use super::DataplaneError;
use super::memory::MappedArray;

/// One connection as the table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub client: SocketAddrV4,
    /// The service's number.
    pub service: u16,
    /// The backend's id.
    pub backend: u16,
    /// The state.
    pub state: State,
    /// Ticks until it is forgotten; negative: it is over, but not swept yet.
    pub ticks_left: i16,
}

impl Connection {
    /// Whether it counts as a connection now: not closed, not reset, not timed out.
    pub fn is_open(&self) -> bool {
        self.ticks_left >= 0 && !self.state.is_over()
    }
}

/// The table's memory.
#[derive(Debug)]
pub struct ConnectionTable {
    buckets: MappedArray<Bucket<AtomicU64, 1>>,
}

impl ConnectionTable {
    pub(super) fn new(map: &MapData) -> Result<Self, DataplaneError> {
        Ok(Self {
            buckets: MappedArray::new("CONNECTIONS", map)?,
        })
    }

    fn entries(&self) -> impl Iterator<Item = (&Way<AtomicU64, 1>, [u64; 1], Value)> {
        self.buckets
            .shared()
            .iter()
            .flat_map(Bucket::ways)
            .filter_map(|way| way.read().map(|(key, value)| (way, key, value)))
    }

    /// Every entry, also those that are over.
    pub fn iter(&self, now: Tick) -> impl Iterator<Item = Connection> {
        self.entries().map(move |(_, key, value)| {
            let (client, port, service) = ipv4_key_parts(key);
            Connection {
                client: SocketAddrV4::new(Ipv4Addr::from(client), port),
                service,
                backend: value.backend(),
                state: value.state(),
                ticks_left: value.deadline().until(now),
            }
        })
    }

    /// Removes the entries whose time is over; how many.
    pub fn sweep(&self, now: Tick) -> usize {
        self.entries()
            .filter(|(way, _, value)| value.deadline().is_past(now) && way.remove(*value))
            .count()
    }

    /// Bytes of memory that the table takes.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.buckets.shared()) as u64
    }
}
