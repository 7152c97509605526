//! Who has which number. Connections name services and backends by number, so a number stays with its owner for as long
//! as any connection names it, also when the owner has left the configuration, and is given to nobody else before.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use lb_common::abi::{BACKEND_IDS, BackendCounters, SERVICE_NUMBERS};

use crate::observed_state::Observed;

/// The numbers of all services and backends that are, or still have connections. Services are known by their VIP and
/// port, backends by theirs, so that a new name changes no number.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    services: BTreeMap<SocketAddrV4, ServiceIdentity>,
    /// Out of the tables, but a connection still names them: not to be given away yet.
    resting_services: Vec<u16>,
    resting_backends: Vec<u16>,
    last_service: u16,
    last_backend: u16,
}

/// A service that has a number.
#[derive(Debug, Clone)]
pub struct ServiceIdentity {
    /// Its number in the kernel's tables.
    pub number: u16,
    /// Its present name.
    pub name: String,
    /// Whether it is no longer wanted and only here for its connections.
    pub leaving: bool,
    /// What backends counted that are gone.
    pub retired: BackendCounters,
    /// By address and port.
    pub backends: BTreeMap<SocketAddrV4, BackendIdentity>,
}

/// A backend that has an id.
#[derive(Debug, Clone)]
pub struct BackendIdentity {
    /// Its id in the kernel's tables.
    pub id: u16,
    /// Its present name.
    pub name: String,
    /// Whether it is no longer wanted and only here for its connections.
    pub leaving: bool,
    /// What the counters of its id stood at when it got it.
    pub baseline: BackendCounters,
    /// Its idle timeouts in ticks, kept for when it leaves.
    pub timeouts: [u16; 3],
}

/// A service that is wanted: VIP and port, name, and its backends' addresses and names, and their timeouts in ticks.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// VIP and port.
    pub vip: SocketAddrV4,
    /// Name.
    pub name: String,
    /// Address and port, and name, of each backend.
    pub backends: Vec<(SocketAddrV4, String)>,
    /// Idle timeouts in ticks.
    pub timeouts: [u16; 3],
}

