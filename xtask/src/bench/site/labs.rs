//! The labs that the site is measured in, all of them up at the same time, so that candidates can take turns.
//!
//! | lab | candidates |
//! |---|---|
//! | routed, the balancer's host a plain router | direct, HAProxy, nginx stream, nftables DNAT |
//! | routed, with `lbd` | `nat`, `full-nat`, direct past the program |
//! | one segment, without `lbd` | direct, HAProxy |
//! | one segment, with `lbd` | `dsr`, `ipip` |
//!
//! A peer does not share a host with the XDP program: it would pay for it. Direct connections have the same wires as the
//! balanced ones that they are compared with; routed, they cross the balancer's host.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::candidate::{Candidate, FULL_NAT_PORTS, IPIP_VIP};
use crate::lab::{
    self, BODY_PORTS, Backends, Binaries, Lab, LabOptions, Mode, Node, ServiceText, Topology, VIP,
};
use crate::transfer::Protocol;

/// Of the balancer's table, so that it costs what a table of ordinary size costs.
const TABLE: u32 = 1_000_000;
/// No connection is closed for an operator's drain while we measure.
const KEEPALIVE: Duration = Duration::from_secs(3600);

/// A lab, and who is measured in it.
#[derive(Debug)]
struct Entry {
    topology: Topology,
    balanced: bool,
    lab: Lab,
    offloads: String,
}

/// All labs.
#[derive(Debug)]
pub(super) struct Labs(Vec<Entry>);

impl Labs {
    /// Brings them up. `bodies`: the sizes that the web servers have.
    pub(super) fn up(binaries: &Binaries, bodies: &[usize]) -> Result<Self> {
        let mut labs = Self(Vec::new());
        for (prefix, topology, balanced) in [
            ("lb-bench-rp", Topology::Routed, false),
            ("lb-bench-rb", Topology::Routed, true),
            ("lb-bench-sp", Topology::L2, false),
            ("lb-bench-sb", Topology::L2, true),
        ] {
            let mut options = LabOptions::new(prefix, binaries.clone());
            options.bodies = bodies.to_vec();
            options.keepalive_time = KEEPALIVE;
            options.max_connections = TABLE;
            options.balancer = balanced;
            options.topology = topology;
            // One web server alone can use the whole machine: nobody is faster for having more processes.
            options.nginx_workers = u32::try_from(processors()).unwrap_or(1);
            // What unpacks is on the wires of both labs of a topology, or on those of neither.
            options.mode = match topology {
                Topology::Routed => Mode::Nat,
                Topology::L2 => Mode::Ipip,
            };
            options.vips.push(IPIP_VIP.into());
            if balanced {
                add_services(&mut options);
            }
            let lab = Lab::up(options).with_context(|| format!("the lab {prefix} does not come up"))?;
            for node in [Node::Client, Node::Lb] {
                lab.namespace(node)
                    .sysctl(&[("ipv4/ip_local_port_range", "1024 65535")])?;
            }
            switch_offloads_off(&lab)?;
            let offloads = offloads(&lab)?;
            labs.0.push(Entry {
                topology,
                balanced,
                lab,
                offloads,
            });
        }
        Ok(labs)
    }

    /// Where a candidate is measured.
    pub(super) fn of(&self, topology: Topology, candidate: Candidate) -> Result<&Lab> {
        self.entry(topology, candidate).map(|entry| &entry.lab)
    }

    /// The same, to start something there.
    pub(super) fn of_mut(&mut self, topology: Topology, candidate: Candidate) -> Result<&mut Lab> {
        let balanced = candidate.is_beside_lbd();
        let mut entries = self.0.iter_mut();
        let entry = entries.find(|entry| (entry.topology, entry.balanced) == (topology, balanced));
        entry.map(|entry| &mut entry.lab).context("there is no such lab")
    }

    /// What the wires do by themselves, in words: where two labs say the same, they are alike.
    pub(super) fn offloads(&self, topology: Topology, candidate: Candidate) -> Result<&str> {
        self.entry(topology, candidate)
            .map(|entry| entry.offloads.as_str())
    }

