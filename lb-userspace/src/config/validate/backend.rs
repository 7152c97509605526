//! `[[service.backend]]`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::Across;
use crate::config::section::{Section, title};
use crate::config::{Backend, Protocol, limits, rules, written};

/// A service's backends; none is fine, they can be added at run time.
pub(super) fn backends(
    section: &mut Section<'_, '_>,
    service: &written::Service,
    vip: Option<IpAddr>,
    service_port: Option<NonZeroU16>,
    protocol: Protocol,
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
        let address = address(section, given, vip, across);
        let port = match &given.port {
            Some(_) => section.port("port", &given.port),
            None => service_port,
        };
        let weight = section
            .number("weight", &given.weight, limits::WEIGHT, "a weight")
            .unwrap_or(1);
        if let (Some(address), Some(port), Some(typed)) = (address, port, &given.address) {
            if endpoints.insert((address, port)) {
                share(section, typed, (address, port.get(), protocol), across);
            } else {
                let what = format!("another backend of this service has {address} port {port} already");
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
            })
        })());
    }
    backends.into_iter().collect()
}

fn address(
    section: &mut Section<'_, '_>,
    given: &written::Backend,
    vip: Option<IpAddr>,
    across: &Across,
) -> Option<IpAddr> {
    section.need(
        "address",
        &given.address,
        "write the server's address, such as \"198.18.1.2\"",
    );
    section.text("address", &given.address, |text| {
        let address = rules::address(text)?;
        vip.map_or(Ok(()), |vip| rules::backend_address(address, vip))?;
        if across.vips.contains(&address) {
            return Err("this is a VIP of this file; name the server's own address".to_owned());
        }
        Ok(address)
    })
}

/// Counts the services that share an endpoint; the data path finds a reply's service among so many.
fn share(
    section: &mut Section<'_, '_>,
    typed: &toml::Spanned<String>,
    endpoint: (IpAddr, u16, Protocol),
    across: &mut Across,
) {
    let services = across.shared_by.entry(endpoint).or_default();
    *services += 1;
    if *services == limits::SERVICES_PER_ENDPOINT + 1 {
        let (address, port, _) = endpoint;
        let what = format!(
            "{address} port {port} is a backend of more than {} services; give the server another address or port for \
             some of them",
            limits::SERVICES_PER_ENDPOINT
        );
        section.wrong("address", typed.span(), what);
    }
}

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
