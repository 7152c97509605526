//! What will not work on this host as it is set up, in words, with the way to mend it.
//!
//! `judge` decides, from facts alone; `Host::read` gathers them in the network namespace of the calling thread. That is what
//! `lbd` looks at while it runs. [`examine`] adds what does not change by itself (`machine`), for `lbctl doctor`.

mod examination;
mod finding;
mod host;
mod machine;
mod own_ports;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::SystemTime;

use crate::config::{Config, Mode, Service};
use crate::handoff::Validity;
use crate::neighbours::Resolution;

use host::Host;

pub use examination::{Examination, Examined, examine};
pub use finding::{Check, Finding, Severity};

/// What will not work, or only slowly; empty: nothing to complain of. `resolutions` is what `Resolver::resolve` said of
/// the backends' addresses; backends that are not in it are not judged. Reads a few files of `/proc`.
pub fn warnings(config: &Config, resolutions: &HashMap<IpAddr, Resolution>) -> Vec<String> {
    let findings = judge(config, resolutions, &Host::read(config));
    findings.iter().map(ToString::to_string).collect()
}

fn judge(config: &Config, resolutions: &HashMap<IpAddr, Resolution>, host: &Host) -> Vec<Finding> {
    let mut warnings = Vec::new();
    warnings.extend(forwarding(config, host));
    warnings.extend(reverse_path_filter(config, host));
    warnings.extend(own_sources(config, host));
    warnings.extend(vlans(host));
    warnings.extend(backends(config, resolutions, host));
    warnings.extend(vips(config, host));
    warnings.extend(own_ports::own_addresses(config, host));
    warnings.extend(own_ports::reserved_ports(config, host));
    warnings.extend(certificate(config, host.certificate));
    warnings
}

/// The kernel forwards what the program hands to it.
fn forwarding(config: &Config, host: &Host) -> Vec<Finding> {
    let warn = |serves: bool, forwards: Option<bool>, family: &str, key: &str| {
        (serves && forwards == Some(false)).then(|| {
            Finding::warning(
                Check::Forwarding,
                format!(
                    "this host does not forward {family} ({key} is 0): packets whose next hop is not known yet are \
                     handed to the kernel and lost there"
                ),
                format!("`sysctl -w {key}=1`"),
            )
        })
    };
    let serves = |ipv4: bool| {
        config
            .services
            .iter()
            .any(|service| service.vip.is_ipv4() == ipv4)
    };
    let ipv4 = warn(serves(true), host.forwards_ipv4, "IPv4", "net.ipv4.ip_forward");
    let ipv6 = warn(
        serves(false),
        host.forwards_ipv6,
        "IPv6",
        "net.ipv6.conf.all.forwarding",
    );
    ipv4.into_iter().chain(ipv6).collect()
}

/// The command that sets an interface's own `net.ipv4.conf` key.
fn set(interface: &str, key: &str, value: u8) -> String {
    let key = format!("net/ipv4/conf/{interface}/{key}");
    // With dots in the name, sysctl wants slashes for all the other dots.
    let key = if interface.contains('.') {
        key
    } else {
        key.replace('/', ".")
    };
    format!("`sysctl -w {key}={value}`")
}

/// 1 is strict: a packet must come by the interface that its source would be reached by (RFC 3704).
fn reverse_path_filter(config: &Config, host: &Host) -> Vec<Finding> {
    let answers = |service: &Service| service.vip.is_ipv4() && service.mode.maps_ports();
    if !config.services.iter().any(answers) {
        return Vec::new();
    }
    let strict = host.rp_filter.iter().filter(|(_, value)| **value == 1);
    strict
        .map(|(interface, _)| {
            Finding::warning(
                Check::Forged,
                format!(
                    "{interface} filters strictly by reverse path (rp_filter 1, its own or that of `all`): a reply that \
                     comes back by it and is handed to the kernel (its next hop is not known yet) carries the VIP as its \
                     source and may be dropped as forged"
                ),
                set(interface, "rp_filter", 2),
            )
        })
        .collect()
}

/// What the program hands to the kernel with a VIP as its source, the kernel takes for forged where the VIP is its own.
fn own_sources(config: &Config, host: &Host) -> Vec<Finding> {
    let local = config
        .services
        .iter()
        .find(|it| it.vip.is_ipv4() && it.mode.maps_ports() && host.addresses.contains(&it.vip));
    let Some(service) = local else {
        return Vec::new();
    };
    let warn = |interface: &String| {
        Finding::warning(
            Check::Forged,
            format!(
                "{interface} takes no packet from an address of this host, which the VIP {} is: a reply that comes by it \
                 and is handed to the kernel (its next hop is not known yet, or it has to be cut into fragments) is dropped",
                service.vip
            ),
            set(interface, "accept_local", 1),
        )
    };
    host.rejects_own.iter().map(warn).collect()
}

/// The program leaves tagged frames to the kernel, but what has no tag any more looks as if it were the interface's own.
fn vlans(host: &Host) -> Vec<Finding> {
    let warn = |interface: &String| {
        Finding::warning(
            Check::Offloads,
            format!(
                "{interface} has VLANs and takes their tags off before the program sees the frames (rx-vlan-offload is \
                 on), so that what comes by a VLAN would be balanced as if it came by {interface} itself"
            ),
            format!("`ethtool -K {interface} rxvlan off`"),
        )
    };
    host.hidden_vlans.iter().map(warn).collect()
}

