//! The connections of the tables, as they are shown.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::sync::Arc;

use lb_common::tick::Tick;

use crate::api::types::{Connection, ConnectionFilter, Connections};
use crate::dataplane::{self, Clock, ConnectionTable};
use crate::reconcile::ServiceKey;

/// Connections that a listing shows unless it is told otherwise.
const DEFAULT_LIMIT: usize = 1000;

/// Names of all that connections may name, by the small numbers that entries have for them.
#[derive(Debug, Default)]
pub struct Names<'a> {
    services: Vec<Option<(&'a ServiceKey, Arc<str>)>>,
    backends: Vec<Option<Arc<str>>>,
}

impl<'a> Names<'a> {
    /// Services by number, backends by id.
    pub fn new(
        services: impl IntoIterator<Item = (u16, &'a ServiceKey, &'a str)>,
        backends: impl IntoIterator<Item = (u16, &'a str)>,
    ) -> Self {
        let mut names = Self::default();
        for (number, key, name) in services {
            put(&mut names.services, number, (key, Arc::from(name)));
        }
        for (id, name) in backends {
            put(&mut names.backends, id, Arc::from(name));
        }
        names
    }

    /// Of services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().flatten().map(|(_, name)| &**name)
    }

    /// Of backends.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.backends.iter().flatten().map(|name| &**name)
    }

    fn of(&self, connection: &dataplane::Connection) -> Option<(&'a ServiceKey, &Arc<str>, &Arc<str>)> {
        let (key, service) = self.services.get(usize::from(connection.service))?.as_ref()?;
        let backend = self.backends.get(usize::from(connection.backend))?.as_ref()?;
        Some((key, service, backend))
    }
}

fn put<T: Clone>(list: &mut Vec<Option<T>>, number: u16, value: T) {
    let place = usize::from(number);
    if list.len() <= place {
        list.resize(place + 1, None);
    }
    if let Some(element) = list.get_mut(place) {
        *element = Some(value);
    }
}

/// All connections that are not over and that the filter lets through are counted, and the first of them shown.
pub fn connections(
    table: &ConnectionTable,
    now: Tick,
    clock: Clock,
    names: &Names<'_>,
    filter: &ConnectionFilter,
) -> Connections {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    let mut found = Connections {
        total: 0,
        connections: Vec::new(),
    };
    let present = table.iter(now).filter(|connection| connection.ticks_left >= 0);
    for connection in present {
        let Some((key, service, backend)) = names.of(&connection) else {
            continue;
        };
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let client = connection.client.ip();
        if !fits(&filter.service, service)
            || !fits(&filter.backend, backend)
            || !fits(&filter.state, connection.state.name())
            || filter.client.is_some_and(|wanted| wanted != client)
        {
            continue;
        }
        found.total += 1;
        if found.connections.len() >= limit {
            continue;
        }
        found.connections.push(Connection {
            client,
            client_port: connection.client.port(),
            vip: key.vip,
            vip_port: if key.has_several_ports() {
                connection.vip_port
            } else {
                key.port
            },
            protocol: key.protocol,
            service: Arc::clone(service),
            backend: Arc::clone(backend),
            own_port: NonZeroU16::new(connection.own_port),
            state: Cow::Borrowed(connection.state.name()),
            expires_seconds: clock.duration(connection.ticks_left.unsigned_abs()).as_secs(),
        });
    }
    found
}
