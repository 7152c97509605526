//! Interfaces of the lab's hosts.

use anyhow::{Context, Result};
use xtask::lab::{Lab, Node, run};

/// An interface's MAC address.
pub(crate) fn mac(lab: &Lab, node: Node, device: &str) -> Result<String> {
    let shown = run(lab
        .command(node, "ip")?
        .args(["-brief", "link", "show", "dev", device]))?;
    let mac = shown.split_ascii_whitespace().nth(2);
    Ok(mac
        .with_context(|| format!("no MAC address in {shown}"))?
        .to_owned())
}
