//! A loaded program with its services, and the connections that it has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use lb::config::Protocol;
use lb::dataplane::{
    BackendEntry, Connection, Dataplane, Forwarding, LoadOptions, PortLease, ServiceEntry, Snapshot, Tracer,
};
use lb_common::bench::{
    DESTINATION, DESTINATION_IPV6, PORTS, PORTS_IPV6, Place, Plan, SOURCE, SOURCE_IPV6, SOURCE_SUBNET_IPV6,
};
use lb_common::tcp_state::State;
use lb_tests::programs;

use crate::frame::Frame;
use crate::kind::{Kind, Mode, NAT};
use crate::pool::OPTIONS;
use crate::repeater::{Repeater, plan};
use crate::talk::Talk;
use crate::variant::{SOMEBODY_ELSE, Variant};

/// Own ports towards each backend, in `full-nat`. As a bit pattern the first one ends in so many zeros that the others can be
/// added to it.
const OWN_PORTS: u16 = 1 << 14;
const FIRST_OWN_PORT: u16 = 1 << 15;
/// Backends of the `full-nat` service: together they have a million own ports.
const FULL_NAT_BACKENDS: u16 = 64;
/// Connections that are opened at the same time, of a million.
const BATCH: u32 = 1 << 16;
/// The first VIP of several services: a service's index is added.
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// The port of all clients.
const CLIENT_PORT: u16 = 40_000;

/// What a scene consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Setting {
    pub mode: Mode,
    pub ipv4: bool,
    pub tcp: bool,
    pub variant: Variant,
    pub services: u16,
    /// Of each service; of `full-nat` there are more.
    pub backends: u16,
    /// Connections that the table is made for.
    pub room: u32,
    /// Connections that there are before anything is measured.
    pub established: u32,
}

/// A setting, loaded.
pub struct Scene {
    pub dataplane: Dataplane,
    setting: Setting,
    /// The share of its connections that found a place in the table.
    pub placed: f64,
    /// Keeps the tracing program where it is called.
    _tracer: Option<Tracer>,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    In,
    /// From the backend.
    Out,
}

impl Setting {
    /// A table for a million, and as many connections.
    pub fn new(mode: Mode, ipv4: bool, tcp: bool) -> Self {
        Self {
            mode,
            ipv4,
            tcp,
            variant: Variant::Plain,
            services: 1,
            // With a single one every answer comes from it.
            backends: if mode == Mode::FullNat {
                FULL_NAT_BACKENDS
            } else {
                1
            },
            room: 1 << 20,
            established: 1 << 20,
        }
    }

    fn kind(&self) -> Kind {
        let family = if self.ipv4 {
            crate::kind::Family::Ipv4
        } else {
            crate::kind::Family::Ipv6
        };
        let protocol = if self.tcp { Protocol::Tcp } else { Protocol::Udp };
        self.variant.kind(Kind {
            mode: self.mode,
            family,
            protocol,
            ..NAT
        })
    }

    /// A connection of the flow number 0.
    pub fn talk(&self) -> anyhow::Result<Talk> {
        let kind = self.kind();
        let client: IpAddr = if self.ipv4 {
            Ipv4Addr::new(10, 0, 0, 0).into()
        } else {
            "2001:db8:ace::".parse()?
        };
        let mut talk = Talk {
            client: SocketAddr::new(client, CLIENT_PORT),
            own_port: FIRST_OWN_PORT,
            ..kind.talk(0, 1)
        };
        if self.services > 1 {
            talk.vip.set_ip(FIRST_VIP.into());
        }
        Ok(talk)
    }

    fn services(&self) -> Vec<ServiceEntry> {
        let kind = self.kind();
        let services = (0..self.services).map(|service| {
            let backends =
                (0..self.backends).map(|backend| self.backend(kind, service * self.backends + backend));
            let mut entry = ServiceEntry {
                number: 1 + service,
                ..kind.service_of(backends.collect())
            };
            if self.services > 1 {
                entry.vip = Ipv4Addr::from(u32::from(FIRST_VIP) + u32::from(service)).into();
            }
            entry
        });
        self.variant.of_services(services.collect())
    }

    /// The backend with this index among all services'.
    fn backend(&self, kind: Kind, index: u16) -> BackendEntry {
        let few = self.services == 1 && index < 200;
        let mut backend = kind.backend(if few { index as u8 + 1 } else { 1 });
        backend.id = 1 + index;
        if !few {
            let address = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + 1 + u32::from(index);
            backend.endpoint.set_ip(Ipv4Addr::from(address).into());
        }
        if let Forwarding::FullNat { lease, .. } = &mut backend.forwarding {
            *lease = PortLease {
                first_port: FIRST_OWN_PORT,
                ports: OWN_PORTS,
                first_element: u32::from(index) * u32::from(OWN_PORTS),
            };
        }
        backend
    }

    fn options(&self) -> LoadOptions {
        let wide = !self.ipv4 || self.variant == Variant::SeveralPorts;
        let (narrow, wide) = if wide { (16, self.room) } else { (self.room, 16) };
        let own_ports = u32::from(self.backends) * u32::from(OWN_PORTS);
        self.variant.options(LoadOptions {
            max_connections: narrow,
            max_wide_connections: wide,
            full_nat_ports: if self.mode == Mode::FullNat { own_ports } else { 0 },
            ..OPTIONS
        })
    }

