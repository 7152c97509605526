//! What will not work on this host as it is set up, in words, with the way to mend it.
//!
//! `judge` decides, from facts alone; `Host::read` gathers them in the network namespace of the calling thread.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::IpAddr;

use crate::config::{Config, Service};
use crate::neighbours::Resolution;

/// What will not work, or only slowly; empty: nothing to complain of. `resolutions` is what `Resolver::resolve` said of
/// the backends' addresses; backends that are not in it are not judged. Reads a few files of `/proc`.
pub fn warnings(config: &Config, resolutions: &HashMap<IpAddr, Resolution>) -> Vec<String> {
    judge(config, resolutions, &Host::read(config))
}

/// The facts. What could not be read is left out, and not judged.
#[derive(Debug, Clone, Default)]
struct Host {
    /// `net.ipv4.ip_forward`.
    forwards_ipv4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    forwards_ipv6: Option<bool>,
    /// In force on each attached interface: the larger of its own and that of `all`
    /// (Documentation/networking/ip-sysctl.rst).
    rp_filter: BTreeMap<String, u8>,
    /// Names of the interfaces by index.
    interfaces: HashMap<u32, String>,
    /// The host's own.
    addresses: HashSet<IpAddr>,
}

impl Host {
    fn read(config: &Config) -> Self {
        let all = sysctl("ipv4/conf/all/rp_filter");
        let rp_filter = config.daemon.interfaces.iter().filter_map(|interface| {
            let own = sysctl(&format!("ipv4/conf/{interface}/rp_filter"))?;
            Some((interface.clone(), own.max(all?)))
        });
        let indexes = nix::net::if_::if_nameindex();
        let interfaces = indexes
            .iter()
            .flatten()
            .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()));
        let addresses = nix::ifaddrs::getifaddrs()
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
            });
        Self {
            forwards_ipv4: sysctl("ipv4/ip_forward").map(|value| value != 0),
            forwards_ipv6: sysctl("ipv6/conf/all/forwarding").map(|value| value != 0),
            rp_filter: rp_filter.collect(),
            interfaces: interfaces.collect(),
            addresses: addresses.collect(),
        }
    }
}

/// A small number below `/proc/sys/net`.
fn sysctl(path: &str) -> Option<u8> {
    fs::read_to_string(format!("/proc/sys/net/{path}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn judge(config: &Config, resolutions: &HashMap<IpAddr, Resolution>, host: &Host) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(forwarding(config, host));
    warnings.extend(reverse_path_filter(config, host));
    warnings.extend(backends(config, resolutions, host));
    warnings.extend(vips(config, host));
    warnings
}

/// The kernel forwards what the program hands to it.
fn forwarding(config: &Config, host: &Host) -> Vec<String> {
    let warn = |serves: bool, forwards: Option<bool>, family: &str, key: &str| {
        (serves && forwards == Some(false)).then(|| {
            format!(
                "this host does not forward {family} ({key} is 0): packets whose next hop is not known yet are handed \
                 to the kernel and lost there; fix: `sysctl -w {key}=1`"
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

/// 1 is strict: a packet must come by the interface that its source would be reached by (RFC 3704).
fn reverse_path_filter(config: &Config, host: &Host) -> Vec<String> {
    if !config.services.iter().any(|service| service.vip.is_ipv4()) {
        return Vec::new();
    }
    let strict = host.rp_filter.iter().filter(|(_, value)| **value == 1);
    strict
        .map(|(interface, _)| {
            // With dots in the name, sysctl wants slashes for all the other dots.
            let key = format!("net/ipv4/conf/{interface}/rp_filter");
            let key = if interface.contains('.') { key } else { key.replace('/', ".") };
            format!(
                "{interface} filters strictly by reverse path (rp_filter 1, its own or that of `all`): a reply that \
                 comes back by it and is handed to the kernel (its next hop is not known yet) carries the VIP as its \
                 source and may be dropped as forged; fix: `sysctl -w {key}=2`"
            )
        })
        .collect()
}

fn backends(config: &Config, resolutions: &HashMap<IpAddr, Resolution>, host: &Host) -> Vec<String> {
    let mut names: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for service in &config.services {
        for backend in &service.backends {
            names
                .entry(backend.address)
                .or_default()
                .push(format!("{}/{}", service.name, backend.name));
        }
    }
    let judge = |(address, names): (IpAddr, Vec<String>)| {
        let resolution = resolutions.get(&address)?;
        Some((format!("backend {} ({address})", names.join(", ")), *resolution))
    };
    let judged = names.into_iter().filter_map(judge);
    judged
        .flat_map(|(who, resolution)| backend(&who, resolution, config, host))
        .collect()
}

fn backend(who: &str, resolution: Resolution, config: &Config, host: &Host) -> Vec<String> {
    let interface = match resolution {
        Resolution::NoRoute => {
            return vec![format!(
                "{who}: this host has no route to it; fix: correct the address, or add a route (`ip route add …`)"
            )];
        }
        Resolution::Local => {
            return vec![format!(
                "{who}: the address is this host's own; a service in mode nat cannot send to the balancer itself; \
                 fix: let the server run on another host or in a network namespace of its own"
            )];
        }
        Resolution::NoNeighbour { interface_index } => interface_index,
        Resolution::Resolved(hop) => hop.interface_index,
    };
    let name = host
        .interfaces
        .get(&interface)
        .cloned()
        .unwrap_or_else(|| format!("number {interface}"));
    let mut warnings = Vec::new();
    if !config.daemon.interfaces.contains(&name) {
        warnings.push(format!(
            "{who}: its route leaves by interface {name}, to which the program is not attached: its replies would pass \
             by untranslated; fix: add {name:?} to `interfaces` in [daemon] and restart lbd"
        ));
    }
    if matches!(resolution, Resolution::NoNeighbour { .. }) {
        warnings.push(format!(
            "{who}: nobody has answered yet for it (or its gateway) on {name}; until then the kernel forwards its \
             packets; fix, if this stays: see that the server is on and on that segment (`ip neigh show dev {name}`)"
        ));
    }
    warnings
}

/// Only a note: a router may have a route for the VIP that leads here.
fn vips(config: &Config, host: &Host) -> Vec<String> {
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
            format!(
                "note: VIP {vip} ({names}) is on no interface of this host and lbd does not manage it, so nobody here \
                 answers {question} for it; that is right if a router sends it here, else set `manage_vip` to an \
                 interface"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
