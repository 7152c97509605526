//! A network namespace of a test's own: a router's two interfaces, with routes and neighbours for the routing table to know.

use std::process::Command;

use anyhow::ensure;
use nix::sched::{CloneFlags, unshare};

/// Runs something in a thread that has such a namespace.
pub fn inside<T: Send + 'static>(
    run: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    std::thread::spawn(move || namespace().and_then(|()| run()))
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `web1` and the client of most tests have neighbour entries, as the first of the numbered clients have by way of a router;
/// `web2` and client 198.18.0.3 have none, and nothing else has a route.
fn namespace() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    sh("ip link set lo up
        ip link add uplink address 02:00:00:00:00:02 type veth peer name outside
        ip link add inside address 02:00:00:00:00:03 type veth peer name servers
        for device in uplink outside inside servers; do ip link set $device up; done
        echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        ip address add 198.18.0.1/24 dev uplink
        ip address add 198.18.1.1/24 dev inside
        ip address add 198.18.2.1/24 dev inside
        ip -6 address add 2001:db8::1/64 dev uplink nodad
        ip -6 address add 2001:db8:0:1::1/64 dev inside nodad
        ip -6 address add 2001:db8:0:2::1/64 dev inside nodad
        ip neighbour add 198.18.0.2 lladdr 02:00:00:00:00:01 dev uplink nud permanent
        ip neighbour add 198.18.1.2 lladdr 02:00:00:00:01:01 dev inside nud permanent
        ip neighbour add 2001:db8::2 lladdr 02:00:00:00:00:01 dev uplink nud permanent
        ip neighbour add 2001:db8:0:1::2 lladdr 02:00:00:00:01:01 dev inside nud permanent
        ip route add 198.19.0.0/16 via 198.18.0.2
        ip -6 route add 2001:db8:0:c1::/64 via 2001:db8::2")
}

pub fn sh(script: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-ec", script]).output()?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
