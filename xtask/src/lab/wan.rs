//! The long way between client and router.

use anyhow::Context;

use super::Lab;
use super::node::Node;

impl Lab {
    /// Joins client and router, whose interfaces for that come into being by it, if they are to be far apart.
    pub(super) fn start_relay(&mut self) -> anyhow::Result<()> {
        let Some(wan) = self.options.wan else {
            return Ok(());
        };
        let ends = [(Node::Client, "eth0"), (Node::Router, "client")];
        let mut command = std::process::Command::new(&self.options.binaries.xtask);
        command.arg("lab-relay");
        for (node, device) in ends {
            command.arg(format!("{}:{device}", self.namespace(node).name()));
        }
        command.arg("--delay").arg(wan.delay.as_micros().to_string());
        command
            .arg("--reorder-percent")
            .arg(wan.reorder_percent.to_string());
        self.start_process("relay", &mut command, "relay.log")?;
        let log = self.file("relay.log");
        self.wait_for_process("relay", &log, |lab| {
            for (node, device) in ends {
                lab.namespace(node)
                    .run(|| nix::net::if_::if_nametoindex(device).context("there is no such device"))
                    .map_err(|error| format!("{device} on {node}: {error:#}"))?;
            }
            Ok(())
        })
    }
}
