//! Who has which number. Connections name services and backends by number, so a number stays with its owner for as long
//! as any connection names it, also when the owner has left the configuration, and is given to nobody else before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::abi::{BACKEND_IDS, BackendCounters, SERVICE_NUMBERS};
use serde::{Deserialize, Serialize};

use super::key::{BackendKey, ServiceKey, Way};
use super::leases::{self, Direction, NoLease};
use super::written;
use crate::config::Ports;
use crate::dataplane::{Forwarding, PortLease};
use crate::moment::Moment;
use crate::observed_state::Observed;

/// The numbers of all services and backends that are, or still have connections. A new name changes no number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Identities {
    #[serde(with = "written::pairs")]
    services: BTreeMap<ServiceKey, ServiceIdentity>,
    /// Out of the tables, but a connection still names them: not to be given away yet.
    resting_services: Vec<u16>,
    resting_backends: Vec<u16>,
    last_service: u16,
    last_backend: u16,
}

/// A service that has a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceIdentity {
    /// Its number in the kernel's tables.
    pub number: u16,
    /// Its present name.
    pub name: String,
    /// Its ports, kept for when it leaves.
    pub ports: Ports,
    /// Whether it remembers no connections, kept for when it leaves.
    pub stateless: bool,
    /// Whether it is no longer wanted and only here for its connections.
    pub leaving: bool,
    /// What backends counted that are gone.
    #[serde(with = "written::counters")]
    pub retired: BackendCounters,
    /// Its backends.
    #[serde(with = "written::pairs")]
    pub backends: BTreeMap<BackendKey, BackendIdentity>,
}

/// A backend that has an id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendIdentity {
    /// Its id in the kernel's tables.
    pub id: u16,
    /// Its present name.
    pub name: String,
    /// How packets get there.
    pub forwarding: Forwarding,
    /// Whether it is no longer wanted and only here for its connections.
    pub leaving: bool,
    /// What the counters of its id stood at when it got it.
    #[serde(with = "written::counters")]
    pub baseline: BackendCounters,
    /// Its idle timeouts in ticks, kept for when it leaves.
    pub timeouts: [u16; 3],
    /// How it leaves; `None`: it does not.
    pub parting: Option<Parting>,
}

/// How a backend leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// When what is left of its connections is reset; `None`: never, they may go on until they end.
    pub reset_at: Option<Moment>,
    /// Whether that time has come.
    pub resetting: bool,
}

/// A service that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is known by.
    pub key: ServiceKey,
    /// Its ports.
    pub ports: Ports,
    /// Whether it remembers no connections.
    pub stateless: bool,
    /// The balancer's own address towards the backends, of the modes that need one.
    pub source: Option<IpAddr>,
    /// Name.
    pub name: String,
    /// Key and name of each backend.
    pub backends: Vec<(BackendKey, String)>,
    /// Idle timeouts in ticks.
    pub timeouts: [u16; 3],
}

/// Why something that is wanted cannot have what it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All numbers are taken.
    #[error("no free {0}: too many are waiting for their last connections to end; try again later")]
    Numbers(&'static str),
    /// A `full-nat` backend's own ports are.
    #[error("service {service}, backend {backend}: {reason}")]
    Ports {
        /// The service's name.
        service: String,
        /// The backend's.
        backend: String,
        /// Why not.
        reason: NoLease,
    },
}

impl Identities {
    /// Gives everything that is wanted a number, and marks the rest as leaving. `own_ports` are the elements that there are
    /// for ports of `full-nat` backends, `counters` those of an id now.
    ///
    /// # Errors
    /// No number is free, or no port; some may have been given.
    pub fn adopt(
        &mut self,
        wanted: &[Wanted],
        own_ports: u32,
        counters: impl Fn(u16) -> BackendCounters,
    ) -> Result<(), Exhausted> {
        for service in self.services.values_mut() {
            service.leaving = true;
            for backend in service.backends.values_mut() {
                backend.leaving = true;
            }
        }
        for service in wanted {
            let number = match self.services.get(&service.key) {
                Some(known) => known.number,
                None => self.free_service_number()?,
            };
            let identity = self
                .services
                .entry(service.key)
                .or_insert_with(|| ServiceIdentity {
                    number,
                    name: String::new(),
                    ports: service.ports.clone(),
                    stateless: service.stateless,
                    leaving: false,
                    retired: BackendCounters::default(),
                    backends: BTreeMap::new(),
                });
            identity.name.clone_from(&service.name);
            identity.ports.clone_from(&service.ports);
            identity.stateless = service.stateless;
            identity.leaving = false;
            for (key, name) in &service.backends {
                self.adopt_backend(service, *key, name, own_ports, &counters)?;
            }
        }
        Ok(())
    }

