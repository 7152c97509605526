//! Requests that change something: computed whole, kept on disk, then put in force; or refused with nothing changed.

use std::collections::BTreeSet;

use super::{Engine, Request, leaving_vips, targets};
use crate::api::Refusal;
use crate::api::types::{AddBackend, BackendChange, BackendState, ChangeBackend, Changed, Reloaded};
use crate::config::{self, Config, ThisHost, limits};
use crate::desired_state::with_overrides;
use crate::handoff::DrainOutcome;
use crate::persisted::Overrides;
use crate::reconcile;

impl Engine {
    pub(super) async fn handle(&mut self, request: Request) {
        match request {
            Request::Look(look) => look(self),
            Request::Add(add, reply) => drop(reply.send(self.add(&add).await)),
            Request::Change(change, reply) => drop(reply.send(self.change(&change))),
            Request::Trace(first, reply) => {
                let traced = self.dataplane.trace(first.as_ref());
                drop(reply.send(traced.map_err(|error| Refusal::Failed(error.to_string()))));
            }
            Request::Reload(reply) => drop(reply.send(self.reload().await)),
            Request::DrainForHandoff(server, reply) => drop(reply.send(self.drain_for_handoff(&server))),
            Request::UndrainAfterHandoff(server, reply) => {
                let result = self.undrain_after_handoff(&server);
                if let Some(reply) = reply {
                    drop(reply.send(result));
                }
            }
        }
    }

    async fn add(&mut self, request: &AddBackend) -> Result<Changed, Refusal> {
        if !self
            .effective
            .services
            .iter()
            .any(|service| service.name == request.service)
        {
            return Err(self.unknown_service(&request.service));
        }
        let backend = self
            .effective
            .admits(&request.service, &request.backend)
            .map_err(Refusal::Invalid)?;
        let in_file = backend_in(&self.file, &request.service, &request.backend.name).cloned();
        let mut overrides = self.overrides.clone();
        overrides.apply_add(&request.service, &backend, in_file.as_ref());
        self.apply_overrides(overrides)?;
        self.resolve().await;
        self.reconcile();
        Ok(self.changed(
            &[(request.service.clone(), request.backend.name.clone())],
            "added",
        ))
    }

    fn change(&mut self, request: &ChangeBackend) -> Result<Changed, Refusal> {
        if let BackendChange::Weight(Some(weight)) = request.change
            && !limits::WEIGHT.contains(&i64::from(weight))
        {
            return Err(Refusal::Invalid(format!(
                "weight {weight}: a weight is 0 to 256; 0 means no new connections"
            )));
        }
        let meant = self.meant(request)?;
        let mut overrides = self.overrides.clone();
        let mut different = false;
        for (service, name) in &meant {
            let in_file = backend_in(&self.file, service, name).is_some();
            different |= overrides.apply_change(service, name, request.change, in_file);
        }
        self.apply_overrides(overrides)?;
        Ok(self.changed(
            &meant,
            if different {
                done(request.change)
            } else {
                "no change"
            },
        ))
    }

    /// The backends that a request means: at least one.
    fn meant(&self, request: &ChangeBackend) -> Result<Vec<(String, String)>, Refusal> {
        let services = &self.effective.services;
        if let Some(service) = &request.service
            && !services.iter().any(|known| known.name == *service)
        {
            return Err(self.unknown_service(service));
        }
        let meant: Vec<_> = services
            .iter()
            .filter(|service| {
                request
                    .service
                    .as_ref()
                    .is_none_or(|wanted| *wanted == service.name)
            })
            .filter(|service| {
                service
                    .backends
                    .iter()
                    .any(|backend| backend.name == request.name)
            })
            .map(|service| (service.name.clone(), request.name.clone()))
            .collect();
        if meant.is_empty() {
            let known: BTreeSet<_> = services
                .iter()
                .flat_map(|service| {
                    service
                        .backends
                        .iter()
                        .map(|backend| format!("{}/{}", service.name, backend.name))
                })
                .collect();
            let known: Vec<_> = known.into_iter().collect();
            let place = request
                .service
                .as_ref()
                .map_or(String::new(), |service| format!(" in service {service:?}"));
            let known = if known.is_empty() {
                "there are none".into()
            } else {
                format!("there are {}", known.join(", "))
            };
            return Err(Refusal::Unknown(format!(
                "no backend {:?}{place}; {known}",
                request.name
            )));
        }
        Ok(meant)
    }

