//! Where what is leaving and what is wanted cannot be in the tables together, the wanted ones are: connections of the others
//! end early. Only a change of a service's ports, of its mode with a server that many services share, or the like, comes to
//! that.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use lb_common::abi::MAX_SIBLINGS;

use crate::config::{Ports, Protocol};
use crate::dataplane::{BackendEntry, ServiceEntry};

/// Takes out of `services` what is leaving and in the way of what is wanted; `leaving` says whether a backend of an id is.
pub(super) fn make_way(services: &mut Vec<ServiceEntry>, leaving: impl Fn(u16) -> bool) {
    let (mut wide, mut listeners) = (Vec::new(), HashSet::new());
    for service in services.iter().filter(|service| !service.leaving) {
        match &service.ports {
            Ports::Range(ports) => wide.push(Wide::of(service, ports)),
            Ports::One(port) => {
                listeners.insert((service.vip, port.get(), service.protocol));
            }
        }
    }
    services.retain(|service| !(service.leaving && wide.iter().any(|wide| wide.covers(service, &listeners))));
    share(services, leaving);
}

/// A service of several ports that is wanted.
struct Wide {
    vip: IpAddr,
    ports: RangeInclusive<u16>,
    protocol: Protocol,
    /// The addresses that its answers come from.
    servers: HashSet<IpAddr>,
}

impl Wide {
    fn of(service: &ServiceEntry, ports: &RangeInclusive<u16>) -> Self {
        let answering = service
            .backends
            .iter()
            .filter(|it| it.forwarding.is_answered_here());
        Self {
            vip: service.vip,
            ports: ports.clone(),
            protocol: service.protocol,
            servers: answering.map(|backend| backend.endpoint.ip()).collect(),
        }
    }

    /// Whether a service of one port listens on one of these, or has backends that answer from one of them, in whose stead
    /// nobody who is wanted listens.
    fn covers(&self, service: &ServiceEntry, listeners: &HashSet<(IpAddr, u16, Protocol)>) -> bool {
        let Ports::One(port) = service.ports else {
            return false;
        };
        let takes =
            |port: u16| self.ports.contains(&port) && !listeners.contains(&(self.vip, port, self.protocol));
        let answers = |backend: &BackendEntry| {
            backend.forwarding.is_answered_here()
                && self.servers.contains(&backend.endpoint.ip())
                && takes(backend.endpoint.port())
        };
        self.protocol == service.protocol
            && ((self.vip == service.vip && takes(port.get())) || service.backends.iter().any(answers))
    }
}

/// Lets no more than as many as may share an endpoint.
fn share(services: &mut [ServiceEntry], leaving: impl Fn(u16) -> bool) {
    let mut members: HashMap<(SocketAddr, Protocol), u32> = HashMap::new();
    for service in services.iter() {
        for backend in &service.backends {
            *members.entry((backend.endpoint, service.protocol)).or_default() += 1;
        }
    }
    members.retain(|_, members| *members > MAX_SIBLINGS);
    if members.is_empty() {
        return;
    }
    for service in services {
        let protocol = service.protocol;
        service.backends.retain(|backend| {
            let Some(members) = members.get_mut(&(backend.endpoint, protocol)) else {
                return true;
            };
            let goes = *members > MAX_SIBLINGS && leaving(backend.id);
            *members -= u32::from(goes);
            !goes
        });
    }
}
