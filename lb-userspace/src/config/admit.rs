//! Whether a backend may be added at run time: the same limits, and the same words, as for one in the file.

use super::{Backend, Config, limits, rules};
use crate::scheduling::slots_needed;

impl Config {
    /// Whether the weights of all backends fit into the kernel's tables.
    ///
    /// # Errors
    /// By how much they do not, in a sentence.
    pub fn weights_fit(&self) -> Result<(), String> {
        let weights =
            |service: &super::Service| service.backends.clone().into_iter().map(|backend| backend.weight);
        let needed: usize = self
            .services
            .iter()
            .map(|service| slots_needed(weights(service)))
            .sum();
        if needed <= limits::SLOTS {
            return Ok(());
        }
        Err(format!(
            "the backends' weights need {needed} slots together, and {} are allowed: use smaller weights, or ones \
             with a common divisor",
            limits::SLOTS
        ))
    }

    /// Whether this backend may be added to the service of this name; `self` holds what was added before, too.
    ///
    /// # Errors
    /// What is wrong and what is allowed, in a sentence.
    pub fn admits(&self, service: &str, new: &Backend) -> Result<(), String> {
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
        let wrong = |key: &str, value: &dyn std::fmt::Display, what: &str| {
            Err(format!(
                "service {service:?} backend {:?} {key} = {value}: {what}",
                new.name
            ))
        };
        if let Err(what) = rules::name(&new.name) {
            return wrong("name", &format!("{:?}", new.name), &what);
        }
        if let Err(what) = rules::backend_address(new.address, into.vip) {
            return wrong("address", &new.address, &what);
        }
        if !limits::WEIGHT.contains(&i64::from(new.weight)) {
            return wrong("weight", &new.weight, "a weight is 0 to 256");
        }
        if into.backends.iter().any(|known| known.name == new.name) {
            return wrong("name", &new.name, "the service has a backend of this name");
        }
        let endpoint = |known: &Backend| (known.address, known.port) == (new.address, new.port);
        if let Some(known) = into.backends.iter().find(|known| endpoint(known)) {
            let what = format!(
                "backend {:?} of the service has this address and port",
                known.name
            );
            return wrong("address", &new.address, &what);
        }
        if self.services.iter().any(|service| service.vip == new.address) {
            return wrong(
                "address",
                &new.address,
                "this is a VIP; name the server's own address",
            );
        }
        let shared = self
            .services
            .iter()
            .filter(|service| service.backends.iter().any(endpoint))
            .count();
        if shared >= limits::SERVICES_PER_ENDPOINT {
            let what = format!("{shared} services have this address and port, as many as may");
            return wrong("address", &new.address, &what);
        }
        if self
            .services
            .iter()
            .map(|service| service.backends.len())
            .sum::<usize>()
            >= limits::BACKENDS
        {
            return Err(format!(
                "there are {} backends already, as many as are allowed",
                limits::BACKENDS
            ));
        }
        Ok(())
    }
}