    fn unknown_service(&self, name: &str) -> Refusal {
        let known: Vec<_> = self
            .effective
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        Refusal::Unknown(format!("no service {name:?}; there are {}", known.join(", ")))
    }

    /// Computes what follows, writes the overrides to disk, then puts them in force.
    fn apply_overrides(&mut self, overrides: Overrides) -> Result<(), Refusal> {
        let next = self.next(self.file.clone(), overrides, self.handed_off.clone())?;
        if next.overrides != self.overrides {
            let saved = next.overrides.save(&self.file.daemon.state_directory);
            saved.map_err(|error| Refusal::Failed(format!("nothing was changed: {error}")))?;
        }
        self.commit(next);
        Ok(())
    }

    fn changed(&self, meant: &[(String, String)], what: &str) -> Changed {
        let backends: Vec<_> = self
            .look_at_services()
            .into_iter()
            .flat_map(|service| service.backends)
            .filter(|backend| {
                meant
                    .iter()
                    .any(|(s, b)| *s == backend.service && *b == backend.name)
            })
            .collect();
        let messages = meant
            .iter()
            .map(|(service, name)| {
                let left = backends.iter().find(|b| b.service == *service && b.name == *name);
                let left = left.map_or(0, |backend| backend.traffic.connections);
                let connections = if left == 1 { "connection" } else { "connections" };
                tracing::info!(service, backend = name, connections = left, "{what}");
                format!("{service}/{name}: {what}, {left} {connections} now")
            })
            .collect();
        Changed { backends, messages }
    }

    /// Reads the file again; applies it whole or not at all.
    async fn reload(&mut self) -> Result<Reloaded, Refusal> {
        let file = config::load(&self.file.file, &ThisHost).map_err(|error| refused(&error.to_string()))?;
        if let Some(key) = fixed_key(&self.file, &file) {
            return Err(refused(&format!(
                "{}: daemon.{key} cannot change while lbd runs; change it back, or restart lbd",
                file.file.display()
            )));
        }
        let (overrides, mut lines) =
            still_meaningful(&file, &self.overrides).map_err(|error| refused(&error))?;
        let mut changes = reconcile::changes(&self.file, &file);
        changes.append(&mut lines);
        let next = self.next(file, overrides, self.handed_off.clone())?;
        let nothing =
            |error: &dyn std::fmt::Display| Refusal::Failed(format!("nothing was changed: {error}"));
        let leaving = leaving_vips(&next.identities);
        self.vips
            .set(&next.file.services, &leaving)
            .await
            .map_err(|error| nothing(&error))?;
        if next.overrides != self.overrides
            && let Err(error) = next.overrides.save(&self.file.daemon.state_directory)
        {
            if let Err(error) = self
                .vips
                .set(&self.file.services, &leaving_vips(&self.identities))
                .await
            {
                tracing::error!(%error, "cannot put the VIPs back as they were");
            }
            return Err(nothing(&error));
        }
        self.commit(next);
        // A file that the configuration only names, such as a CA's, may have changed as well.
        self.monitor.set_targets(targets(&self.effective));
        self.resolve().await;
        self.reconcile();
        for change in &changes {
            tracing::info!("reload: {change}");
        }
        if changes.is_empty() {
            tracing::info!("reload: nothing changed");
        }
        Ok(Reloaded { changes })
    }

