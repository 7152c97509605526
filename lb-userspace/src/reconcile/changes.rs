//! What differs between two configurations, in words.

use std::collections::BTreeMap;

use crate::config::{Backend, Config, Service};

/// What a reload changes, a line each; empty: nothing.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let (before, after) = (by_name(&old.services), by_name(&new.services));
    for (name, service) in &after {
        match before.get(name) {
            None => lines.push(format!("service {name}: added, {}:{}", service.vip, service.port)),
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
    if (old.vip, old.port) != (new.vip, new.port) {
        lines.push(format!(
            "service {name}: {}:{} becomes {}:{}",
            old.vip, old.port, new.vip, new.port
        ));
    }
    for (what, differs) in [
        ("scheduler", old.scheduler != new.scheduler),
        ("mode", old.mode != new.mode),
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
                "backend {name}/{backend}: added, {}:{}",
                is.address, is.port
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
            "backend {service}/{name}: {}:{} becomes {}:{}",
            was.address, was.port, is.address, is.port
        ));
    }
    if was.weight != is.weight {
        lines.push(format!(
            "backend {service}/{name}: weight {} becomes {}",
            was.weight, is.weight
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_config;

    #[test]
    fn every_change_has_a_line() {
        let old = test_config();
        assert!(changes(&old, &old).is_empty());
        let mut new = test_config();
        new.services[0].backends[0].weight = 5;
        new.services[0].backends.remove(1);
        new.services[0].on_down = crate::config::OnDown::Reset;
        let mut other = new.services[0].clone();
        other.name = "other".into();
        new.services.push(other);
        assert_eq!(
            changes(&old, &new),
            [
                "service other: added, 203.0.113.10:443",
                "service www: on_down changed",
                "backend www/web1: weight 1 becomes 5",
                "backend www/web2: removed; its connections go on until they end",
            ]
        );
        assert_eq!(changes(&new, &old).len(), 4);
    }
}
