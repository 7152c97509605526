//! What services that share a server must not have in common: answers come from its address and port alone, and the program
//! must be able to tell whose they are. Pure, and the same words for the file and for what is added at run time.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use super::{Backend, Mode, Ports, Protocol, Service, limits};

/// A service's use of a server: what matters of it to other services that use the server.
#[derive(Debug, Clone)]
pub(super) struct Use {
    /// The service, as in messages.
    pub(super) service: String,
    pub(super) vip: IpAddr,
    pub(super) ports: Ports,
    pub(super) protocol: Protocol,
    pub(super) mode: Mode,
    pub(super) stateless: bool,
    /// Where `full-nat` connections come from.
    pub(super) source: Option<IpAddr>,
    pub(super) source_ports: RangeInclusive<u16>,
    /// The server's port; `None`: that of the packet.
    pub(super) port: Option<NonZeroU16>,
}

impl Use {
    /// A service's use of one of its backends.
    pub(super) fn of(service: &Service, backend: &Backend) -> Self {
        Self {
            service: format!("{:?}", service.name),
            vip: service.vip,
            ports: service.ports.clone(),
            protocol: service.protocol,
            mode: service.mode,
            stateless: service.stateless,
            source: service.source_address,
            source_ports: service.source_ports.clone(),
            port: backend.port,
        }
    }

    /// Whether this and `others`, uses of the same server by other services, can be told apart.
    ///
    /// # Errors
    /// Why not, and what to do, in words.
    pub(super) fn goes_with(&self, address: IpAddr, others: &[Self]) -> Result<(), String> {
        if !self.is_answered() {
            return Ok(());
        }
        let others = others
            .iter()
            .filter(|other| other.protocol == self.protocol && other.is_answered());
        let same_endpoint = others.clone().filter(|other| other.port == self.port);
        if same_endpoint.count() >= limits::SERVICES_PER_ENDPOINT {
            return Err(format!(
                "{} is a backend of {} services already, as many as may; give the server another address or port for \
                 some of them",
                endpoint(address, self.port),
                limits::SERVICES_PER_ENDPOINT
            ));
        }
        for other in others {
            let what = if self.port == other.port && (self.stateless || other.stateless) {
                "and answers of a stateless service carry nothing else to be told apart by; give the server another address \
                 or port in one of the two"
            } else if self.port != other.port && (self.hides(other) || other.hides(self)) {
                "and answers from its port to several ports of one could not be told from the other's; give the server \
                 another address in one of the two"
            } else if self.port == other.port && self.takes_ports_of(other) {
                "with the same source_address and some of the same source_ports, so that connections would collide; give \
                 one of the two other ports or another address to come from"
            } else {
                continue;
            };
            return Err(format!(
                "service {} has {} as a backend as well, {what}",
                other.service,
                endpoint(address, other.port)
            ));
        }
        Ok(())
    }

    /// Whether answers come back through the balancer.
    fn is_answered(&self) -> bool {
        self.mode.maps_ports()
    }

    /// Whether answers to this, a service of several ports, come from the port that `other` has the server under, and are
    /// looked for among the other's connections only. Not if `other` is what has that port of the VIP.
    fn hides(&self, other: &Self) -> bool {
        let (None, Some(port), Ports::Range(ports)) = (self.port, other.port, &self.ports) else {
            return false;
        };
        let instead = other.vip == self.vip && other.ports == Ports::One(port);
        ports.contains(&port.get()) && !instead
    }

    /// Whether two `full-nat` services could take the same own port towards the server.
    fn takes_ports_of(&self, other: &Self) -> bool {
        let full_nat = self.mode == Mode::FullNat && other.mode == Mode::FullNat;
        full_nat
            && self.source.is_some()
            && self.source == other.source
            && self.source_ports.start() <= other.source_ports.end()
            && other.source_ports.start() <= self.source_ports.end()
    }
}

/// `198.18.1.2 port 443`.
fn endpoint(address: IpAddr, port: Option<NonZeroU16>) -> String {
    match port {
        Some(port) => format!("{address} port {port}"),
        None => address.to_string(),
    }
}
