//! What differs between two configurations, in words.

use std::collections::BTreeMap;

use crate::config::shown::{endpoint, listener};
use crate::config::{Backend, Config, Service};

/// What a reload changes, a line each; empty: nothing.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let (before, after) = (by_name(&old.services), by_name(&new.services));
    for (name, service) in &after {
        match before.get(name) {
            None => lines.push(format!(
                "service {name}: added, {}/{}",
                listener(service.vip, &service.ports),
                service.protocol
            )),
            Some(known) => service_changes(known, service, &mut lines),
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        lines.push(format!(
            "service {name}: removed; its connections go on until they end"
        ));
    }
    match (&old.site, &new.site) {
        (None, Some(_)) => {
            lines.push("site: added; hand it to the web servers with `lbctl site apply`".to_owned());
        }
        (Some(_), None) => lines.push("site: removed; the web servers keep what they have".to_owned()),
        (Some(a), Some(b)) if a != b => {
            lines.push("site: changed; hand it to the web servers with `lbctl site apply`".to_owned());
        }
        _ => {}
    }
    lines
}

fn by_name(services: &[Service]) -> BTreeMap<&str, &Service> {
    services
        .iter()
        .map(|service| (service.name.as_str(), service))
        .collect()
}

fn service_changes(old: &Service, new: &Service, lines: &mut Vec<String>) {
    let name = &new.name;
    if (old.vip, &old.ports, old.protocol) != (new.vip, &new.ports, new.protocol) {
        lines.push(format!(
            "service {name}: {}/{} becomes {}/{}",
            listener(old.vip, &old.ports),
            old.protocol,
            listener(new.vip, &new.ports),
            new.protocol
        ));
    }
    for (what, differs) in [
        ("scheduler", old.scheduler != new.scheduler),
        ("mode", old.mode != new.mode),
        ("stateless", old.stateless != new.stateless),
        ("source_address", old.source_address != new.source_address),
        ("source_ports", old.source_ports != new.source_ports),
        ("answer_ping", old.answer_ping != new.answer_ping),
        ("slow_start", old.slow_start != new.slow_start),
        ("manage_vip", old.manage_vip != new.manage_vip),
        ("when_all_down", old.when_all_down != new.when_all_down),
        ("on_down", old.on_down != new.on_down),
        ("timeouts", old.timeouts != new.timeouts),
        ("health", old.health != new.health),
    ] {
        if differs {
            lines.push(format!("service {name}: {what} changed"));
        }
    }
    let before: BTreeMap<_, _> = old
        .backends
        .iter()
        .map(|backend| (&backend.name, backend))
        .collect();
    let after: BTreeMap<_, _> = new
        .backends
        .iter()
        .map(|backend| (&backend.name, backend))
        .collect();
    for (backend, is) in &after {
        match before.get(backend) {
            None => lines.push(format!(
                "backend {name}/{backend}: added, {}",
                endpoint(is.address, is.port)
            )),
            Some(was) => backend_changes(name, was, is, lines),
        }
    }
    for backend in before.keys().filter(|backend| !after.contains_key(*backend)) {
        lines.push(format!(
            "backend {name}/{backend}: removed; its connections go on until they end"
        ));
    }
}

fn backend_changes(service: &str, was: &Backend, is: &Backend, lines: &mut Vec<String>) {
    let name = &is.name;
    if (was.address, was.port) != (is.address, is.port) {
        lines.push(format!(
            "backend {service}/{name}: {} becomes {}",
            endpoint(was.address, was.port),
            endpoint(is.address, is.port)
        ));
    }
    if was.weight != is.weight {
        lines.push(format!(
            "backend {service}/{name}: weight {} becomes {}",
            was.weight, is.weight
        ));
    }
    if was.backup != is.backup {
        let what = if is.backup {
            "becomes a backup"
        } else {
            "is no longer a backup"
        };
        lines.push(format!("backend {service}/{name}: {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::config::{OnDown, Ports, Protocol, test_config};

    #[test]
    fn every_change_has_a_line() {
        let old = test_config();
        assert!(changes(&old, &old).is_empty());
        let mut new = test_config();
        new.services[0].backends[0].weight = 5;
        new.services[0].backends.remove(1);
        new.services[0].backends[0].backup = true;
        new.services[0].on_down = OnDown::Reset;
        new.services[0].slow_start = Duration::from_secs(30);
        new.services[0].ports = Ports::Range(80..=443);
        let mut other = new.services[0].clone();
        other.name = "other".into();
        other.vip = "2001:db8::10".parse().unwrap();
        other.ports = Ports::Range(1..=65535);
        other.protocol = Protocol::Udp;
        new.services.push(other);
        assert_eq!(
            changes(&old, &new),
            [
                "service other: added, [2001:db8::10]:any/udp",
                "service www: 203.0.113.10:443/tcp becomes 203.0.113.10:80-443/tcp",
                "service www: slow_start changed",
                "service www: on_down changed",
                "backend www/web1: weight 1 becomes 5",
                "backend www/web1: becomes a backup",
                "backend www/web2: removed; its connections go on until they end",
            ]
        );
        assert_eq!(changes(&new, &old).len(), 7);
    }
}
