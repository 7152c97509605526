//! What services and backends are known by, whatever their names: two that have the same key are the same one.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::{self, Mode, Protocol};

/// What a service is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The address that clients connect to.
    pub vip: IpAddr,
    /// The port; 0: several.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl ServiceKey {
    /// That of a service.
    pub fn of(service: &config::Service) -> Self {
        let (vip, port, protocol) = service.endpoint();
        Self { vip, port, protocol }
    }

    /// Whether the service has several ports.
    pub fn has_several_ports(&self) -> bool {
        self.port == 0
    }
}

/// What a backend is known by within its service. The way to it is part of that: a connection's packets must go the same way
/// to its end, so that after a change of the mode there is a new backend for new connections, and the old one leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendKey {
    /// Where it listens; port 0: that of the packet.
    pub endpoint: SocketAddr,
    /// How packets get there.
    pub way: Way,
}

/// A mode with what a connection's packets depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Way {
    /// Destination rewritten.
    Nat,
    /// Source as well, to this address and one of these ports.
    FullNat {
        /// The balancer's own address.
        source: IpAddr,
        /// The first and the last of its ports.
        ports: (u16, u16),
    },
    /// MAC addresses rewritten.
    Dsr,
    /// Put into another packet. From which address does not matter to a connection.
    Ipip,
}

impl BackendKey {
    /// That of a backend of a service. `None`: the mode lacks its source address, which validation refuses.
    pub fn of(service: &config::Service, backend: &config::Backend) -> Option<Self> {
        let way = match service.mode {
            Mode::Nat => Way::Nat,
            Mode::FullNat => Way::FullNat {
                source: service.source_address?,
                ports: (*service.source_ports.start(), *service.source_ports.end()),
            },
            Mode::Dsr => Way::Dsr,
            Mode::Ipip => Way::Ipip,
        };
        Some(Self {
            endpoint: backend.endpoint(),
            way,
        })
    }
}