/// All numbers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no free {0}: too many are waiting for their last connections to end; try again later")]
pub struct Exhausted(&'static str);

impl Identities {
    /// Gives everything that is wanted a number, and marks the rest as leaving. `counters` are those of an id now.
    ///
    /// # Errors
    /// No number is free; some may have been given.
    pub fn adopt(
        &mut self,
        wanted: &[Wanted],
        counters: impl Fn(u16) -> BackendCounters,
    ) -> Result<(), Exhausted> {
        for service in self.services.values_mut() {
            service.leaving = true;
            for backend in service.backends.values_mut() {
                backend.leaving = true;
            }
        }
        for service in wanted {
            let number = match self.services.get(&service.vip) {
                Some(known) => known.number,
                None => self.free_service_number()?,
            };
            let identity = self
                .services
                .entry(service.vip)
                .or_insert_with(|| ServiceIdentity {
                    number,
                    name: String::new(),
                    leaving: false,
                    retired: BackendCounters::default(),
                    backends: BTreeMap::new(),
                });
            identity.name.clone_from(&service.name);
            identity.leaving = false;
            for (endpoint, name) in &service.backends {
                self.adopt_backend(service, *endpoint, name, &counters)?;
            }
        }
        Ok(())
    }

    fn adopt_backend(
        &mut self,
        service: &Wanted,
        endpoint: SocketAddrV4,
        name: &str,
        counters: &impl Fn(u16) -> BackendCounters,
    ) -> Result<(), Exhausted> {
        let known = self
            .services
            .get(&service.vip)
            .and_then(|service| service.backends.get(&endpoint));
        let id = match known {
            Some(known) => known.id,
            None => self.free_backend_id()?,
        };
        if let Some(identity) = self.services.get_mut(&service.vip) {
            let backend = identity
                .backends
                .entry(endpoint)
                .or_insert_with(|| BackendIdentity {
                    id,
                    name: String::new(),
                    leaving: false,
                    baseline: counters(id),
                    timeouts: service.timeouts,
                });
            name.clone_into(&mut backend.name);
            backend.leaving = false;
            backend.timeouts = service.timeouts;
        }
        Ok(())
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
                .map(|(endpoint, _)| *endpoint)
                .collect();
            for backend in gone
                .iter()
                .filter_map(|endpoint| service.backends.remove(endpoint))
            {
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
    pub fn services(&self) -> impl Iterator<Item = (&SocketAddrV4, &ServiceIdentity)> {
        self.services.iter()
    }

    /// The service of a VIP and port.
    pub fn service(&self, vip: &SocketAddrV4) -> Option<&ServiceIdentity> {
        self.services.get(vip)
    }

    /// The next number in turn that nobody has: a number that was given back rests the longest.
    fn free_service_number(&mut self) -> Result<u16, Exhausted> {
        let used = |number: &u16| {
            self.services.values().any(|s| s.number == *number) || self.resting_services.contains(number)
        };
        let next = in_turn(self.last_service, SERVICE_NUMBERS as u16, |number| used(&number));
        self.last_service = next.ok_or(Exhausted("service number"))?;
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
        self.last_backend = next.ok_or(Exhausted("backend id"))?;
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
    use super::*;

    fn wanted(vip: u8, backends: &[u8]) -> Wanted {
        Wanted {
            vip: SocketAddrV4::new([203, 0, 113, vip].into(), 443),
            name: format!("s{vip}"),
            backends: backends
                .iter()
                .map(|n| (SocketAddrV4::new([198, 18, *n, 2].into(), 443), format!("web{n}")))
                .collect(),
            timeouts: [1, 2, 3],
        }
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
            .adopt(&[wanted(1, &[1, 2]), wanted(2, &[1])], none)
            .unwrap();
        assert_eq!(
            ids(&identities),
            [
                (1, false, vec![(1, false), (2, false)]),
                (2, false, vec![(3, false)])
            ]
        );

        identities.adopt(&[wanted(1, &[2])], none).unwrap();
        let named = Observed::with(&[(1, 1)]);
        assert!(identities.let_go(&named, none));
        assert_eq!(
            ids(&identities),
            [(1, false, vec![(1, true), (2, false)])],
            "web1 has a connection left"
        );
        assert!(!identities.let_go(&named, none));

        identities.adopt(&[wanted(1, &[1, 2])], none).unwrap();
        assert_eq!(
            ids(&identities),
            [(1, false, vec![(1, false), (2, false)])],
            "it comes back as what it was"
        );
    }

    #[test]
    fn a_number_rests_until_nobody_names_it() {
        let mut identities = Identities::default();
        identities.adopt(&[wanted(1, &[1])], none).unwrap();
        identities.adopt(&[wanted(1, &[])], none).unwrap();
        assert!(identities.let_go(&Observed::default(), none));
        identities.give_back(&Observed::with(&[(1, 1)]));
        assert!(identities.has_departures());
        // All other ids given once: only the resting one and the free ones are left to choose from.
        identities.last_backend = BACKEND_IDS as u16 - 1;
        identities.adopt(&[wanted(1, &[2])], none).unwrap();
        assert_eq!(
            ids(&identities)[0].2,
            [(2, false)],
            "not 1, which a connection names"
        );
        identities.give_back(&Observed::default());
        assert!(!identities.has_departures());
        identities.last_backend = BACKEND_IDS as u16 - 1;
        identities.adopt(&[wanted(1, &[2, 3])], none).unwrap();
        assert_eq!(ids(&identities)[0].2, [(2, false), (1, false)]);
    }

    #[test]
    fn counters_of_the_departed_are_kept_and_their_successors_start_at_zero() {
        let counted = |id: u16| BackendCounters {
            opened: u64::from(id) * 100,
            ..BackendCounters::default()
        };
        let mut identities = Identities::default();
        identities.adopt(&[wanted(1, &[1, 2])], none).unwrap();
        identities.adopt(&[wanted(1, &[2])], none).unwrap();
        identities.let_go(&Observed::default(), counted);
        identities.give_back(&Observed::default());
        let vip = wanted(1, &[]).vip;
        assert_eq!(identities.service(&vip).unwrap().retired.opened, 100);
        identities.last_backend = BACKEND_IDS as u16 - 1;
        identities.adopt(&[wanted(1, &[2, 3])], counted).unwrap();
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
                vip: SocketAddrV4::new([203, 0, 113, 1].into(), n + 1),
                ..wanted(1, &[])
            })
            .collect();
        assert_eq!(identities.adopt(&many, none), Err(Exhausted("service number")));
    }
}
