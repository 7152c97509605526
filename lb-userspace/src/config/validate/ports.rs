//! `port` and `ports` of a `[[service]]`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use toml::Spanned;

use super::Across;
use crate::config::section::Section;
use crate::config::{Ports, Protocol, rules, written};

/// What the host itself needs on its own address: the kernel's default `net.ipv4.ip_local_port_range`.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
const SSH: u16 = 22;

/// The ports that clients connect to: one, or several in a row; no other service may have just these.
pub(super) fn ports(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    vip: Option<IpAddr>,
    protocol: Option<Protocol>,
    title: &str,
    across: &mut Across,
) -> Option<Ports> {
    let (ports, key, at) = match (&given.port, &given.ports) {
        (None, None) => {
            let what =
                "write the port that clients connect to, 1 to 65535, or ports = \"8000-8999\" or \"any\"";
            section.missing("port", what);
            return None;
        }
        (Some(_), Some(typed)) => {
            section.wrong(
                "ports",
                typed.span(),
                "there is port as well; take one of the two out",
            );
            return None;
        }
        (Some(typed), None) => (
            Ports::One(section.port("port", &given.port)?),
            "port",
            typed.span(),
        ),
        (None, Some(typed)) => (
            Ports::Range(section.text("ports", &given.ports, rules::service_ports)?),
            "ports",
            typed.span(),
        ),
    };
    let (vip, protocol) = (vip?, protocol?);
    let endpoint = match &ports {
        Ports::One(port) => (vip, port.get(), protocol),
        Ports::Range(_) => (vip, 0, protocol),
    };
    if let Some(other) = across.endpoints.insert(endpoint, title.to_owned()) {
        let what = match &ports {
            Ports::One(port) => {
                format!(
                    "service {other} has {vip} port {port}/{protocol} already; one of the two must change"
                )
            }
            Ports::Range(_) => format!(
                "service {other} has several ports of {vip} by {protocol} already, and only one service may; one of the two \
                 must change"
            ),
        };
        section.wrong(key, at, what);
    }
    if let (Ports::Range(range), Some(typed)) = (&ports, &given.ports) {
        spare_the_host(
            section,
            typed,
            range,
            (vip, protocol),
            given.manage_vip.is_some(),
            across,
        );
    }
    Some(ports)
}

/// A range of ports on an address that the host has for itself would take away what it needs there.
fn spare_the_host(
    section: &mut Section<'_, '_>,
    typed: &Spanned<String>,
    ports: &RangeInclusive<u16>,
    (vip, protocol): (IpAddr, Protocol),
    managed: bool,
    across: &Across,
) {
    // As lbd itself puts a VIP on an interface.
    let whole = if vip.is_ipv4() { 32 } else { 128 };
    let is_own = |(address, prefix): &(IpAddr, u32)| *address == vip && !(managed && *prefix == whole);
    if !across.own_addresses.iter().any(is_own) {
        return;
    }
    let lost = if protocol == Protocol::Tcp && ports.contains(&SSH) {
        "SSH to this host"
    } else if ports.start() <= EPHEMERAL.end() && EPHEMERAL.start() <= ports.end() {
        "the answers to what this host itself asks of others"
    } else {
        return;
    };
    let what = format!(
        "{vip} is an address of this host, and the service would take {lost}; use an address of its own, which lbd can put \
         there by manage_vip, or other ports"
    );
    section.wrong("ports", typed.span(), what);
}
