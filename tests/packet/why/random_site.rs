//! A random configuration, and packets that have to do with it.

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;
use lb::dataplane::{BackendEntry, Forwarding, PortLease, ServiceEntry, Snapshot};
use lb_common::abi::Choice;

use crate::frame::{Frame, Says};
use crate::kind::{Flavour, Kind};
use crate::talk::Talk;
use crate::world::{INGRESS, ROUTER_MAC, World};

const SERVICES: usize = 24;
const CLIENTS: u32 = 40;

/// Services of every mode, family and protocol, some of which share servers.
pub struct RandomSite {
    pub services: Vec<ServiceEntry>,
    kinds: Vec<Kind>,
}

impl RandomSite {
    pub fn new(random: &mut Rng) -> Self {
        // What contradicts itself is tried again: a service of several ports may share a server with one of those ports.
        loop {
            let mut site = Self::any(random);
            site.change(random);
            if Snapshot::build(&site.services).is_ok() {
                return site;
            }
        }
    }

    fn any(random: &mut Rng) -> Self {
        let mut all = Kind::all();
        random.shuffle(&mut all);
        all.truncate(SERVICES);
        let (mut id, mut element) = (0, 0);
        let mut services = Vec::new();
        for (number, kind) in (1..).zip(&all) {
            let count = random.u8(1..=4);
            let first = random.u8(1..=6);
            let mut backends = Vec::new();
            for server in first..first + count {
                id += 1;
                let mut backend = BackendEntry {
                    id,
                    ..kind.backend(server)
                };
                if let Forwarding::FullNat { source, .. } = backend.forwarding {
                    // A server, and ports, of its own: two services must not take the same.
                    backend.endpoint.set_ip(aside(backend.endpoint.ip(), id));
                    let ports = random.u16(2..=8);
                    let lease = PortLease {
                        first_port: 20_000 + id * 8,
                        ports,
                        first_element: element,
                    };
                    element += u32::from(ports);
                    backend.forwarding = Forwarding::FullNat { source, lease };
                }
                if random.u8(..) < 32 {
                    backend.next_hop = None;
                } else if random.u8(..) < 32
                    && let Some(hop) = &mut backend.next_hop
                {
                    hop.interface_index = INGRESS;
                }
                backends.push(backend);
            }
            services.push(ServiceEntry {
                number,
                vip: aside(kind.vip().ip(), number),
                answer_ping: random.bool(),
                silent: random.bool(),
                choice: if kind.is_stateless() {
                    Choice::Hash
                } else {
                    random
                        .choice([
                            Choice::Cursor,
                            Choice::Cursor,
                            Choice::Hash,
                            Choice::Source,
                            Choice::Least,
                            Choice::Random,
                        ])
                        .unwrap_or(Choice::Cursor)
                },
                ..kind.service_of(backends)
            });
        }
        Self { services, kinds: all }
    }

    /// Other states of the backends, and with them other slots.
    pub fn change(&mut self, random: &mut Rng) {
        for service in &mut self.services {
            service.leaving = random.u8(..) < 8;
            for backend in &mut service.backends {
                backend.up = random.u8(..) < 200;
                backend.reset = !backend.up && random.bool();
                backend.leaving = random.u8(..) < 12;
            }
            service.previous_slots = match service.choice {
                Choice::Hash | Choice::Source if random.bool() => service.slots.clone(),
                _ => Vec::new(),
            };
            let up = service.backends.iter().filter(|it| it.up && !it.leaving);
            service.slots = up.map(|it| it.id).collect();
            if service.choice == Choice::Hash && !service.slots.is_empty() {
                let slots = service.slots.clone();
                service.slots = (0..17).filter_map(|_| random.choice(&slots).copied()).collect();
            }
        }
    }

