//! The program can be attached, and packets that come in by an interface run through it.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use lb::config::XdpMode;
use lb::dataplane::Dataplane;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;
use nix::sched::{CloneFlags, unshare};

use crate::verifier::{SMALLEST, object};

pub fn cases() -> Vec<Case> {
    [(XdpMode::Native, "native"), (XdpMode::Generic, "generic")]
        .into_iter()
        .map(|(mode, name)| {
            Case::new(format!("attaching::sees_packets_by_{name}_xdp"), move || {
                std::thread::spawn(move || sees_packets(mode))
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .needs(NetworkNamespaces)
        })
        .collect()
}

/// A datagram goes out by one end of a pair, and is counted at the other.
fn sees_packets(mode: XdpMode) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    sh("ip link add uplink type veth peer name outside
        ip link set uplink up
        ip link set outside up
        ip address add 198.18.0.2/24 dev outside
        ip neighbour add 198.18.0.1 lladdr 02:00:00:00:00:01 dev outside nud permanent")?;
    let mut dataplane = Dataplane::load(&object()?, SMALLEST)?;
    let attachment = dataplane.attach("uplink", mode)?;
    ensure!(attachment.native == (mode == XdpMode::Native), "{attachment:?}");
    let before = not_ours(&dataplane)?;
    UdpSocket::bind("198.18.0.2:0")?.send_to(b"to nobody", "198.18.0.1:9")?;
    let limit = Instant::now() + Duration::from_secs(10);
    while not_ours(&dataplane)? == before {
        ensure!(
            Instant::now() < limit,
            "the packet did not run through the program"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn not_ours(dataplane: &Dataplane) -> anyhow::Result<u64> {
    let outcomes = dataplane.counters().outcomes()?;
    let counted = outcomes.iter().find(|(outcome, _)| *outcome == Outcome::NotOurs);
    Ok(counted.map_or(0, |(_, count)| *count))
}

fn sh(script: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-ec", script]).output()?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
