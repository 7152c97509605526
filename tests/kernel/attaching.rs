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
    let in_thread = || {
        std::thread::spawn(sees_packets)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    let name = "attaching::sees_packets_by_native_and_by_generic_xdp";
    vec![Case::new(name, in_thread).needs(NetworkNamespaces)]
}

/// Datagrams go out by one end of a pair, and are counted at the other.
fn sees_packets() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut dataplane = Dataplane::load(&object()?, SMALLEST)?;
    for (number, mode) in [(1, XdpMode::Native), (2, XdpMode::Generic)] {
        let (inside, outside) = (format!("inside{number}"), format!("outside{number}"));
        sh(&format!(
            "ip link add {inside} type veth peer name {outside}
             ip link set {inside} up
             ip link set {outside} up
             ip address add 198.18.{number}.2/24 dev {outside}
             ip neighbour add 198.18.{number}.1 lladdr 02:00:00:00:00:01 dev {outside} nud permanent"
        ))?;
        let attachment = dataplane.attach(&inside, mode)?;
        let as_asked = attachment.native == (mode == XdpMode::Native);
        ensure!(as_asked, "{mode:?} was asked for: {attachment:?}");
        let before = not_ours(&dataplane)?;
        UdpSocket::bind(format!("198.18.{number}.2:0"))?
            .send_to(b"to nobody", format!("198.18.{number}.1:9"))?;
        let limit = Instant::now() + Duration::from_secs(10);
        while not_ours(&dataplane)? == before {
            let in_time = Instant::now() < limit;
            ensure!(in_time, "{mode:?}: the packet did not run through the program");
            std::thread::sleep(Duration::from_millis(10));
        }
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
