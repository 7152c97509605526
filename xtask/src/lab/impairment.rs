//! Loss on the way between client and balancer.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, ensure};

use super::{Lab, Node};

/// Without BBR (a module) TCP gets a megabyte a minute through a loss of 20 %; and of a thousand handshakes that try it seven times,
/// as usual, one fails.
const PATIENT: [(&str, &str); 3] = [
    ("ipv4/tcp_syn_retries", "12"),
    ("ipv4/tcp_synack_retries", "12"),
    ("ipv4/tcp_congestion_control", "bbr"),
];

impl Lab {
    /// From now on the router loses so many packets in a hundred, chosen at random, of those that it forwards from or to the
    /// client, IPv4 and IPv6, whole datagrams' fragments one by one. 0 ends it. What does not concern the client (probes,
    /// the hand-off, neighbours) is spared.
    ///
    /// In the router and not in the hosts at the ends: what these drop on the way out, their programs notice. The hosts' TCP
    /// is made to bear it, for new connections from then on: it is not TCP's patience that is tested here.
    ///
    /// # Errors
    /// When it is more than all, or nftables refuses.
    pub fn lose(&self, percent: u8) -> anyhow::Result<()> {
        ensure!(percent <= 100, "{percent} of a hundred packets cannot be lost");
        let mut rules = "table inet lab_loss\ndelete table inet lab_loss\n".to_owned();
        if percent > 0 {
            for node in [Node::Client, Node::Web1, Node::Web2] {
                // As fast as it can without.
                let _ = self.namespace(node).sysctl(&PATIENT);
            }
            rules += &format!(
                "table inet lab_loss {{
                    chain forward {{
                        type filter hook forward priority 0;
                        iifname \"client\" numgen random mod 100 < {percent} drop
                        oifname \"client\" numgen random mod 100 < {percent} drop
                    }}
                }}\n"
            );
        }
        let mut nft = self.command(Node::Router, "nft")?;
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = nft.spawn().context("cannot run nft")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes()).context("cannot write to nft")?;
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "nft failed: {}\n{rules}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}
