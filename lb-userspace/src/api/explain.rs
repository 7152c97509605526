//! What `lbctl why` asks and is answered.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::Protocol;

/// `GET /v1/why`: query parameters. What would become of this packet if it came now?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// The VIP and the port that the client connects to.
    pub vip: SocketAddr,
    /// TCP flags, of `syn`, `ack`, `fin`, `rst`, with commas in between. Without: `ack` of a connection that there is, else `syn`.
    pub flags: Option<String>,
    /// Not the client's packet, but the backend's answer to it.
    #[serde(default)]
    pub from_backend: bool,
    /// With `from_backend`: which one; without: the one that has the connection.
    pub backend: Option<String>,
    /// The interface that the packet comes in by; without: for a client's the first of `daemon.interfaces`, for a backend's the
    /// one that leads to it.
    pub interface: Option<String>,
    /// Length of the packet in bytes, the Ethernet header not included; without: as short as can be.
    pub length: Option<u16>,
}

/// The answer: nothing was changed to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The packet that was asked about, in words.
    pub packet: String,
    /// The interface that it comes in by.
    pub interface: String,
    /// What is decided about it, in order.
    pub decisions: Vec<Decision>,
    /// The service that it belongs to.
    pub service: Option<String>,
    /// The backend that it goes to, or comes from.
    pub backend: Option<String>,
    /// What becomes of it, as in `lbctl counters`.
    pub outcome: String,
    /// `pass`, `drop`, `transmit` or `redirect`.
    pub action: String,
    /// What the outcome means, in a sentence.
    pub meaning: String,
}

/// A decision of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided: `service`, `connection`, `slot`, `backend`, `port`, `entry`, `route`, `size`, `rewrite`, `next hop`, …
    pub about: String,
    /// What came of it, in words.
    pub says: String,
}
