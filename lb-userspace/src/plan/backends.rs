//! The backends of a service, before and after.

use std::collections::BTreeMap;

use super::Subject;
use super::draft::Drafts;
use super::make::State;
use crate::api::types::{BackendState, word};
use crate::config::shown::endpoint;
use crate::config::{Backend, Service};
use crate::desired_state::{DesiredBackend, DesiredService};

type Both<'a> = (&'a Backend, &'a DesiredBackend);

/// What differs between the backends of one service.
pub(super) fn changed(
    before: &State<'_>,
    was: Option<&DesiredService>,
    is: &DesiredService,
    drafts: &mut Drafts,
) {
    let (old, new) = (was.map(by_name).unwrap_or_default(), by_name(is));
    let service = &is.service.name;
    let mut gone: BTreeMap<_, _> = old
        .iter()
        .filter(|(name, _)| !new.contains_key(*name))
        .map(|(name, both)| (*name, *both))
        .collect();
    for (name, now) in &new {
        let title = format!("{service}/{name}");
        if let (Some(known), Some(was)) = (old.get(name), was) {
            one(before, &was.service, &title, (*known, *now), drafts);
            continue;
        }
        let same = |it: &&&str| {
            gone.get(**it)
                .is_some_and(|(it, _)| it.endpoint() == now.0.endpoint())
        };
        let renamed = gone.keys().find(same).copied();
        if let (Some((old, known)), Some(was)) = (renamed.and_then(|old| Some((old, gone.remove(old)?))), was)
        {
            let change = format!("renamed {title}");
            drafts.add(Subject::Backend, &format!("{service}/{old}"), change);
            one(before, &was.service, &title, (known, *now), drafts);
            continue;
        }
        let mut change = format!("added, {}", endpoint(now.0.address, now.0.port));
        if now.1.state != BackendState::Up {
            change += &format!(", {}", word(&now.1.state));
        }
        drafts.add(Subject::Backend, &title, change);
    }
    for (name, (backend, _)) in gone {
        let id = was.and_then(|was| before.id(&was.service, backend));
        drafts.explaining(Subject::Backend, &format!("{service}/{name}"), "removed", id);
    }
}

fn by_name(desired: &DesiredService) -> BTreeMap<&str, Both<'_>> {
    let both = desired.service.backends.iter().zip(&desired.backends);
    both.map(|(backend, desired)| (backend.name.as_str(), (backend, desired)))
        .collect()
}

/// One that was there and is.
fn one(
    before: &State<'_>,
    service: &Service,
    title: &str,
    ((was, did), (is, does)): (Both<'_>, Both<'_>),
    drafts: &mut Drafts,
) {
    let id = before.id(service, was);
    let mut explain = |change: String| drafts.explaining(Subject::Backend, title, change, id);
    if was.endpoint() != is.endpoint() {
        explain(format!(
            "{} becomes {}",
            endpoint(was.address, was.port),
            endpoint(is.address, is.port)
        ));
    }
    if did.state != does.state {
        explain(format!("{} becomes {}", word(&did.state), word(&does.state)));
    }
    if did.state == does.state && did.drain_until != does.drain_until {
        explain("its time to drain changes".to_owned());
    }
    if !did.overdue && does.overdue {
        explain("its time to drain is over".to_owned());
    }
    if was.weight != is.weight {
        let change = format!("weight {} becomes {}", was.weight, is.weight);
        drafts.add(Subject::Backend, title, change);
    }
    if was.backup != is.backup {
        let change = if is.backup {
            "becomes a backup"
        } else {
            "is no longer a backup"
        };
        drafts.add(Subject::Backend, title, change);
    }
}
