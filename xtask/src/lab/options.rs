//! How a lab is to be.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};

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
}

/// How a lab is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabOptions {
    /// What everything of this lab is named after: small letters, digits and dashes, at most 16.
    pub prefix: String,
    /// The programs that it starts.
    pub binaries: Binaries,
    /// With `lbd`, which hands the site over. Without it the web servers get a plain site, and only they themselves can
    /// be reached, not the VIP. Default true.
    pub balancer: bool,
    /// The lab stays when the [`Lab`](super::Lab) is dropped and when this process ends. Default false: its processes
    /// get a SIGTERM when the **thread** that started them ends.
    pub keep: bool,
    /// nginx worker processes on each web server. Default 1.
    pub nginx_workers: u32,
    /// `[site] keepalive_time`. Default 5 s.
    pub keepalive_time: Duration,
    /// `[site] drain_timeout`. Default 15 s.
    pub drain_timeout: Duration,
    /// `[daemon] max_connections`. Default 100,000.
    pub max_connections: u32,
}

impl LabOptions {
    /// The defaults.
    pub fn new(prefix: &str, binaries: Binaries) -> Self {
        Self {
            prefix: prefix.to_owned(),
            binaries,
            balancer: true,
            keep: false,
            nginx_workers: 1,
            keepalive_time: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(15),
            max_connections: 100_000,
        }
    }
}

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