    fn adopt_backend(
        &mut self,
        service: &Wanted,
        key: BackendKey,
        name: &str,
        own_ports: u32,
        counters: &impl Fn(u16) -> BackendCounters,
    ) -> Result<(), Exhausted> {
        let known = self
            .services
            .get(&service.key)
            .and_then(|service| service.backends.get(&key));
        let (id, forwarding) = match known {
            Some(known) => (known.id, known.forwarding),
            None => {
                let forwarding =
                    self.forwarding(service, key, own_ports)
                        .map_err(|reason| Exhausted::Ports {
                            service: service.name.clone(),
                            backend: name.to_owned(),
                            reason,
                        })?;
                (self.free_backend_id()?, forwarding)
            }
        };
        if let Some(identity) = self.services.get_mut(&service.key) {
            let backend = identity.backends.entry(key).or_insert_with(|| BackendIdentity {
                id,
                name: String::new(),
                forwarding,
                leaving: false,
                baseline: counters(id),
                timeouts: service.timeouts,
                parting: None,
            });
            name.clone_into(&mut backend.name);
            backend.leaving = false;
            backend.timeouts = service.timeouts;
            backend.parting = None;
            if let (Forwarding::Ipip { source }, Some(now)) = (&mut backend.forwarding, service.source) {
                *source = now;
            }
        }
        Ok(())
    }

    /// Decides how each backend leaves that has begun to, and sees whose time has come; to be called after
    /// [`adopt`](Self::adopt). `reset_at` says when what is left of a backend's connections is reset, given the name of its
    /// service, the backend, and how it leaves already.
    pub fn part(
        &mut self,
        now: Moment,
        reset_at: impl Fn(&ServiceKey, &ServiceIdentity, &BackendIdentity) -> Option<Moment>,
    ) {
        for (key, service) in &mut self.services {
            let mut backends = std::mem::take(&mut service.backends);
            for backend in backends.values_mut().filter(|backend| backend.leaving) {
                let reset_at = reset_at(key, service, backend);
                backend.parting = Some(Parting {
                    reset_at,
                    resetting: reset_at.is_some_and(|until| until.is_past(now)),
                });
            }
            service.backends = backends;
        }
    }

    /// How packets get to a new backend.
    fn forwarding(&self, service: &Wanted, key: BackendKey, own_ports: u32) -> Result<Forwarding, NoLease> {
        Ok(match key.way {
            Way::Nat => Forwarding::Nat,
            Way::Dsr => Forwarding::Dsr,
            Way::Ipip => Forwarding::Ipip {
                source: service.source.unwrap_or(key.endpoint.ip()),
            },
            Way::FullNat { source, ports } => {
                let direction = Direction {
                    source,
                    endpoint: key.endpoint,
                    protocol: service.key.protocol,
                };
                let lease = leases::lease(direction, ports, &self.leases(), own_ports)?;
                Forwarding::FullNat { source, lease }
            }
        })
    }

    /// The ports that are leased, those of leaving backends included.
    fn leases(&self) -> Vec<(Direction, PortLease)> {
        let backends = self.services.iter().flat_map(|(service, identity)| {
            identity
                .backends
                .iter()
                .map(move |(key, backend)| (service.protocol, key.endpoint, backend.forwarding))
        });
        backends
            .filter_map(|(protocol, endpoint, forwarding)| match forwarding {
                Forwarding::FullNat { source, lease } => Some((
                    Direction {
                        source,
                        endpoint,
                        protocol,
                    },
                    lease,
                )),
                _ => None,
            })
            .collect()
    }

