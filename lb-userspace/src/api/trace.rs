//! What `lbctl trace` asks and is answered.
//!
//! Tracing lasts for as long as somebody asks for more: whoever stops asking, for whatever reason, ends it.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::explain::Decision;

/// `POST /v1/trace`: begin tracing, go on, or end it. Waits up to a second for packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Which tracing to go on with, as the first answer said; `None`: begin one. There is one at a time.
    pub session: Option<u64>,
    /// Whether this is the end of it.
    #[serde(default)]
    pub end: bool,
    /// Which packets; of no consequence but at the beginning.
    #[serde(default)]
    pub filter: Filter,
    /// At most so many packets a second; `None`: 100.
    pub rate: Option<u32>,
}

/// Which packets are traced: those of which all is true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// From or to this address, as the packet comes or as it leaves.
    pub host: Option<IpAddr>,
    /// From or to this port, likewise.
    pub port: Option<NonZeroU16>,
    /// Of this protocol.
    pub protocol: Option<TracedProtocol>,
    /// Of this family: 4 or 6.
    pub family: Option<u8>,
    /// With one of these outcomes; empty: any.
    #[serde(default)]
    pub outcomes: Vec<String>,
}

/// A protocol that can be filtered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TracedProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// To go on with.
    pub session: u64,
    /// Packets since the last answer, oldest first for each CPU.
    pub packets: Vec<TracedPacket>,
    /// Packets that the filter wanted but that were too many, since the beginning.
    pub left_out: u64,
}

/// A packet, and what was decided about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// When it came, in ns since 1970.
    pub time: u64,
    /// The interface that it came by.
    pub interface: String,
    /// The packet as it came, in words.
    pub packet: String,
    /// The frame's length as it came, in bytes.
    pub length: u32,
    /// The frame's first 256 bytes as they came, in hex.
    pub head: String,
    /// What was decided about it, in order.
    pub decisions: Vec<Decision>,
    /// The service that it belongs to.
    pub service: Option<String>,
    /// The backend that it went to, or came from.
    pub backend: Option<String>,
    /// What became of it, as in `lbctl counters`.
    pub outcome: String,
    /// `pass`, `drop`, `transmit` or `redirect`.
    pub action: String,
}
