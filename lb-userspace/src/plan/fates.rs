//! What becomes of the connections of each backend: from what the kernel's tables held of it before, and hold after.

use std::collections::BTreeMap;

use super::make::State;
use super::{Effect, Fate};
use crate::api::types::BackendState;
use crate::config::Protocol;
use crate::dataplane::{BackendEntry, ServiceEntry};
use crate::moment::Moment;

/// Whose connections fare otherwise than before, and how; by backend id.
pub(super) fn fates(before: &State<'_>, after: &State<'_>, now: Moment) -> BTreeMap<u16, Effect> {
    let (was, is) = (by_id(before.entries), by_id(after.entries));
    let deadlines = after.deadlines();
    let (did, does) = (before.states(), after.states());
    let mut fates = BTreeMap::new();
    for (id, (service, backend)) in was {
        let entries = is.get(&id).map(|(_, entry)| *entry);
        let fate = fate(service.protocol, backend, entries).or_else(|| {
            let (did, does) = (did.get(&id)?, does.get(&id)?);
            match does {
                (BackendState::Draining, _) if did != does => Some(Fate::Drain),
                (BackendState::Down | BackendState::Disabled, _) if did.0 != does.0 => Some(Fate::Stay),
                _ => None,
            }
        });
        let Some(fate) = fate else { continue };
        let deadline = deadlines.get(&id).filter(|_| fate == Fate::Drain);
        let effect = Effect {
            connections: 0,
            fate,
            reset_in_seconds: deadline.map(|until| until.left(now).as_secs_f64().round() as u64),
        };
        fates.insert(id, effect);
    }
    fates
}

/// What the tables do to connections; `None`: nothing.
fn fate(protocol: Protocol, was: &BackendEntry, is: Option<&BackendEntry>) -> Option<Fate> {
    let Some(is) = is else { return Some(Fate::Cut) };
    // A datagram may always be the first of a connection, and goes to a backend that takes new ones, or that only is here
    // for the old ones.
    let keeps = |backend: &BackendEntry| protocol == Protocol::Tcp || backend.up || backend.leaving;
    if keeps(was) && !keeps(is) {
        Some(Fate::Move)
    } else if is.reset && !was.reset {
        keeps(is).then_some(Fate::Reset)
    } else if is.leaving && !was.leaving {
        Some(Fate::Drain)
    } else {
        None
    }
}

fn by_id(services: &[ServiceEntry]) -> BTreeMap<u16, (&ServiceEntry, &BackendEntry)> {
    let all = services
        .iter()
        .flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    all.map(|(service, backend)| (backend.id, (service, backend)))
        .collect()
}
