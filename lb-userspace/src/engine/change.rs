//! Requests that change something by hand: computed whole, kept on disk, then put in force; or refused with nothing changed.

use std::collections::BTreeSet;

use super::planning::{Ahead, Force, Planned};
use super::{Engine, Goal, Request};
use crate::api::Refusal;
use crate::api::types::{AddBackend, BackendChange, BackendState, ChangeBackend, Changed};
use crate::config::{self, Config, limits};
use crate::desired_state::is_of_site;
use crate::handoff::DrainOutcome;
use crate::plan::Plan;

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
            Request::Apply(apply, reply) => drop(reply.send(self.apply(&apply).await)),
            Request::Confirm(reply) => drop(reply.send(self.confirm())),
            Request::Rollback(reply) => drop(reply.send(self.rollback().await)),
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
        let planned = self.plan(
            Goal {
                overrides,
                ..self.goal()
            },
            Ahead::OnceUp,
        )?;
        if request.dry_run {
            return Ok(only_planned(planned));
        }
        let plan = self.change_by_hand(planned)?;
        self.resolve().await;
        self.reconcile();
        let meant = [(request.service.clone(), request.backend.name.clone())];
        Ok(self.changed(&meant, "added", plan))
    }

    fn change(&mut self, request: &ChangeBackend) -> Result<Changed, Refusal> {
        within_limits(request.change)?;
        let meant = self.meant(request)?;
        let mut overrides = self.overrides.clone();
        let now = self.ledger.now();
        for (service, name) in &meant {
            let in_file = backend_in(&self.file, service, name).is_some();
            let leaves_already = backend_in(&self.effective, service, name).is_none();
            if !leaves_already {
                overrides.apply_change(service, name, request.change, in_file, now);
            }
        }
        let force = if request.change == (BackendChange::Remove { force: true }) {
            Force::Named(meant.iter().cloned().collect())
        } else {
            Force::Nobody
        };
        let different = overrides != self.overrides || force != Force::Nobody;
        let goal = Goal {
            overrides,
            force,
            ..self.goal()
        };
        let planned = self.plan(goal, Ahead::OnceUp)?;
        if request.dry_run {
            return Ok(only_planned(planned));
        }
        let plan = self.change_by_hand(planned)?;
        let what = if different {
            done(request.change)
        } else {
            "no change"
        };
        Ok(self.changed(&meant, what, plan))
    }

    /// The backends that a request means: at least one.
    fn meant(&self, request: &ChangeBackend) -> Result<Vec<(String, String)>, Refusal> {
        let services = &self.effective.services;
        if let Some(service) = &request.service
            && !services.iter().any(|known| known.name == *service)
        {
            return Err(self.unknown_service(service));
        }
        let in_services = services.iter().flat_map(|service| {
            let names = service.backends.iter().map(|backend| &backend.name);
            names.map(|name| (service.name.clone(), name.clone()))
        });
        let mut known: BTreeSet<_> = in_services.collect();
        if request.change == (BackendChange::Remove { force: true }) {
            // What is leaving already can be made to leave at once.
            let all = self.identities.services();
            let all = all.flat_map(|(_, service)| service.backends.values().map(move |it| (service, it)));
            let leaving = all.filter(|(_, backend)| backend.leaving);
            known.extend(leaving.map(|(service, it)| (service.name.clone(), it.name.clone())));
        }
        let is_meant = |(service, name): &&(String, String)| {
            *name == request.name && request.service.as_ref().is_none_or(|wanted| wanted == service)
        };
        let meant: Vec<_> = known.iter().filter(is_meant).cloned().collect();
        if meant.is_empty() {
            let known: Vec<_> = known
                .iter()
                .map(|(service, name)| format!("{service}/{name}"))
                .collect();
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

    /// Writes the overrides to disk, then puts the change in force.
    fn change_by_hand(&mut self, planned: Planned) -> Result<Plan, Refusal> {
        if planned.next.overrides != self.overrides {
            let saved = planned.next.overrides.save(&self.file.daemon.state_directory);
            saved.map_err(|error| Refusal::Failed(format!("nothing was changed: {error}")))?;
        }
        Ok(self.put_in_force(planned, "by hand"))
    }

    fn changed(&self, meant: &[(String, String)], what: &str, plan: Plan) -> Changed {
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
                let message = format!("{service}/{name}: {what}, {left} {connections} now");
                if plan.is_empty() {
                    tracing::info!("by hand: {message}");
                }
                message
            })
            .collect();
        Changed {
            backends,
            messages,
            plan,
        }
    }

    /// Takes a web server out for a hand-off, unless that would leave one of its services without any backend.
    fn drain_for_handoff(&mut self, server: &str) -> Result<DrainOutcome, Refusal> {
        let mut services = self.look_at_services();
        for service in &mut services {
            let (protocol, ports) = (service.protocol, &service.ports);
            service
                .backends
                .retain(|backend| is_of_site(&self.file, protocol, ports, backend.port));
        }
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
        if let Some(needs_it) = needs_it {
            let service = needs_it.name.clone();
            let may_take = |it: &crate::api::types::Backend| {
                it.name != server
                    && matches!(it.state, BackendState::Down | BackendState::Checking)
                    && it.weight > 0
            };
            return Ok(if needs_it.backends.iter().any(may_take) {
                DrainOutcome::OthersDown { service }
            } else {
                DrainOutcome::LastOne { service }
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
        let planned = self.plan(
            Goal {
                handed_off,
                ..self.goal()
            },
            Ahead::OnceUp,
        )?;
        self.put_in_force(planned, "hand-off");
        Ok(())
    }
}

fn only_planned(planned: Planned) -> Changed {
    Changed {
        backends: Vec::new(),
        messages: planned.plan.lines(),
        plan: planned.plan,
    }
}

fn within_limits(change: BackendChange) -> Result<(), Refusal> {
    let deadline = limits::BACKEND_DRAIN.least.as_secs()..=limits::BACKEND_DRAIN.most.as_secs();
    match change {
        BackendChange::Weight(Some(weight)) if !limits::WEIGHT.contains(&i64::from(weight)) => {
            Err(Refusal::Invalid(format!(
                "weight {weight}: a weight is 0 to 256; 0 means no new connections"
            )))
        }
        BackendChange::Drain {
            deadline_seconds: Some(seconds),
        } if !deadline.contains(&seconds) => Err(Refusal::Invalid(format!(
            "deadline_seconds {seconds}: a deadline is {}",
            limits::BACKEND_DRAIN.words
        ))),
        _ => Ok(()),
    }
}

pub(super) fn backend_in<'a>(config: &'a Config, service: &str, name: &str) -> Option<&'a config::Backend> {
    let service = config.services.iter().find(|known| known.name == service)?;
    service.backends.iter().find(|backend| backend.name == name)
}

fn done(change: BackendChange) -> &'static str {
    match change {
        BackendChange::Drain { .. } => "draining",
        BackendChange::Undrain => "no longer draining",
        BackendChange::Disable => "disabled",
        BackendChange::Enable => "enabled",
        BackendChange::Weight(Some(_)) => "weight set",
        BackendChange::Weight(None) => "weight as in the file",
        BackendChange::Remove { force: false } => "removed",
        BackendChange::Remove { force: true } => "removed, its connections are reset",
    }
}
