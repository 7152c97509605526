//! Everything that can be looked at, once: what `lbctl doctor` shows. It needs no running daemon.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::host::Host;
use super::machine::{self, Machine};
use super::{Check, Finding, judge};
use crate::config::{self, Config, ThisHost};
use crate::neighbours::{Resolution, Resolver};

/// Neighbours that nobody has asked for yet are given this long to answer.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// All that was looked at, in the order of [`Check::ALL`].
#[derive(Debug, Clone, Serialize)]
pub struct Examination {
    /// One entry for each check.
    pub checks: Vec<Examined>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Examined {
    /// What it is.
    pub check: Check,
    /// How it is, in a few words; `None`: it could not be looked at.
    pub seen: Option<String>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// All findings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.checks.iter().flat_map(|examined| &examined.findings)
    }
}

/// Examines this host, in the network namespace of the calling thread, for the configuration in `file`; if that is refused,
/// only what does not depend on it. `is_running`: a daemon with this configuration runs.
pub async fn examine(file: &Path, is_running: bool) -> Examination {
    let config = config::load(file, &ThisHost);
    let machine = Machine::read(config.as_ref().ok()).await;
    let mut findings = machine::about_machine(&machine);
    let mut seen: HashMap<Check, String> = HashMap::new();
    match &config {
        Ok(config) => {
            let resolutions = resolve(config).await;
            let host = Host::read(config);
            findings.extend(machine::about_interfaces(&machine, config, is_running));
            findings.extend(judge(config, &resolutions, &host));
            seen.extend(seen_for(config, &resolutions, &host));
        }
        Err(error) => {
            let fix = format!(
                "correct it; `lbctl config check {}` reads it again",
                file.display()
            );
            let problems = error.problems.iter();
            findings.extend(
                problems
                    .map(|problem| Finding::error(Check::Configuration, problem.to_string(), fix.clone())),
            );
            seen.insert(
                Check::Configuration,
                format!(
                    "{} is refused: what depends on it was not looked at",
                    file.display()
                ),
            );
        }
    }
    let examined = |check: Check| Examined {
        check,
        seen: seen
            .remove(&check)
            .or_else(|| machine::seen(check, &machine, config.as_ref().ok())),
        findings: findings
            .iter()
            .filter(|finding| finding.check == check)
            .cloned()
            .collect(),
    };
    Examination {
        checks: Check::ALL.into_iter().map(examined).collect(),
    }
}

/// Where the backends' packets go; empty if the kernel does not tell.
async fn resolve(config: &Config) -> HashMap<IpAddr, Resolution> {
    let backends = config.services.iter().flat_map(|service| &service.backends);
    let addresses: BTreeSet<_> = backends.map(|backend| backend.address).collect();
    let addresses: Vec<_> = addresses.into_iter().collect();
    let Ok(resolver) = Resolver::new().await else {
        return HashMap::new();
    };
    let mut left = PATIENCE;
    loop {
        let Ok(resolutions) = resolver.resolve(&addresses).await else {
            return HashMap::new();
        };
        let is_unknown = |it: &Resolution| matches!(it, Resolution::NoNeighbour { .. });
        if left.is_zero() || !resolutions.values().any(is_unknown) {
            return resolutions;
        }
        tokio::time::sleep(PAUSE).await;
        left = left.saturating_sub(PAUSE);
    }
}

/// What [`judge`] looks at, in a few words.
fn seen_for(config: &Config, resolutions: &HashMap<IpAddr, Resolution>, host: &Host) -> Vec<(Check, String)> {
    let on = |value: Option<bool>| match value {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    let backends = config
        .services
        .iter()
        .map(|service| service.backends.len())
        .sum::<usize>();
    let known = resolutions
        .values()
        .filter(|it| matches!(it, Resolution::Resolved { .. }))
        .count();
    let vips: BTreeSet<_> = config.services.iter().map(|service| service.vip).collect();
    let here = vips.iter().filter(|vip| host.addresses.contains(vip)).count();
    let filters: Vec<_> = host
        .rp_filter
        .iter()
        .map(|(interface, value)| format!("{interface} rp_filter {value}"))
        .collect();
    let mut seen = vec![
        (
            Check::Configuration,
            format!(
                "{}: services {}, backends {backends}",
                config.file.display(),
                config.services.len()
            ),
        ),
        (
            Check::Forwarding,
            format!("IPv4 {}, IPv6 {}", on(host.forwards_ipv4), on(host.forwards_ipv6)),
        ),
        (
            Check::Addresses,
            format!("VIPs {}, on this host now {here}", vips.len()),
        ),
        (
            Check::Neighbours,
            format!("servers {}, with a known MAC address {known}", resolutions.len()),
        ),
    ];
    seen.push((
        Check::Certificate,
        match (&config.site, host.certificate) {
            (None, _) => "no site is configured".to_owned(),
            (Some(_), None) => "cannot be read".to_owned(),
            (Some(_), Some((validity, _))) => format!("valid until {}", validity.end()),
        },
    ));
    if !filters.is_empty() {
        seen.push((Check::Forged, filters.join(", ")));
    }
    if let Some(ports) = &host.local_ports {
        seen.push((
            Check::Ports,
            format!("this host's own from {} to {}", ports.start(), ports.end()),
        ));
    }
    seen
}
