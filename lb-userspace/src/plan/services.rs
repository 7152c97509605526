//! Services, before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use super::Subject;
use super::draft::Drafts;
use super::make::State;
use crate::api::types::word;
use crate::config::shown::listener;
use crate::config::{Service, Timeouts};
use crate::desired_state::DesiredService;
use crate::reconcile::ServiceKey;

/// Services that are the same one: by name, or, with a new name, by what clients connect to.
pub(super) struct Pairs<'a> {
    /// With what it was, each in the order of their names.
    pub(super) present: Vec<(Option<&'a DesiredService>, &'a DesiredService)>,
    /// Those that are there no more.
    pub(super) removed: Vec<&'a DesiredService>,
}

impl<'a> Pairs<'a> {
    pub(super) fn of(before: &'a [DesiredService], after: &'a [DesiredService]) -> Self {
        let by_name = |services: &'a [DesiredService]| -> BTreeMap<&'a str, &'a DesiredService> {
            services.iter().map(|it| (it.service.name.as_str(), it)).collect()
        };
        let (was, is) = (by_name(before), by_name(after));
        let renamed: BTreeMap<_, _> = before
            .iter()
            .filter(|it| !is.contains_key(it.service.name.as_str()))
            .map(|it| (ServiceKey::of(&it.service), it))
            .collect();
        let mut found = BTreeSet::new();
        let present = is
            .iter()
            .map(|(name, now)| {
                let known = was
                    .get(name)
                    .or_else(|| renamed.get(&ServiceKey::of(&now.service)));
                if let Some(known) = known {
                    found.insert(known.service.name.as_str());
                }
                (known.copied(), *now)
            })
            .collect();
        let removed = was
            .iter()
            .filter(|(name, _)| !found.contains(*name))
            .map(|(_, it)| *it);
        Self {
            present,
            removed: removed.collect(),
        }
    }
}

/// A service that was not there.
pub(super) fn added(service: &Service, drafts: &mut Drafts) {
    let change = format!(
        "added, {}/{}",
        listener(service.vip, &service.ports),
        service.protocol
    );
    drafts.add(Subject::Service, &service.name, change);
}

/// A service that is there no more.
pub(super) fn removed(before: &State<'_>, service: &Service, drafts: &mut Drafts) {
    let ids = before.ids(service);
    drafts.explaining(Subject::Service, &service.name, "removed", ids);
}

/// What differs between two settings of one service, but for its backends.
pub(super) fn changed(before: &State<'_>, was: &Service, is: &Service, drafts: &mut Drafts) {
    let name = &is.name;
    if was.name != is.name {
        drafts.add(Subject::Service, &was.name, format!("renamed {name}"));
    }
    let whole = |service: &Service| format!("{}/{}", listener(service.vip, &service.ports), service.protocol);
    // Connections are what they are because of these.
    let formative = [
        ("", becomes(whole(was), whole(is))),
        ("mode ", becomes(word(&was.mode), word(&is.mode))),
        (
            "source_address ",
            becomes(address(was.source_address), address(is.source_address)),
        ),
        ("source_ports ", becomes(ports(was), ports(is))),
        ("stateless ", becomes(was.stateless, is.stateless)),
    ];
    for (key, change) in formative {
        if let Some(change) = change {
            let change = format!("{key}{change}");
            drafts.explaining(Subject::Service, name, change, before.ids(was));
        }
    }
    let others = [
        ("scheduler", becomes(word(&was.scheduler), word(&is.scheduler))),
        ("answer_ping", becomes(was.answer_ping, is.answer_ping)),
        ("slow_start", becomes(time(was.slow_start), time(is.slow_start))),
        (
            "when_all_down",
            becomes(word(&was.when_all_down), word(&is.when_all_down)),
        ),
        ("on_down", becomes(word(&was.on_down), word(&is.on_down))),
        (
            "drain_timeout",
            becomes(limit(was.drain_timeout), limit(is.drain_timeout)),
        ),
    ];
    for (key, change) in others {
        if let Some(change) = change {
            drafts.add(Subject::Service, name, format!("{key} {change}"));
        }
    }
    for (key, was, is) in timeouts(&was.timeouts, &is.timeouts) {
        if let Some(change) = becomes(time(was), time(is)) {
            let change = format!("timeouts.{key} {change}, for each connection with its next packet");
            drafts.add(Subject::Service, name, change);
        }
    }
    if was.health != is.health {
        drafts.add(Subject::Service, name, "health check changed");
    }
}

fn becomes<T: PartialEq + Display>(was: T, is: T) -> Option<String> {
    (was != is).then(|| format!("{was} becomes {is}"))
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn limit(time: Option<Duration>) -> String {
    time.map_or_else(|| "none".to_owned(), self::time)
}

fn address(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "none".to_owned(), |address| address.to_string())
}

fn ports(service: &Service) -> String {
    format!("{}-{}", service.source_ports.start(), service.source_ports.end())
}

fn timeouts(was: &Timeouts, is: &Timeouts) -> [(&'static str, Duration, Duration); 4] {
    [
        ("half_open", was.half_open, is.half_open),
        ("established", was.established, is.established),
        ("closing", was.closing, is.closing),
        ("udp", was.udp, is.udp),
    ]
}
