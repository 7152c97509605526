//! What hosts remember of the way to others.

use anyhow::Result;
use xtask::lab::{Lab, Node, run};

/// Client and servers forget what ICMP errors have told them.
pub(crate) fn forget(lab: &Lab) -> Result<()> {
    for node in [Node::Client, Node::Web1, Node::Web2] {
        for family in ["-4", "-6"] {
            run(lab.command(node, "ip")?.args([family, "route", "flush", "cache"]))?;
        }
    }
    Ok(())
}
