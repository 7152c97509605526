//! The addresses and ports that `full-nat` and `ipip` packets come from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::host::Host;
use super::{Check, Finding};
use crate::config::{Config, Mode, Service};

pub(super) fn own_addresses(config: &Config, host: &Host) -> Vec<Finding> {
    let missing = config.services.iter().filter_map(|service| {
        let source = service.source_address?;
        // Answers come to the address of full-nat; nothing but ICMP errors comes to that of a tunnel.
        let expects = match service.mode {
            Mode::FullNat => "the servers' answers do",
            Mode::Ipip => "errors about its packets do",
            Mode::Nat | Mode::Dsr => return None,
        };
        (!host.addresses.is_empty() && !host.addresses.contains(&source))
            .then_some((source, expects, service))
    });
    missing
        .map(|(source, expects, service)| {
            let prefix = if source.is_ipv4() { 32 } else { 128 };
            Finding::warning(
                Check::Addresses,
                format!(
                    "service {}: source_address {source} is on no interface of this host, so that nobody answers for it \
                     and {expects} not arrive, unless a router sends them here",
                    service.name
                ),
                format!("`ip address add {source}/{prefix} dev …`, or correct it"),
            )
        })
        .collect()
}

/// What the host itself asks of a server, a probe for instance, must not come from a port that may be a client's
/// connection's.
pub(super) fn reserved_ports(config: &Config, host: &Host) -> Vec<Finding> {
    let (Some(local), Some(reserved)) = (&host.local_ports, &host.reserved_ports) else {
        return Vec::new();
    };
    let is_own = |service: &&Service| {
        let on_host = |source: &IpAddr| host.addresses.contains(source);
        service.mode == Mode::FullNat && service.source_address.as_ref().is_some_and(on_host)
    };
    let mut ranges: BTreeSet<(u16, u16)> = BTreeSet::new();
    let mut names = BTreeSet::new();
    for service in config.services.iter().filter(is_own) {
        let (first, last) = (*service.source_ports.start(), *service.source_ports.end());
        let met = (first.max(*local.start()), last.min(*local.end()));
        if met.0 <= met.1 && !(met.0..=met.1).all(|port| lists(reserved, port)) {
            ranges.insert((first, last));
            names.insert(service.name.as_str());
        }
    }
    if ranges.is_empty() {
        return Vec::new();
    }
    let ranges = ranges.iter().map(|(first, last)| format!("{first}-{last}"));
    let ports = ranges.clone().collect::<Vec<_>>().join(" and ");
    // Setting the list replaces it.
    let kept = (!reserved.is_empty()).then(|| reserved.clone());
    let list = kept.into_iter().chain(ranges).collect::<Vec<_>>().join(",");
    vec![Finding::warning(
        Check::Ports,
        format!(
            "service {}: this host may take ports {ports} for connections of its own (net.ipv4.ip_local_port_range is \
             {}-{}), which could then meet those of clients at a server",
            names.into_iter().collect::<Vec<_>>().join(", "),
            local.start(),
            local.end()
        ),
        format!("`sysctl -w net.ipv4.ip_local_reserved_ports={list}`"),
    )]
}

/// Whether a list such as `1,10-20` has a port.
fn lists(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = || -> Option<RangeInclusive<u16>> {
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        range().is_some_and(|range| range.contains(&port))
    })
}