/// What a site's visitors see of its certificate, if not now then soon. No configuration is refused for that.
fn certificate(config: &Config, found: Option<(Validity, SystemTime)>) -> Option<Finding> {
    let site = config.site.as_ref()?;
    let (validity, now) = found?;
    let file = site.certificate.display();
    if let Some(what) = validity.refused(now) {
        return Some(Finding::error(
            Check::Certificate,
            format!(
                "the site's certificate {file} {what}: clients refuse it, and it is not handed to web servers"
            ),
            "renew it, or set the clock right; then `lbctl site apply`",
        ));
    }
    validity.ends_soon(now).then(|| {
        Finding::warning(
            Check::Certificate,
            format!(
                "the site's certificate {file} expires on {}: less than a tenth of its time is left",
                validity.end()
            ),
            "renew it, then `lbctl site apply`",
        )
    })
}

/// What will be wrong with a configuration that is in order, because of what time it is.
pub fn about_time(config: &Config) -> Option<Finding> {
    certificate(config, Host::certificate(config))
}

/// A server with all that use it.
struct Server<'a> {
    address: IpAddr,
    /// Service and backend.
    users: Vec<(&'a Service, &'a str)>,
}

impl Server<'_> {
    /// Whom a warning is about.
    fn name(&self, users: impl Fn(&Service) -> bool) -> String {
        let users = self.users.iter().filter(|(service, _)| users(service));
        let names: Vec<_> = users
            .map(|(service, backend)| format!("{}/{backend}", service.name))
            .collect();
        format!("backend {} ({})", names.join(", "), self.address)
    }

    fn is_used(&self, by: impl Fn(&Service) -> bool) -> bool {
        self.users.iter().any(|(service, _)| by(service))
    }
}

fn backends(config: &Config, resolutions: &HashMap<IpAddr, Resolution>, host: &Host) -> Vec<Finding> {
    let mut users: BTreeMap<IpAddr, Vec<_>> = BTreeMap::new();
    for service in &config.services {
        for backend in &service.backends {
            users
                .entry(backend.address)
                .or_default()
                .push((service, backend.name.as_str()));
        }
    }
    let servers = users
        .into_iter()
        .map(|(address, users)| Server { address, users });
    servers
        .filter_map(|server| Some((resolutions.get(&server.address)?, server)))
        .flat_map(|(resolution, server)| backend(&server, *resolution, config, host))
        .collect()
}

fn backend(server: &Server<'_>, resolution: Resolution, config: &Config, host: &Host) -> Vec<Finding> {
    let who = server.name(|_| true);
    let index = match resolution {
        Resolution::NoRoute => {
            return vec![Finding::warning(
                Check::Neighbours,
                format!("{who}: this host has no route to it"),
                "correct the address, or add a route (`ip route add …`)",
            )];
        }
        Resolution::Local => {
            return vec![Finding::warning(
                Check::Neighbours,
                format!(
                    "{who}: the address is this host's own; packets cannot be sent to the balancer itself"
                ),
                "let the server run on another host or in a network namespace of its own",
            )];
        }
        Resolution::NoNeighbour { interface_index } => interface_index,
        Resolution::Resolved { hop, .. } => hop.interface_index,
    };
    let interface = host.interface(index);
    let mut warnings = Vec::new();
    let answered_here = |service: &Service| service.mode.maps_ports();
    if server.is_used(answered_here) && !config.daemon.interfaces.contains(&interface) {
        warnings.push(Finding::warning(
            Check::Neighbours,
            format!(
                "{}: its route leaves by interface {interface}, to which the program is not attached: its replies would \
                 pass by untranslated",
                server.name(answered_here)
            ),
            format!("add {interface:?} to `interfaces` in [daemon] and restart lbd"),
        ));
    }
    let by_mac = |service: &Service| service.mode == Mode::Dsr;
    if server.is_used(by_mac) && matches!(resolution, Resolution::Resolved { on_link: false, .. }) {
        warnings.push(Finding::warning(
            Check::Neighbours,
            format!(
                "{}: its route leads through a gateway, which in mode dsr gets packets that are still for the VIP and \
                 sends them back here, or away",
                server.name(by_mac)
            ),
            "put the server on a segment of this host, or use mode ipip",
        ));
    }
    if matches!(resolution, Resolution::NoNeighbour { .. }) {
        let by_kernel = if server.is_used(|service| service.mode == Mode::Nat) {
            "forwards its packets"
        } else {
            "cannot send it any, so that they are dropped"
        };
        warnings.push(Finding::warning(
            Check::Neighbours,
            format!(
                "{who}: nobody has answered yet for it (or its gateway) on {interface}; until then the kernel {by_kernel}"
            ),
            format!(
                "if this stays, see that the server is on and on that segment (`ip neigh show dev {interface}`)"
            ),
        ));
    }
    warnings
}

/// Only a note: a router may have a route for the VIP that leads here.
fn vips(config: &Config, host: &Host) -> Vec<Finding> {
    let mut by_vip: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for service in &config.services {
        by_vip.entry(service.vip).or_default().push(service);
    }
    let nobodys = |vip: &IpAddr, services: &[&Service]| {
        !host.addresses.contains(vip) && services.iter().all(|service| service.manage_vip.is_none())
    };
    by_vip
        .iter()
        .filter(|(vip, services)| nobodys(vip, services))
        .map(|(vip, services)| {
            let names: BTreeSet<_> = services.iter().map(|service| service.name.as_str()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            let question = if vip.is_ipv4() { "ARP" } else { "neighbour discovery" };
            Finding::note(
                Check::Addresses,
                format!(
                    "VIP {vip} ({names}) is on no interface of this host and lbd does not manage it, so nobody here \
                     answers {question} for it"
                ),
                "that is right if a router sends it here, else set `manage_vip` to an interface",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