    /// Takes what is leaving and has no connection left out of the tables; its numbers rest until
    /// [`Self::give_back`]. Whether anything was taken out, so that the tables must be published anew.
    pub fn let_go(&mut self, observed: &Observed, counters: impl Fn(u16) -> BackendCounters) -> bool {
        let mut changed = false;
        for service in self.services.values_mut() {
            let gone: Vec<_> = service
                .backends
                .iter()
                .filter(|(_, backend)| backend.leaving && !observed.names_backend(backend.id))
                .map(|(key, _)| *key)
                .collect();
            for backend in gone.iter().filter_map(|key| service.backends.remove(key)) {
                add(
                    &mut service.retired,
                    &since(&counters(backend.id), &backend.baseline),
                );
                self.resting_backends.push(backend.id);
                changed = true;
            }
        }
        let resting = &mut self.resting_services;
        self.services.retain(|_, service| {
            let stays =
                !service.leaving || !service.backends.is_empty() || observed.names_service(service.number);
            if !stays {
                resting.push(service.number);
                changed = true;
            }
            stays
        });
        changed
    }

    /// Frees the numbers that rest and that no connection names. To be called when the tables without them have been
    /// published and their grace period is over, with a count made after that.
    pub fn give_back(&mut self, observed: &Observed) {
        self.resting_backends.retain(|id| observed.names_backend(*id));
        self.resting_services
            .retain(|number| observed.names_service(*number));
    }

    /// Whether numbers are waiting for [`Self::give_back`], or owners for [`Self::let_go`].
    pub fn has_departures(&self) -> bool {
        !self.resting_backends.is_empty()
            || !self.resting_services.is_empty()
            || self
                .services
                .values()
                .any(|service| service.leaving || service.backends.values().any(|backend| backend.leaving))
    }

    /// All services, leaving ones included.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &ServiceIdentity)> {
        self.services.iter()
    }

    /// The service of a key.
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceIdentity> {
        self.services.get(key)
    }

    /// The next number in turn that nobody has: a number that was given back rests the longest.
    fn free_service_number(&mut self) -> Result<u16, Exhausted> {
        let used = |number: &u16| {
            self.services.values().any(|s| s.number == *number) || self.resting_services.contains(number)
        };
        let next = in_turn(self.last_service, SERVICE_NUMBERS as u16, |number| used(&number));
        self.last_service = next.ok_or(Exhausted::Numbers("service number"))?;
        Ok(self.last_service)
    }

    fn free_backend_id(&mut self) -> Result<u16, Exhausted> {
        let mut used = vec![false; BACKEND_IDS as usize];
        let owned = self
            .services
            .values()
            .flat_map(|s| s.backends.values().map(|b| b.id));
        for id in owned.chain(self.resting_backends.iter().copied()) {
            if let Some(used) = used.get_mut(usize::from(id)) {
                *used = true;
            }
        }
        let next = in_turn(self.last_backend, BACKEND_IDS as u16, |id| {
            used.get(usize::from(id)) == Some(&true)
        });
        self.last_backend = next.ok_or(Exhausted::Numbers("backend id"))?;
        Ok(self.last_backend)
    }
}

/// The first number after `last`, going round from `end - 1` to 1, that is not used.
fn in_turn(last: u16, end: u16, used: impl Fn(u16) -> bool) -> Option<u16> {
    (1..end)
        .map(|step| (last + step - 1) % (end - 1) + 1)
        .find(|number| !used(*number))
}

/// What was counted since `baseline`.
pub fn since(now: &BackendCounters, baseline: &BackendCounters) -> BackendCounters {
    BackendCounters {
        opened: now.opened.wrapping_sub(baseline.opened),
        packets_in: now.packets_in.wrapping_sub(baseline.packets_in),
        bytes_in: now.bytes_in.wrapping_sub(baseline.bytes_in),
        packets_out: now.packets_out.wrapping_sub(baseline.packets_out),
        bytes_out: now.bytes_out.wrapping_sub(baseline.bytes_out),
    }
}

