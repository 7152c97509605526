//! From `Written` to `Config`: every value is checked, everything that is wrong is noted, and only a file without
//! fault becomes a configuration.

pub(super) mod backend;
mod certificate;
mod daemon;
mod forwarding;
pub(super) mod health;
mod ports;
mod service;
mod site;
mod site_server;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use toml::Spanned;

use super::error::ConfigError;
use super::host::{Host, plain};
use super::section::{Check, title};
use super::sharing::Use;
use super::written::{self, Table, Written};
use super::{Config, Protocol, limits, shape};

/// What one service must know of the others.
#[derive(Default)]
struct Across {
    /// Services by name, with the name's place.
    names: HashMap<String, usize>,
    /// Services by what clients connect to.
    endpoints: HashMap<(IpAddr, u16, Protocol), String>,
    /// Every VIP of the file, those of later services included.
    vips: HashSet<IpAddr>,
    /// The interface that a VIP is managed on, and the service that says so.
    managed_on: HashMap<IpAddr, (String, String)>,
    /// Whether a VIP answers pings, and the service that says so.
    answers_ping: HashMap<IpAddr, (bool, String)>,
    /// The addresses of this machine, each with the length of its prefix.
    own_addresses: Vec<(IpAddr, u32)>,
    /// How servers are used, by address.
    uses: HashMap<IpAddr, Vec<Use>>,
    /// How many backends there are in all services.
    total_backends: usize,
    /// Names and addresses of all backends; an address that is wrong counts as none.
    backends: Vec<(String, Option<IpAddr>)>,
}

/// Text to configuration.
pub(super) fn validate(text: &str, file: &Path, host: &dyn Host) -> Result<Config, ConfigError> {
    let (written, findings) = shape::read(text);
    let mut check = Check::new(text, file, host, findings);
    let config = written.and_then(|written| config(&mut check, &written, file));
    for fits in [Config::weights_fit, Config::full_nat_ports_fit] {
        if let Some(Err(problem)) = config.as_ref().map(fits) {
            check.section("all services".to_owned(), 0..0).refuse(problem);
        }
    }
    check.finish(file)?;
    // Every check that returns nothing has said why, so that `finish` has refused.
    config.ok_or_else(|| ConfigError { problems: Vec::new() })
}

fn config(check: &mut Check<'_>, written: &Written, file: &Path) -> Option<Config> {
    let listed = written.service.as_deref().unwrap_or_default();
    let daemon = daemon::daemon(check, written.daemon.as_ref(), listed.iter().any(is_full_nat));
    let mut across = Across {
        vips: vips(listed),
        own_addresses: own_addresses(check),
        ..Across::default()
    };

    if listed.is_empty() {
        let what =
            "there is nothing to balance; write at least one, headed [[service]], with name, vip and port";
        check.section(String::new(), 0..0).missing("service", what);
    }
    let mut services = Vec::new();
    for (index, service) in listed.iter().enumerate() {
        let name = service
            .get_ref()
            .name
            .as_ref()
            .map(|name| name.get_ref().as_str());
        let mut section = check.section(title("service", name, index), service.span());
        if index == limits::SERVICES {
            section.refuse(format!(
                "one service more than the {} that are allowed",
                limits::SERVICES
            ));
        }
        services.push(service::service(&mut section, service.get_ref(), &mut across));
    }
    for service in services.iter_mut().flatten() {
        let answers = across.answers_ping.get(&service.vip);
        service.answer_ping = answers.is_none_or(|(answers, _)| *answers);
    }
    let site = written.site.as_ref().map(|written| {
        let mut section = check.section("site".to_owned(), written.span());
        site::site(&mut section, written.get_ref(), &across)
    });

    Some(Config {
        file: file.to_owned(),
        daemon: daemon?,
        services: services.into_iter().collect::<Option<_>>()?,
        site: match site {
            Some(site) => Some(site?),
            None => None,
        },
    })
}

/// The addresses that will be VIPs, so far as they are addresses.
fn vips(services: &[Spanned<Table<written::Service>>]) -> HashSet<IpAddr> {
    let vip =
        |service: &Spanned<Table<written::Service>>| service.get_ref().vip.as_ref()?.get_ref().parse().ok();
    services.iter().filter_map(vip).collect()
}

fn is_full_nat(service: &Spanned<Table<written::Service>>) -> bool {
    service
        .get_ref()
        .mode
        .as_ref()
        .is_some_and(|mode| mode.get_ref() == "full-nat")
}

/// The addresses of this machine.
fn own_addresses(check: &mut Check<'_>) -> Vec<(IpAddr, u32)> {
    check.host.addresses().unwrap_or_else(|error| {
        let what = format!(
            "the addresses of this machine cannot be listed: {}",
            plain(&error)
        );
        check.section("all services".to_owned(), 0..0).refuse(what);
        Vec::new()
    })
}
