//! Whether a backend may be added at run time: the same limits, and the same words, as for one in the file.

use std::fmt::Display;
use std::num::NonZeroU16;

use super::sharing::Use;
use super::validate::backend::ONLY_BACKUPS;
use super::{Backend, Config, Mode, Service, limits, rules};

use crate::scheduling::room;

impl Config {
    /// Whether the slots that backends are chosen by fit into the kernel's tables.
    ///
    /// # Errors
    /// By how much they do not, in a sentence.
    pub fn weights_fit(&self) -> Result<(), String> {
        let of_service = |service: &Service| {
            let weights = service.backends.iter().map(|backend| backend.weight);
            room(service.scheduler, weights, !service.slow_start.is_zero())
        };
        let needed: usize = self.services.iter().map(of_service).sum();
        if needed <= limits::SLOTS {
            return Ok(());
        }
        Err(format!(
            "the backends' weights, the tables of maglev and source-hash, and the steps of slow starts need {needed} slots \
             together, and {} are allowed: use smaller weights, or leave slow_start out of some services",
            limits::SLOTS
        ))
    }

    /// Whether the ports of all `full-nat` backends fit into the table that `full_nat_ports` makes room for.
    ///
    /// # Errors
    /// By how much they do not, in a sentence.
    pub fn full_nat_ports_fit(&self) -> Result<(), String> {
        let of_service = |service: &Service| service.backends.len() * service.source_ports.len();
        let full_nat = self
            .services
            .iter()
            .filter(|service| service.mode == Mode::FullNat);
        let needed: usize = full_nat.map(of_service).sum();
        let room = self.daemon.full_nat_ports as usize;
        if needed <= room {
            return Ok(());
        }
        Err(format!(
            "the full-nat backends need {needed} source ports together, and daemon.full_nat_ports makes room for {room}: \
             set full_nat_ports = {needed} or more, or give the services fewer source_ports"
        ))
    }

    /// Whether this backend may be added to the service of this name; `self` holds what was added before, too. What comes
    /// back is the backend with the port that it has by default, if none was given.
    ///
    /// # Errors
    /// What is wrong and what is allowed, in a sentence.
    pub fn admits(&self, service: &str, new: &Backend) -> Result<Backend, String> {
        let Some(into) = self.services.iter().find(|known| known.name == service) else {
            let known: Vec<&str> = self
                .services
                .iter()
                .map(|service| service.name.as_str())
                .collect();
            return Err(format!(
                "there is no service {service:?}; there are {}",
                known.join(", ")
            ));
        };
        let told = |key: &str, value: &dyn Display, what: &str| {
            format!(
                "service {service:?} backend {:?} {key} = {value}: {what}",
                new.name
            )
        };
        rules::name(&new.name).map_err(|what| told("name", &format!("{:?}", new.name), &what))?;
        if into.backends.iter().any(|known| known.name == new.name) {
            return Err(told("name", &new.name, "the service has a backend of this name"));
        }
        if !limits::WEIGHT.contains(&i64::from(new.weight)) {
            return Err(told("weight", &new.weight, "a weight is 0 to 256"));
        }
        if new.backup && into.backends.iter().all(|known| known.backup) {
            return Err(told("backup", &true, ONLY_BACKUPS));
        }
        let port = rules::backend_port(new.port, &into.ports, into.mode)
            .map_err(|what| told("port", &new.port.map_or(0, NonZeroU16::get), &what))?;
        let new = &Backend { port, ..new.clone() };
        self.admits_address(into, new)
            .map_err(|what| told("address", &new.address, &what))?;
        self.has_room_for(into, new)?;
        Ok(new.clone())
    }

    fn admits_address(&self, into: &Service, new: &Backend) -> Result<(), String> {
        rules::backend_address(new.address, into.vip, into.mode, into.source_address)?;
        if self.services.iter().any(|service| service.vip == new.address) {
            return Err("this is a VIP; name the server's own address".to_owned());
        }
        let same = |known: &&Backend| (known.address, known.port) == (new.address, new.port);
        if let Some(known) = into.backends.iter().find(same) {
            return Err(format!(
                "backend {:?} of the service has this address and port",
                known.name
            ));
        }
        let others = self.services.iter().filter(|service| service.name != into.name);
        let uses = others.flat_map(|service| {
            let here = service
                .backends
                .iter()
                .filter(|known| known.address == new.address);
            here.map(|known| Use::of(service, known))
        });
        Use::of(into, new).goes_with(new.address, &uses.collect::<Vec<_>>())
    }

    fn has_room_for(&self, into: &Service, new: &Backend) -> Result<(), String> {
        let backends: usize = self.services.iter().map(|service| service.backends.len()).sum();
        if backends >= limits::BACKENDS {
            return Err(format!(
                "there are {} backends already, as many as are allowed",
                limits::BACKENDS
            ));
        }
        if into.mode != Mode::FullNat {
            return Ok(());
        }
        let mut with_it = self.clone();
        let services = with_it
            .services
            .iter_mut()
            .filter(|known| known.name == into.name);
        services.for_each(|service| service.backends.push(new.clone()));
        with_it.full_nat_ports_fit()
    }
}