    /// Takes a web server out for a hand-off, unless that would leave one of its services without any backend.
    fn drain_for_handoff(&mut self, server: &str) -> Result<DrainOutcome, Refusal> {
        let services = self.look_at_services();
        let of_server = |backend: &crate::api::types::Backend| {
            backend.name == server && backend.state != BackendState::Leaving
        };
        if !services
            .iter()
            .any(|service| service.backends.iter().any(of_server))
        {
            return Ok(DrainOutcome::NoBackend);
        }
        // What an operator took out stays out by itself; what only its probes keep out might come up in the middle.
        let taken_out = |backend: &crate::api::types::Backend| {
            matches!(backend.state, BackendState::Draining | BackendState::Disabled) || backend.weight == 0
        };
        let mut of_all = services
            .iter()
            .flat_map(|service| &service.backends)
            .filter(|b| of_server(b));
        if of_all.all(taken_out) {
            return Ok(DrainOutcome::AlreadyDrained);
        }
        // A backup that is up gets the connections as soon as nobody else can.
        let can_take = |backend: &crate::api::types::Backend| {
            backend.eligible || backend.backup && backend.state == BackendState::Up && backend.weight > 0
        };
        let needs_it = services.iter().find(|service| {
            service
                .backends
                .iter()
                .any(|backend| of_server(backend) && backend.eligible)
                && !service
                    .backends
                    .iter()
                    .any(|backend| backend.name != server && can_take(backend))
        });
        if let Some(service) = needs_it {
            return Ok(DrainOutcome::LastOne {
                service: service.name.clone(),
            });
        }
        let mut handed_off = self.handed_off.clone();
        handed_off.insert(server.to_owned());
        self.set_handed_off(handed_off)?;
        Ok(DrainOutcome::Draining)
    }

    fn undrain_after_handoff(&mut self, server: &str) -> Result<(), Refusal> {
        let mut handed_off = self.handed_off.clone();
        if handed_off.remove(server) {
            self.set_handed_off(handed_off)?;
        }
        Ok(())
    }

    fn set_handed_off(&mut self, handed_off: BTreeSet<String>) -> Result<(), Refusal> {
        let next = self.next(self.file.clone(), self.overrides.clone(), handed_off)?;
        self.commit(next);
        Ok(())
    }
}

fn refused(why: &str) -> Refusal {
    tracing::error!("reload refused, the running configuration stays: {why}");
    Refusal::Configuration(why.to_owned())
}

fn backend_in<'a>(config: &'a Config, service: &str, name: &str) -> Option<&'a config::Backend> {
    let service = config.services.iter().find(|known| known.name == service)?;
    service.backends.iter().find(|backend| backend.name == name)
}

/// The first key of `[daemon]` that differs: the program, the table and the sockets are made at the start.
fn fixed_key(old: &Config, new: &Config) -> Option<&'static str> {
    let (old, new) = (&old.daemon, &new.daemon);
    [
        ("interfaces", old.interfaces != new.interfaces),
        ("xdp_mode", old.xdp_mode != new.xdp_mode),
        ("max_connections", old.max_connections != new.max_connections),
        (
            "max_wide_connections",
            old.max_wide_connections != new.max_wide_connections,
        ),
        ("full_nat_ports", old.full_nat_ports != new.full_nat_ports),
        ("selection_seed", old.selection_seed != new.selection_seed),
        ("socket", old.socket != new.socket),
        ("state_directory", old.state_directory != new.state_directory),
        ("metrics", old.metrics != new.metrics),
    ]
    .into_iter()
    .find_map(|(key, differs)| differs.then_some(key))
}