    /// So many flows of a frame take turns, as its numbers are in frames of this way.
    pub fn plan(&self, frame: &Frame, way: Way, flows: u32) -> anyhow::Result<Plan> {
        let backends = u32::from(self.backends);
        let (source, destination, ports) = if self.ipv4 {
            (SOURCE, DESTINATION, PORTS)
        } else {
            (SOURCE_IPV6, DESTINATION_IPV6, PORTS_IPV6)
        };
        if way == Way::In {
            let plan = plan(frame, source, flows)?;
            return Ok(if self.services > 1 {
                plan.with_scattered(Place::at(destination), self.services.into())
            } else {
                plan
            });
        }
        ensure!(self.services == 1 && self.backends <= 64, "no such answers");
        let mut plan = plan(frame, destination, flows)?;
        if self.mode == Mode::FullNat {
            // Backends were dealt out in turns, and their own ports in order.
            plan.flow = Place {
                right: backends.trailing_zeros(),
                ..Place::at(ports)
            };
        }
        let backend = if self.ipv4 {
            Place {
                left: 8,
                ..Place::at(source)
            }
        } else {
            Place::at(SOURCE_SUBNET_IPV6)
        };
        // A single flow has the first backend.
        Ok(if flows == 1 {
            plan
        } else {
            plan.with_turns(backend, backends)
        })
    }

    pub fn is_answered(&self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::FullNat)
    }
}

impl Scene {
    /// Loads the program, publishes the services, and opens the connections.
    pub fn load(setting: Setting, repeater: &mut Repeater) -> anyhow::Result<Self> {
        let object = lb::dataplane::Object::from_file(&programs::object("lb-ebpf")?)?;
        let mut dataplane = Dataplane::load(&object, setting.options())?;
        let variant = setting.variant;
        dataplane.publish(&Snapshot::build(&setting.services())?, variant.smallest_mtu());
        let mut tracer = None;
        if variant.is_traced() {
            let blueprint = dataplane.blueprint().map_err(anyhow::Error::msg)?;
            let loaded = Tracer::load(&blueprint, SOMEBODY_ELSE)?;
            dataplane.trace(Some(&loaded.first()?))?;
            tracer = Some(loaded);
        }
        let mut scene = Self {
            dataplane,
            setting,
            placed: 1.0,
            _tracer: tracer,
        };
        scene.placed = scene
            .establish(repeater)
            .with_context(|| format!("{setting:?}"))?;
        Ok(scene)
    }

    /// Runs the program on so many frames, and says what one took on average, in ns.
    pub fn run(&self, repeater: &mut Repeater, plan: Plan, frames: u32) -> anyhow::Result<f64> {
        repeater.prepare(self.dataplane.program()?.fd()?, |_| Ok(plan))?;
        repeater.run(frames)
    }

    /// Opens the connections by whole handshakes, or exchanges of datagrams. Returns the share that found a place.
    fn establish(&self, repeater: &mut Repeater) -> anyhow::Result<f64> {
        let setting = &self.setting;
        let flows = setting.established;
        if flows == 0 || setting.variant == Variant::Stateless {
            return Ok(1.0);
        }
        let talk = setting.talk()?;
        let opens = setting.plan(&talk.client_opens(), Way::In, flows)?;
        let goes_on = setting.plan(&talk.client_says(b""), Way::In, flows)?;
        let answers = if setting.is_answered() && setting.backends == 1 {
            Some(setting.plan(&talk.backend_accepts(), Way::Out, flows)?)
        } else {
            None
        };
        let order = flows.next_power_of_two();
        // Not all at a time: half-open connections that are a tick old make way for others, and where many do, choices are
        // made by hashing. Not too few either: the kernel takes some 20 ms to begin and end.
        let batch = order.min(BATCH).max(order / 16);
        let mut position = opens;
        for _ in 0..order / batch {
            let at = position.state;
            self.run(repeater, opens.from(at), batch)?;
            match answers {
                Some(answers) => drop(self.run(repeater, answers.from(at), batch)?),
                None if setting.is_answered() => self.answer_each(&talk)?,
                // Where answers are not seen a connection lives after its third segment.
                None => {
                    for _ in 0..2 {
                        self.run(repeater, goes_on.from(at), batch)?;
                    }
                }
            }
            self.run(repeater, goes_on.from(at), batch)?;
            for _ in 0..batch {
                position.next_flow();
            }
        }
        let now = self.dataplane.now()?;
        let half_open = now.after(crate::world::TIMEOUTS[0] + 1);
        let connections = self.dataplane.connections().iter(half_open);
        let established = connections.filter(|connection| connection.ticks_left > 0).count();
        ensure!(
            established >= flows as usize / 1000 * 998,
            "only {established} of {flows} connections could be opened"
        );
        Ok((established as f64 / f64::from(flows)).min(1.0))
    }

    /// Has each new connection answered by the backend that it went to.
    fn answer_each(&self, talk: &Talk) -> anyhow::Result<()> {
        let services = self.setting.services();
        let service_of: BTreeMap<u16, &ServiceEntry> =
            services.iter().map(|service| (service.number, service)).collect();
        let now = self.dataplane.now()?;
        let opened = |it: &Connection| it.state == State::SynSeen || it.state == State::Unconfirmed;
        let connections: Vec<_> = self.dataplane.connections().iter(now).filter(opened).collect();
        let mut out = vec![0; 256];
        for connection in connections {
            let service = service_of.get(&connection.service).context("no such service")?;
            let mut backends = service.backends.iter();
            let backend = backends.find(|backend| backend.id == connection.backend);
            let answer = Talk {
                client: connection.client,
                vip: SocketAddr::new(service.vip, talk.vip.port()),
                own_port: connection.own_port,
                backend: backend.context("no such backend")?.clone(),
                ..talk.clone()
            };
            self.dataplane.run(&answer.backend_accepts().bytes(), &mut out)?;
        }
        Ok(())
    }
}
