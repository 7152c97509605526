//! A configuration that has been read, in the light of what is running.

use std::path::PathBuf;

use super::change::backend_in;
use super::planning::{Ahead, Force, Planned};
use super::{Engine, Goal};
use crate::api::Refusal;
use crate::api::types::{PlanRequest, Text};
use crate::config::{self, Config, ConfigError, ThisHost};
use crate::desired_state::with_overrides;
use crate::persisted::Overrides;
use crate::plan::{Plan, Subject};

/// A configuration with its text.
pub(super) struct Fresh {
    /// The file that it comes from, as messages name it.
    pub(super) name: PathBuf,
    pub(super) config: Config,
    pub(super) text: String,
}

/// A backend, and what becomes of its override.
type Note = (String, &'static str);

impl Engine {
    /// What a configuration would change.
    pub(super) fn look_ahead(&self, request: &PlanRequest) -> Result<Plan, Refusal> {
        let fresh = match &request.text {
            Some(text) => self.parse(text)?,
            None => self.read()?,
        };
        Ok(self.plan_for(&fresh, forced(request.force))?.plan)
    }

    /// Reads the configuration file again.
    pub(super) fn read(&self) -> Result<Fresh, Refusal> {
        let file = &self.file.file;
        let text = config::text(file, &ThisHost).map_err(refused)?;
        let config = config::parse(&text, file, &ThisHost).map_err(refused)?;
        Ok(Fresh {
            name: file.clone(),
            config,
            text,
        })
    }

    /// Understands a text as what the configuration file will be; messages name the file that it comes from.
    pub(super) fn parse(&self, text: &Text) -> Result<Fresh, Refusal> {
        let file = &self.file.file;
        let config = config::parse(&text.toml, file, &ThisHost).map_err(|mut error| {
            for problem in error.problems.iter_mut().filter(|problem| problem.file == *file) {
                problem.file = text.name.clone().into();
            }
            refused(error)
        })?;
        Ok(Fresh {
            name: text.name.clone().into(),
            config,
            text: text.toml.clone(),
        })
    }

    /// Thinks through what putting a configuration in force does.
    pub(super) fn plan_for(&self, fresh: &Fresh, force: Force) -> Result<Planned, Refusal> {
        self.plan_with(fresh, &self.overrides, force)
    }

    /// The same with other overrides.
    pub(super) fn plan_with(
        &self,
        fresh: &Fresh,
        overrides: &Overrides,
        force: Force,
    ) -> Result<Planned, Refusal> {
        let file = &fresh.config;
        if let Some(key) = fixed_key(&self.file, file) {
            return Err(Refusal::Configuration(format!(
                "{}: daemon.{key} cannot change while lbd runs; change it back, or restart lbd",
                fresh.name.display()
            )));
        }
        let (overrides, notes) = still_meaningful(file, overrides).map_err(Refusal::Configuration)?;
        let goal = Goal {
            file: file.clone(),
            overrides,
            force,
            ..self.goal()
        };
        let mut planned = self.plan(goal, Ahead::OnceUp)?;
        for (backend, change) in notes {
            planned.plan.note(Subject::Backend, backend, change);
        }
        Ok(planned)
    }
}

/// Whose connections are reset at once, of a whole configuration.
pub(super) fn forced(force: bool) -> Force {
    if force { Force::AllLeaving } else { Force::Nobody }
}

fn refused(error: ConfigError) -> Refusal {
    Refusal::Configuration(error.to_string())
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
        ("socket_group", old.socket_group != new.socket_group),
        ("pin_directory", old.pin_directory != new.pin_directory),
        ("state_directory", old.state_directory != new.state_directory),
        ("metrics", old.metrics != new.metrics),
    ]
    .into_iter()
    .find_map(|(key, differs)| differs.then_some(key))
}

/// The overrides that still mean something with a new file, and of each that does not its backend and what becomes of it.
fn still_meaningful(file: &Config, overrides: &Overrides) -> Result<(Overrides, Vec<Note>), String> {
    let mut kept = overrides.clone();
    let mut notes = Vec::new();
    for (service, changes) in &mut kept.backends {
        let known = file.services.iter().any(|known| known.name == *service);
        changes.retain(|name, change| {
            let in_file = backend_in(file, service, name).is_some();
            let meaningful = known && (in_file || change.added.is_some());
            if !meaningful {
                notes.push((
                    format!("{service}/{name}"),
                    "its override is forgotten, since the backend is gone",
                ));
            } else if in_file && change.added.take().is_some() {
                notes.push((
                    format!("{service}/{name}"),
                    "is in the file now, which counts from here on",
                ));
            }
            meaningful && *change != Default::default()
        });
    }
    kept.backends.retain(|_, changes| !changes.is_empty());
    let mut config = with_overrides(file, &kept.without_added());
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
    Ok((kept, notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::BackendChange;
    use crate::config::{Backend, test_config};
    use crate::moment::Moment;

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
        let drain = BackendChange::Drain {
            deadline_seconds: None,
        };
        for service in ["www", "gone"] {
            overrides.apply_change(service, "web1", drain, true, Moment::test(1, 0, 0));
        }
        let mut web3 = file.services[0].backends[0].clone();
        web3.name = "web3".into();
        web3.address = "198.18.3.2".parse().unwrap();
        overrides.apply_add("www", &web3, None);

        let (kept, lines) = still_meaningful(&file, &overrides).unwrap();
        assert!(kept.get("www", "web1").unwrap().drained && kept.get("www", "web3").is_some());
        assert_eq!(
            lines,
            [(
                "gone/web1".to_owned(),
                "its override is forgotten, since the backend is gone"
            )]
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
