//! Bytes to and from the lab's web servers, by TCP and UDP, each of them checked at the other end: what tests of the data
//! path send through the balancer.
//!
//! The server is part of [`app`](crate::app); it has a socket for each address that it is to answer from, so that its
//! answers come from a VIP where it has one. The [`client`] runs wherever the test is, in the client's namespace. Both
//! know the bytes ([`Pattern`]), so that neither has to remember any.
//!
//! **TCP.** Any number of requests on a connection; each is a line, and so is the head of an answer:
//!
//! ```text
//! ping SEQUENCE           NAME PEER SEQUENCE
//! get LENGTH              NAME PEER LENGTH             then the pattern's first LENGTH bytes
//! put LENGTH + bytes      NAME PEER LENGTH VERDICT     "same" or "different"
//! ```
//!
//! **UDP.** A datagram is a line and, behind it, bytes. `OFFSET` is the place in the pattern:
//!
//! ```text
//! ping SEQUENCE + bytes            NAME PEER SEQUENCE + the same bytes
//! get SEQUENCE OFFSET LENGTH       NAME PEER SEQUENCE + bytes
//! put SEQUENCE OFFSET + bytes      NAME PEER SEQUENCE VERDICT
//! ```
//!
//! `NAME` is the server's, `PEER` the address and port that it saw the request come from.
//!
//! [`Pattern`]: crate::app::Pattern

pub mod client;
mod client_udp;
mod request;
mod server;
mod server_tcp;
mod server_udp;

use serde::{Deserialize, Serialize};

pub use server::serve;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The most bytes of a request or an answer before its payload.
const LONGEST_HEAD: usize = 160;