    fn entry(&self, topology: Topology, candidate: Candidate) -> Result<&Entry> {
        let balanced = candidate.is_beside_lbd();
        let mut entries = self.0.iter();
        let entry = entries.find(|entry| (entry.topology, entry.balanced) == (topology, balanced));
        entry.context("there is no such lab")
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lab> {
        self.0.iter().map(|entry| &entry.lab)
    }

    /// Takes them down.
    pub(super) fn down(self) -> Result<()> {
        let downs: Vec<Result<()>> = self.0.into_iter().map(|entry| entry.lab.down()).collect();
        downs.into_iter().collect()
    }
}

/// Of this machine.
pub(super) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn add_services(options: &mut LabOptions) {
    type Modes<'a> = &'a [(Mode, Ipv4Addr, [u16; 2])];
    let modes: Modes<'_> = match options.topology {
        Topology::Routed => &[(Mode::Nat, VIP, BODY_PORTS), (Mode::FullNat, VIP, FULL_NAT_PORTS)],
        Topology::L2 => &[(Mode::Dsr, VIP, BODY_PORTS), (Mode::Ipip, IPIP_VIP, BODY_PORTS)],
    };
    for (mode, vip, ports) in modes {
        for (scheme, (port, backend_port)) in ["http", "https"].iter().zip(ports.iter().zip(BODY_PORTS)) {
            let name = format!("bench-{}-{scheme}", mode.name());
            let mut service = ServiceText::new(&name, IpAddr::from(*vip), *port, Protocol::Tcp, *mode);
            service.backends = Backends::UnprobedWebServers;
            service.backend_port = (*port != backend_port).then_some(backend_port);
            if *mode == Mode::FullNat {
                // Each service its own, as many as there are: ports rest for some seconds before they are used again.
                let range = if *scheme == "http" {
                    "2000-32767"
                } else {
                    "32768-65535"
                };
                let _ = writeln!(service.lines, "source_ports = \"{range}\"");
            }
            options.add_service(&service);
        }
    }
}

/// Everywhere: an XDP program on one end of a wire switches some of them off at the other end, and nobody is to have them then.
fn switch_offloads_off(lab: &Lab) -> Result<()> {
    for node in Node::ALL {
        for device in devices(lab, node)? {
            lab::run(
                lab.command(node, "ethtool")?
                    .args(["-K", &device, "tx", "off", "tso", "off", "gro", "off"]),
            )?;
        }
    }
    Ok(())
}

fn devices(lab: &Lab, node: Node) -> Result<Vec<String>> {
    lab.namespace(node).run(|| {
        let names = nix::net::if_::if_nameindex().context("cannot list interfaces")?;
        let names = names
            .iter()
            .map(|name| name.name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name != "lo").collect())
    })
}

/// What of `ethtool -k` decides what a packet costs.
const FEATURES: [(&str, &str); 6] = [
    ("rx-checksumming", "rx"),
    ("tx-checksumming", "tx"),
    ("tx-tcp-segmentation", "tso"),
    ("tx-tcp6-segmentation", "tso6"),
    ("generic-segmentation-offload", "gso"),
    ("generic-receive-offload", "gro"),
];

/// `client eth0: rx gso, ...`: the features that are on, of every wire's end.
fn offloads(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for node in Node::ALL {
        for device in devices(lab, node)? {
            let shown = lab::run(lab.command(node, "ethtool")?.args(["-k", &device]))?;
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(
                text,
                "{separator}{node} {device}: {}",
                features_that_are_on(&shown)
            );
        }
    }
    Ok(text)
}

fn features_that_are_on(shown: &str) -> String {
    let is_on = |feature: &str| {
        let mut lines = shown.lines().filter_map(|line| line.trim().split_once(": "));
        lines.any(|(name, state)| name == feature && state.starts_with("on"))
    };
    let on = FEATURES.iter().filter(|(feature, _)| is_on(feature));
    on.map(|(_, short)| *short).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read() {
        let shown = "Features for eth0:\nrx-checksumming: on\ntx-checksumming: off\n\ttx-checksum-ip-generic: on\n\
            \ttx-tcp-segmentation: off [requested on]\ngeneric-receive-offload: on\n";
        assert_eq!(features_that_are_on(shown), "rx gro");
    }
}
