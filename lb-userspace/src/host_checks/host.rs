//! The facts about this host, gathered in the network namespace of the calling thread.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::SystemTime;

use crate::config::Config;
use crate::dataplane::strips_vlan_tags;
use crate::handoff::Validity;
use crate::moment::wall_clock;

/// What could not be read is left out, and not judged.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    /// `net.ipv4.ip_forward`.
    pub(super) forwards_ipv4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub(super) forwards_ipv6: Option<bool>,
    /// In force on each attached interface: the larger of its own and that of `all`
    /// (Documentation/networking/ip-sysctl.rst).
    pub(super) rp_filter: BTreeMap<String, u8>,
    /// Attached interfaces that take no packet from one of the host's own addresses (`accept_local` 0, its own and that of `all`).
    pub(super) rejects_own: BTreeSet<String>,
    /// Names of the interfaces by index.
    pub(super) interfaces: HashMap<u32, String>,
    /// The host's own.
    pub(super) addresses: HashSet<IpAddr>,
    /// Attached interfaces that take VLAN tags off before the program sees the frame, and have VLANs.
    pub(super) hidden_vlans: BTreeSet<String>,
    /// `net.ipv4.ip_local_port_range`, which holds for IPv6 as well.
    pub(super) local_ports: Option<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_reserved_ports`, as the kernel shows it.
    pub(super) reserved_ports: Option<String>,
    /// When the site's certificate is valid, and what this host takes for now.
    pub(super) certificate: Option<(Validity, SystemTime)>,
}

impl Host {
    pub(super) fn read(config: &Config) -> Self {
        let all: Option<u8> = sysctl("ipv4/conf/all/rp_filter");
        let rp_filter = config.daemon.interfaces.iter().filter_map(|interface| {
            let own: u8 = sysctl(&format!("ipv4/conf/{interface}/rp_filter"))?;
            Some((interface.clone(), own.max(all?)))
        });
        let accepts =
            |interface: &str| -> Option<u8> { sysctl(&format!("ipv4/conf/{interface}/accept_local")) };
        let rejects = |interface: &&String| (accepts("all"), accepts(interface)) == (Some(0), Some(0));
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
        let with_vlans = with_vlans();
        let hides = |name: &&String| with_vlans.contains(*name) && strips_vlan_tags(name).unwrap_or(false);
        Self {
            forwards_ipv4: sysctl("ipv4/ip_forward").map(|value: u8| value != 0),
            forwards_ipv6: sysctl("ipv6/conf/all/forwarding").map(|value: u8| value != 0),
            rp_filter: rp_filter.collect(),
            rejects_own: config.daemon.interfaces.iter().filter(rejects).cloned().collect(),
            interfaces: interfaces.collect(),
            addresses: addresses.collect(),
            hidden_vlans: config.daemon.interfaces.iter().filter(hides).cloned().collect(),
            local_ports: read("ipv4/ip_local_port_range").and_then(|text| {
                let mut ports = text.split_whitespace().map(str::parse);
                Some(ports.next()?.ok()?..=ports.next()?.ok()?)
            }),
            reserved_ports: read("ipv4/ip_local_reserved_ports"),
            certificate: Self::certificate(config),
        }
    }

    /// When the site's certificate is valid, and what this host takes for now.
    pub(super) fn certificate(config: &Config) -> Option<(Validity, SystemTime)> {
        let site = config.site.as_ref()?;
        Some((Validity::of_file(&site.certificate).ok()?, wall_clock()))
    }

    /// The name of an interface, or its number.
    pub(super) fn interface(&self, index: u32) -> String {
        let name = self.interfaces.get(&index).cloned();
        name.unwrap_or_else(|| format!("number {index}"))
    }
}

/// What stands in a file below `/proc/sys/net`.
fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
    Some(text.trim().to_owned())
}

pub(super) fn sysctl<T: std::str::FromStr>(path: &str) -> Option<T> {
    read(path)?.parse().ok()
}

/// Interfaces that have VLANs: the last column of `NAME | ID | DEVICE`, after two lines of headings.
fn with_vlans() -> HashSet<String> {
    let text = fs::read_to_string("/proc/net/vlan/config").unwrap_or_default();
    let devices = text.lines().skip(2).filter_map(|line| line.rsplit('|').next());
    devices.map(|device| device.trim().to_owned()).collect()
}
