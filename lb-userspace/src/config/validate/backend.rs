//! `[[service.backend]]`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::Across;
use super::forwarding::Forwarding;
use crate::config::section::{Section, title};
use crate::config::sharing::Use;
use crate::config::{Backend, Ports, Protocol, limits, rules, written};

/// What backends must know of their service, so far as it is right.
pub(super) struct Of<'a> {
    pub(super) title: String,
    pub(super) vip: Option<IpAddr>,
    pub(super) ports: Option<&'a Ports>,
    pub(super) protocol: Option<Protocol>,
    pub(super) forwarding: Option<&'a Forwarding>,
    pub(super) stateless: bool,
}

impl Of<'_> {
    fn uses(&self, port: Option<NonZeroU16>) -> Option<Use> {
        let forwarding = self.forwarding?;
        Some(Use {
            service: self.title.clone(),
            vip: self.vip?,
            ports: self.ports?.clone(),
            protocol: self.protocol?,
            mode: forwarding.mode,
            stateless: self.stateless,
            source: forwarding.source_address,
            source_ports: forwarding.source_ports.clone(),
            port,
        })
    }
}

/// A service's backends; none is fine, they can be added at run time.
pub(super) fn backends(
    section: &mut Section<'_, '_>,
    service: &written::Service,
    of: &Of<'_>,
    across: &mut Across,
) -> Option<Vec<Backend>> {
    let mut names = HashMap::new();
    let mut endpoints = HashSet::new();
    let mut backends = Vec::new();
    for (index, given) in service.backend.iter().flatten().enumerate() {
        let name = given.get_ref().name.as_ref().map(|name| name.get_ref().as_str());
        let section = &mut section.inner(&title("backend", name, index), given.span());
        let given = given.get_ref();
        let name = section.unique_name(&given.name, "backend of this service", &mut names);
        let address = address(section, given, of, across);
        let port = port(section, given, of);
        let weight = section
            .number("weight", &given.weight, limits::WEIGHT, "a weight")
            .unwrap_or(1);
        if let (Some(address), Some(port), Some(typed)) = (address, port, &given.address) {
            if endpoints.insert((address, port)) {
                share(section, typed, address, of.uses(port), across);
            } else {
                let port = port.map_or_else(String::new, |port| format!(" port {port}"));
                let what = format!("another backend of this service has {address}{port} already");
                section.wrong("address", typed.span(), what);
            }
        }
        count(section, name.as_deref(), address, across);
        backends.push((|| {
            Some(Backend {
                name: name?,
                address: address?,
                port: port?,
                weight,
                backup: given.backup.as_ref().is_some_and(|backup| *backup.get_ref()),
            })
        })());
    }
    only_backups(section, service);
    backends.into_iter().collect()
}

fn address(
    section: &mut Section<'_, '_>,
    given: &written::Backend,
    of: &Of<'_>,
    across: &Across,
) -> Option<IpAddr> {
    section.need(
        "address",
        &given.address,
        "write the server's address, such as \"198.18.1.2\"",
    );
    section.text("address", &given.address, |text| {
        let address = rules::address(text)?;
        if let (Some(vip), Some(forwarding)) = (of.vip, of.forwarding) {
            rules::backend_address(address, vip, forwarding.mode, forwarding.source_address)?;
        }
        if across.vips.contains(&address) {
            return Err("this is a VIP of this file; name the server's own address".to_owned());
        }
        Ok(address)
    })
}

/// Its port, `Some(None)` behind a service of several.
fn port(section: &mut Section<'_, '_>, given: &written::Backend, of: &Of<'_>) -> Option<Option<NonZeroU16>> {
    let port = match &given.port {
        Some(_) => Some(section.port("port", &given.port)?),
        None => None,
    };
    match (
        rules::backend_port(port, of.ports?, of.forwarding?.mode),
        &given.port,
    ) {
        (Ok(port), _) => Some(port),
        (Err(what), Some(typed)) => {
            section.wrong("port", typed.span(), what);
            None
        }
        (Err(_), None) => None,
    }
}

/// Checks a server's use against those by other services.
fn share(
    section: &mut Section<'_, '_>,
    typed: &toml::Spanned<String>,
    address: IpAddr,
    this: Option<Use>,
    across: &mut Across,
) {
    let Some(this) = this else { return };
    let others = across.uses.entry(address).or_default();
    // A service may have several ports of a server: these are no others.
    let strangers: Vec<_> = others
        .iter()
        .filter(|other| other.service != this.service)
        .cloned()
        .collect();
    if let Err(what) = this.goes_with(address, &strangers) {
        section.wrong("address", typed.span(), what);
    }
    others.push(this);
}

/// Backups take the place of others: there must be some.
fn only_backups(section: &mut Section<'_, '_>, service: &written::Service) {
    let backups = service
        .backend
        .iter()
        .flatten()
        .map(|backend| &backend.get_ref().backup);
    let is_backup = |backup: &&written::Given<bool>| backup.as_ref().is_some_and(|typed| *typed.get_ref());
    if let Some(Some(typed)) = backups.clone().next()
        && backups.clone().all(|backup| is_backup(&backup))
    {
        section.wrong("backend backup", typed.span(), ONLY_BACKUPS);
    }
}

/// Why a service cannot have backups alone.
pub(in crate::config) const ONLY_BACKUPS: &str =
    "all backends of the service are backups, so that there is none to stand in for; take backup out of one";

fn count(section: &mut Section<'_, '_>, name: Option<&str>, address: Option<IpAddr>, across: &mut Across) {
    across.total_backends += 1;
    if across.total_backends == limits::BACKENDS + 1 {
        section.refuse(format!(
            "one backend more than the {} that all services may have together",
            limits::BACKENDS
        ));
    }
    if let Some(name) = name {
        across.backends.push((name.to_owned(), address));
    }
}
