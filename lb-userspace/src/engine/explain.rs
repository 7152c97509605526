//! What questions about packets need of the running state.

use std::collections::HashMap;

use nix::net::if_::if_nametoindex;

use super::Engine;
use crate::api::Refusal;
use crate::dataplane::{Blueprint, mac};
use crate::explain::{Interface, Site};

impl Engine {
    /// What a second instance of the program is loaded from.
    pub(super) fn blueprint(&self) -> Result<Blueprint, Refusal> {
        self.dataplane.blueprint().map_err(Refusal::Failed)
    }

    /// Names for the program's numbers, as the tables have them now.
    pub(super) fn site(&self) -> Result<Site, Refusal> {
        let now = self
            .dataplane
            .now()
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        let tick = self.dataplane.clock().duration(1).as_millis() as u64;
        let mut site = Site::new(self.interfaces(), now.0, tick);
        let identities: HashMap<u16, _> = self
            .identities
            .services()
            .map(|(_, identity)| (identity.number, identity))
            .collect();
        for entry in &self.published {
            let Some(identity) = identities.get(&entry.number) else {
                continue;
            };
            let names: HashMap<u16, &str> = identity
                .backends
                .values()
                .map(|backend| (backend.id, backend.name.as_str()))
                .collect();
            site.add(entry, &identity.name, |backend| {
                names
                    .get(&backend.id)
                    .map_or_else(|| backend.id.to_string(), |name| (*name).to_owned())
            });
        }
        Ok(site)
    }

    /// Those that the program is attached to, then others that lead to backends. What has just gone is left out.
    fn interfaces(&self) -> Vec<Interface> {
        let attached = self.dataplane.attachments().iter().map(|it| it.interface.clone());
        let mut interfaces: Vec<_> = attached.filter_map(|name| interface(&name)).collect();
        let backends = self.published.iter().flat_map(|service| &service.backends);
        for hop in backends.filter_map(|backend| backend.next_hop) {
            if interfaces.iter().all(|known| known.index != hop.interface_index)
                && let Ok(name) = nix::net::if_::if_indextoname(hop.interface_index)
            {
                interfaces.extend(interface(&name.to_string_lossy()));
            }
        }
        interfaces
    }
}

fn interface(name: &str) -> Option<Interface> {
    Some(Interface {
        index: if_nametoindex(name).ok()?,
        mac: mac(name).ok()?,
        name: name.to_owned(),
    })
}