/// Adds counters up.
pub fn add(sum: &mut BackendCounters, more: &BackendCounters) {
    sum.opened += more.opened;
    sum.packets_in += more.packets_in;
    sum.bytes_in += more.bytes_in;
    sum.packets_out += more.packets_out;
    sum.bytes_out += more.bytes_out;
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::Protocol;

    fn key(vip: u8, port: u16) -> ServiceKey {
        ServiceKey {
            vip: [203, 0, 113, vip].into(),
            port,
            protocol: Protocol::Tcp,
        }
    }

    fn wanted_by(vip: u8, backends: &[u8], way: Way) -> Wanted {
        let backend = |n: &u8| {
            let endpoint = ([198, 18, *n, 2], 443).into();
            (BackendKey { endpoint, way }, format!("web{n}"))
        };
        Wanted {
            key: key(vip, 443),
            ports: Ports::One(NonZeroU16::new(443).unwrap()),
            stateless: false,
            source: None,
            name: format!("s{vip}"),
            backends: backends.iter().map(backend).collect(),
            timeouts: [1, 2, 3],
        }
    }

    fn wanted(vip: u8, backends: &[u8]) -> Wanted {
        wanted_by(vip, backends, Way::Nat)
    }

    fn none(_: u16) -> BackendCounters {
        BackendCounters::default()
    }

    type Numbers = (u16, bool, Vec<(u16, bool)>);

    fn ids(identities: &Identities) -> Vec<Numbers> {
        identities
            .services()
            .map(|(_, s)| {
                (
                    s.number,
                    s.leaving,
                    s.backends.values().map(|b| (b.id, b.leaving)).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn numbers_stay_while_wanted_or_named() {
        let mut identities = Identities::default();
        identities
            .adopt(&[wanted(1, &[1, 2]), wanted(2, &[1])], 0, none)
            .unwrap();
        assert_eq!(
            ids(&identities),
            [
                (1, false, vec![(1, false), (2, false)]),
                (2, false, vec![(3, false)])
            ]
        );

        identities.adopt(&[wanted(1, &[2])], 0, none).unwrap();
        let named = Observed::with(&[(1, 1)]);
        assert!(identities.let_go(&named, none));
        assert_eq!(
            ids(&identities),
            [(1, false, vec![(1, true), (2, false)])],
            "web1 has a connection left"
        );
        assert!(!identities.let_go(&named, none));

        identities.adopt(&[wanted(1, &[1, 2])], 0, none).unwrap();
        assert_eq!(
            ids(&identities),
            [(1, false, vec![(1, false), (2, false)])],
            "it comes back as what it was"
        );
    }

    #[test]
    fn a_number_rests_until_nobody_names_it() {
        let mut identities = Identities::default();
        identities.adopt(&[wanted(1, &[1])], 0, none).unwrap();
        identities.adopt(&[wanted(1, &[])], 0, none).unwrap();
        assert!(identities.let_go(&Observed::default(), none));
        identities.give_back(&Observed::with(&[(1, 1)]));
        assert!(identities.has_departures());
        // All other ids given once: only the resting one and the free ones are left to choose from.
        identities.last_backend = BACKEND_IDS as u16 - 1;
        identities.adopt(&[wanted(1, &[2])], 0, none).unwrap();
        assert_eq!(
            ids(&identities)[0].2,
            [(2, false)],
            "not 1, which a connection names"
        );
        identities.give_back(&Observed::default());
        assert!(!identities.has_departures());
        identities.last_backend = BACKEND_IDS as u16 - 1;
        identities.adopt(&[wanted(1, &[2, 3])], 0, none).unwrap();
        assert_eq!(ids(&identities)[0].2, [(2, false), (1, false)]);
    }

    #[test]
    fn counters_of_the_departed_are_kept_and_their_successors_start_at_zero() {
        let counted = |id: u16| BackendCounters {
            opened: u64::from(id) * 100,
            ..BackendCounters::default()
        };
        let mut identities = Identities::default();
        identities.adopt(&[wanted(1, &[1, 2])], 0, none).unwrap();
        identities.adopt(&[wanted(1, &[2])], 0, none).unwrap();
        identities.let_go(&Observed::default(), counted);
        identities.give_back(&Observed::default());
        let vip = wanted(1, &[]).key;
        assert_eq!(identities.service(&vip).unwrap().retired.opened, 100);
        identities.last_backend = BACKEND_IDS as u16 - 1;
        identities.adopt(&[wanted(1, &[2, 3])], 0, counted).unwrap();
        let service = identities.service(&vip).unwrap();
        let successor = service
            .backends
            .values()
            .find(|backend| backend.name == "web3")
            .unwrap();
        assert_eq!(
            (successor.id, since(&counted(1), &successor.baseline).opened),
            (1, 0)
        );
    }

    #[test]
    fn numbers_run_out_with_an_error() {
        let mut identities = Identities::default();
        let many: Vec<_> = (0..SERVICE_NUMBERS as u16)
            .map(|n| Wanted {
                key: key(1, n + 1),
                ..wanted(1, &[])
            })
            .collect();
        assert_eq!(
            identities.adopt(&many, 0, none),
            Err(Exhausted::Numbers("service number"))
        );
    }
}