/// The overrides that still mean something with a new file, and a line for each that does not.
fn still_meaningful(file: &Config, overrides: &Overrides) -> Result<(Overrides, Vec<String>), String> {
    let mut kept = overrides.clone();
    let mut lines = Vec::new();
    for (service, changes) in &mut kept.backends {
        let known = file.services.iter().any(|known| known.name == *service);
        changes.retain(|name, change| {
            let in_file = backend_in(file, service, name).is_some();
            let meaningful = known && (in_file || change.added.is_some());
            if !meaningful {
                lines.push(format!(
                    "backend {service}/{name}: its override is forgotten, since the backend is gone"
                ));
            } else if in_file && change.added.take().is_some() {
                lines.push(format!(
                    "backend {service}/{name}: is in the file now, which counts from here on"
                ));
            }
            meaningful && *change != Default::default()
        });
    }
    kept.backends.retain(|_, changes| !changes.is_empty());
    let mut without_added = kept.clone();
    for changes in without_added.backends.values_mut() {
        changes.retain(|_, change| change.added.is_none());
    }
    let mut config = with_overrides(file, &without_added);
    for (service, changes) in &mut kept.backends {
        for added in changes.values_mut().filter_map(|change| change.added.as_mut()) {
            // With the port that it has under the service's present ones.
            *added = config.admits(service, added).map_err(|reason| {
                format!(
                    "{reason} (added at run time: remove it with `lbctl backend remove {service}/{}`)",
                    added.name
                )
            })?;
            if let Some(service) = config.services.iter_mut().find(|known| known.name == *service) {
                service.backends.push(added.clone());
            }
        }
    }
    Ok((kept, lines))
}

fn done(change: BackendChange) -> &'static str {
    match change {
        BackendChange::Drain => "draining",
        BackendChange::Undrain => "no longer draining",
        BackendChange::Disable => "disabled",
        BackendChange::Enable => "enabled",
        BackendChange::Weight(Some(_)) => "weight set",
        BackendChange::Weight(None) => "weight as in the file",
        BackendChange::Remove => "removed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Backend, test_config};

    #[test]
    fn a_restart_is_asked_for_by_name() {
        let old = test_config();
        assert_eq!(fixed_key(&old, &old), None);
        let mut new = test_config();
        new.daemon.max_connections += 1;
        assert_eq!(fixed_key(&old, &new), Some("max_connections"));
    }

    #[test]
    fn overrides_after_a_reload() {
        let file = test_config();
        let mut overrides = Overrides::default();
        overrides.apply_change("www", "web1", BackendChange::Drain, true);
        overrides.apply_change("gone", "web1", BackendChange::Drain, true);
        let mut web3 = file.services[0].backends[0].clone();
        web3.name = "web3".into();
        web3.address = "198.18.3.2".parse().unwrap();
        overrides.apply_add("www", &web3, None);

        let (kept, lines) = still_meaningful(&file, &overrides).unwrap();
        assert!(kept.get("www", "web1").unwrap().drained && kept.get("www", "web3").is_some());
        assert_eq!(
            lines,
            ["backend gone/web1: its override is forgotten, since the backend is gone"]
        );

        let mut with_web3 = file.clone();
        with_web3.services[0].backends.push(web3.clone());
        let (kept, lines) = still_meaningful(&with_web3, &overrides).unwrap();
        assert!(kept.get("www", "web3").is_none(), "the file has it now");
        assert_eq!(lines.len(), 2);

        // Added while the service had several ports.
        let mut without_port = Overrides::default();
        without_port.apply_add(
            "www",
            &Backend {
                port: None,
                ..web3.clone()
            },
            None,
        );
        let (kept, _) = still_meaningful(&file, &without_port).unwrap();
        let added = kept.get("www", "web3").and_then(|change| change.added.clone());
        assert_eq!(added.unwrap().port, web3.port);

        let mut same_endpoint = file;
        web3.name = "web4".into();
        same_endpoint.services[0].backends.push(web3);
        let error = still_meaningful(&same_endpoint, &overrides).unwrap_err();
        assert!(error.contains("lbctl backend remove www/web3"), "{error}");
    }
}