    /// Whoever random frames should mostly be between.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        let mut endpoints = Vec::new();
        for (service, kind) in self.services.iter().zip(&self.kinds) {
            endpoints.push(SocketAddr::new(service.vip, kind.port()));
            endpoints.extend(service.backends.iter().map(|backend| backend.endpoint));
            endpoints.push(kind.client(1));
        }
        endpoints
    }

    /// A frame that has to do with a service.
    pub fn frame(&self, random: &mut Rng, world: &World) -> anyhow::Result<Vec<u8>> {
        let talk = if random.bool() {
            self.known(random, world)?
        } else {
            None
        };
        let talk = talk.unwrap_or_else(|| self.new_talk(random));
        let mut frame = Self::said(&talk, random);
        match random.u8(..) {
            0..8 => frame = frame.time_to_live(1),
            8..20 => frame = frame.class(4),
            _ => {}
        }
        if random.u8(..) < 24 && frame.packet.content.bytes(&frame.packet.header).len() > 24 {
            let fragments = frame.fragments(&[16]);
            let which = random.usize(..fragments.len());
            return Ok(fragments[which].bytes());
        }
        Ok(frame.bytes())
    }

    fn said(talk: &Talk, random: &mut Rng) -> Frame {
        let is_tcp = talk.client_sends().is_tcp();
        let payload = vec![7; random.usize(..1200)];
        match random.u8(..100) {
            0..35 => talk.client_opens(),
            35..50 => talk.client_says(&payload),
            50..55 if is_tcp => talk.client_says(b"").fin(),
            55..58 if is_tcp => talk.client_sends().rst(),
            58..72 => talk.backend_accepts(),
            72..84 => talk.backend_says(&payload),
            84..87 if is_tcp => talk.backend_says(b"").fin(),
            87..92 => talk.error_from_clients_side(
                &talk.backend_says(b"about this"),
                Says::TooBig(1200),
                talk.client.ip(),
                60,
            ),
            92..97 => talk.error_from_backends_side(
                &talk.client_says(b"about this"),
                Says::TooBig(1200),
                talk.server().ip(),
                60,
            ),
            97 => Frame::echo_request(talk.client.ip(), talk.vip.ip(), b"ping"),
            _ => talk.client_opens(),
        }
    }

    fn new_talk(&self, random: &mut Rng) -> Talk {
        let at = random.usize(..self.services.len());
        let (service, kind) = (&self.services[at], self.kinds[at]);
        let backend = service.backends[random.usize(..service.backends.len())].clone();
        let mut talk = kind.talk(random.u32(..CLIENTS), 1);
        talk.vip.set_ip(service.vip);
        if random.u8(..) < 16 && backend.endpoint.is_ipv4() == talk.vip.is_ipv4() {
            // A server is its own service's client.
            talk.client.set_ip(backend.endpoint.ip());
        }
        if kind.flavour == Flavour::Range {
            talk.vip.set_port(7000 + random.u16(..4));
        }
        if let Forwarding::FullNat { lease, .. } = backend.forwarding {
            talk.own_port = lease.first_port + random.u16(..lease.ports);
        }
        if random.u8(..) < 32 {
            talk.router = [2, 0, 0, 0, 0, random.u8(..)];
        } else {
            talk.router = ROUTER_MAC;
        }
        talk.backend = backend;
        talk
    }

    /// A connection that there is.
    fn known(&self, random: &mut Rng, world: &World) -> anyhow::Result<Option<Talk>> {
        let all = world.connections()?;
        let Some(connection) = random.choice(&all) else {
            return Ok(None);
        };
        let found = self
            .services
            .iter()
            .zip(&self.kinds)
            .find(|(service, _)| service.number == connection.service);
        let Some((service, kind)) = found else {
            return Ok(None);
        };
        let backend = service.backends.iter().find(|it| it.id == connection.backend);
        let Some(backend) = backend else { return Ok(None) };
        let mut talk = kind.talk(0, 1);
        talk.client = connection.client;
        talk.vip.set_ip(service.vip);
        if connection.vip_port != 0 {
            talk.vip.set_port(connection.vip_port);
        }
        talk.own_port = connection.own_port;
        talk.backend = backend.clone();
        Ok(Some(talk))
    }
}

/// An address beside another one.
fn aside(address: IpAddr, by: u16) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) + u32::from(by)).to_be_bytes()),
        IpAddr::V6(address) => IpAddr::from((u128::from(address) + u128::from(by)).to_be_bytes()),
    }
}
