//! How a lab is to be.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::topology::ORDINARY_MTU;
use super::{Topology, VIP, VIP6};

/// The programs that the lab starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Binaries {
    /// The daemon.
    pub lbd: PathBuf,
    /// Its command-line tool.
    pub lbctl: PathBuf,
    /// This crate's own binary, which holds the application server.
    pub xtask: PathBuf,
    /// The XDP object for the far ends of the balancer's wires.
    pub veth_pass: PathBuf,
    /// The XDP object for web servers that unpack what `ipip` sends them.
    pub decapsulate: PathBuf,
}

/// How packets get from the balancer to the web servers, as `mode` of a service has it: what the web servers need for it,
/// and what `lb.toml` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The web servers' way to clients leads through the balancer
    #[default]
    Nat,
    /// The web servers need nothing
    FullNat,
    /// The web servers have the VIPs and answer clients themselves
    Dsr,
    /// The web servers unpack what arrives in tunnels, have the VIPs and answer clients themselves
    Ipip,
}

impl Mode {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::FullNat => "full-nat",
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
        }
    }

    /// Whether the web servers must take packets for the VIPs.
    pub fn backends_have_the_vip(self) -> bool {
        matches!(self, Self::Dsr | Self::Ipip)
    }
}

/// A long way between client and router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wan {
    /// That every packet takes, each way: a round trip takes twice this.
    pub delay: Duration,
    /// So many packets in a hundred, chosen at random, take 2 ms longer and are overtaken by what follows. 0 to 100.
    pub reorder_percent: u8,
}

/// How a lab is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabOptions {
    /// What everything of this lab is named after: small letters, digits and dashes, at most 16.
    pub prefix: String,
    /// The programs that it starts.
    pub binaries: Binaries,
    /// How the hosts are joined. Default: routed.
    pub topology: Topology,
    /// What the web servers are prepared for, and the mode of the services in `lb.toml`. Default: `nat`.
    pub mode: Mode,
    /// What the router reaches through the balancer, and the web servers have themselves in `dsr` and `ipip`. Default:
    /// [`VIP`] and [`VIP6`].
    pub vips: Vec<IpAddr>,
    /// The MTU of the link between client and router, 1280 to 1500. Where it is narrower than 1500, the client does not say
    /// so in its segment size: servers learn it from ICMP only. Default 1500.
    pub client_mtu: u16,
    /// A long way between client and router. Default: none, a wire.
    pub wan: Option<Wan>,
    /// With `lbd`, which hands the site over. Without it the web servers get a plain site, and only they themselves can
    /// be reached, not the VIP. Default true.
    pub balancer: bool,
    /// The lab stays when the [`Lab`](super::Lab) is dropped and when this process ends. Default false: its processes
    /// get a SIGTERM when the **thread** that started them ends.
    pub keep: bool,
    /// nginx worker processes on each web server. Default 1.
    pub nginx_workers: u32,
    /// Sizes of bodies, in bytes, that nginx answers itself: see [`WebServer::write_bodies`](super::WebServer::write_bodies).
    /// Default: none.
    pub bodies: Vec<usize>,
    /// `[site] keepalive_time`. Default 5 s.
    pub keepalive_time: Duration,
    /// `[site] drain_timeout`. Default 15 s.
    pub drain_timeout: Duration,
    /// `[daemon] max_connections`. Default 100,000.
    pub max_connections: u32,
    /// TOML that follows in `lb.toml`: more services, mostly made by [`ServiceText`](super::ServiceText). Default: none.
    pub more_services: String,
}

impl LabOptions {
    /// The defaults.
    pub fn new(prefix: &str, binaries: Binaries) -> Self {
        Self {
            prefix: prefix.to_owned(),
            binaries,
            topology: Topology::default(),
            mode: Mode::default(),
            vips: vec![VIP.into(), VIP6.into()],
            client_mtu: ORDINARY_MTU,
            wan: None,
            balancer: true,
            keep: false,
            nginx_workers: 1,
            bodies: Vec::new(),
            keepalive_time: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(15),
            max_connections: 100_000,
            more_services: String::new(),
        }
    }

    /// What can be wrong with them.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        check_prefix(&self.prefix)?;
        if !(NARROWEST_MTU..=ORDINARY_MTU).contains(&self.client_mtu) {
            bail!(
                "an MTU of {} between client and router is not allowed: {NARROWEST_MTU} (IPv6 wants that much) to \
                 {ORDINARY_MTU}",
                self.client_mtu
            );
        }
        Ok(())
    }
}

/// RFC 8200, section 5.
const NARROWEST_MTU: u16 = 1280;

/// A prefix names directories and namespaces, and with them what is removed: no surprises in it.
pub(super) fn check_prefix(prefix: &str) -> anyhow::Result<()> {
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let starts_well = prefix.starts_with(|first: char| first.is_ascii_lowercase());
    if !starts_well || prefix.len() > 16 || !prefix.chars().all(allowed) {
        bail!(
            "the lab's prefix {prefix:?} is not allowed: a small letter, then small letters, digits and dashes, \
             16 at most, such as \"{}\"",
            super::DEFAULT_PREFIX
        );
    }
    Ok(())
}

#[cfg(test)]
impl Binaries {
    /// For options that nobody brings up.
    pub(crate) fn unbuilt() -> Self {
        Self {
            lbd: "lbd".into(),
            lbctl: "lbctl".into(),
            xtask: "xtask".into(),
            veth_pass: "veth_pass".into(),
            decapsulate: "decapsulate".into(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn options() -> LabOptions {
        LabOptions::new("lb-t", Binaries::unbuilt())
    }

    #[test]
    fn impossible_options_are_refused() {
        assert!(options().check().is_ok());
        for mtu in [1279, 1501] {
            let wrong = LabOptions {
                client_mtu: mtu,
                ..options()
            };
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(&mtu.to_string()), "{error}");
        }
    }
}
