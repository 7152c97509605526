//! The site on the fresh system: a client and two web servers in namespaces, its host the balancer between them.

use anyhow::{Context, Result, ensure};
use lb_tests::debian_root::{System, wait_for};
use serde_json::Value;

/// Where the boot put what a site needs beside the package.
pub(crate) const XTASK: &str = "opt/test/xtask";
/// The program that the far end of a veth pair needs.
pub(crate) const VETH_PASS: &str = "opt/test/veth_pass";

/// `lb.toml`.
pub(crate) const CONFIGURATION: &str = r#"
[daemon]
interfaces = ["clients", "servers1", "servers2"]
max_connections = 10000
socket_group = "lb"
metrics = "127.0.0.1:910"

[[service]]
name = "www"
vip = "203.0.113.10"
port = 80
manage_vip = "clients"

[service.health]
type = "http"
path = "/health"
interval = "200ms"

[[service.backend]]
name = "web1"
address = "198.18.1.2"

[[service.backend]]
name = "web2"
address = "198.18.2.2"
"#;

/// Namespaces, links, addresses and servers. bpffs is mounted as systemd does on a host, but not in a container.
const NETWORK: &str = "
mount -o remount,rw /sys
mkdir -p /sys/fs/bpf
mount -t bpf -o mode=700 bpf /sys/fs/bpf
mount -o remount,ro /sys
cd /proc/sys/net/ipv4
echo 1 > ip_forward
echo 1 > conf/all/accept_local
echo 0 > conf/all/rp_filter
cd /
# Name of the namespace, interface here, the first three numbers of its network.
while read -r node interface network; do
    ip netns add $node
    ip link add $interface type veth peer name eth0 netns $node
    ip address add $network.1/24 dev $interface
    ip link set $interface up
    ip -n $node address add $network.2/24 dev eth0
    ip -n $node link set lo up
    ip -n $node link set eth0 up
    ip -n $node route add default via $network.1
    ip netns exec $node ethtool -K eth0 tx off > /dev/null
    TC_BPF_MNT=/sys/fs/bpf nsenter --net=/run/netns/$node ip link set dev eth0 xdpdrv object /opt/test/veth_pass section xdp
done << END
client clients 198.18.0
web1 servers1 198.18.1
web2 servers2 198.18.2
END
for number in 1 2; do
    systemd-run --quiet --unit=web$number nsenter --net=/run/netns/web$number \\
        /opt/test/xtask lab-app --name web$number --listen 198.18.$number.2:80
done
";

/// Builds all of it, and the group that may use the API.
pub(crate) fn build(system: &System) -> Result<()> {
    system.output(NETWORK)?;
    system
        .output("groupadd --system lb; useradd --groups lb keeper; useradd stranger")
        .map(drop)
}

/// What `lbctl --json status` says.
pub(crate) fn status(system: &System) -> Result<Value> {
    Ok(serde_json::from_str(&system.output("lbctl --json status")?)?)
}

/// Waits until both web servers are up.
pub(crate) fn wait_until_up(system: &System) -> Result<()> {
    wait_for("both backends", || {
        let status = status(system)?;
        let backends = status["services"][0]["backends"]
            .as_array()
            .context("no backends")?;
        ensure!(
            backends.len() == 2 && backends.iter().all(|backend| backend["state"] == "up"),
            "{status}"
        );
        Ok(())
    })
}

/// Makes so many requests, each a connection, and returns how many each server answered.
pub(crate) fn requests(system: &System, count: usize) -> Result<[usize; 2]> {
    let script = format!(
        "for number in $(seq {count}); do
            ip netns exec client curl --silent --show-error --fail --max-time 5 http://203.0.113.10/
        done"
    );
    let answers = system.output(&script)?;
    let by = |name: &str| answers.matches(&format!("\"server\":\"{name}\"")).count();
    let answered = [by("web1"), by("web2")];
    ensure!(answered.iter().sum::<usize>() == count, "{answers}");
    Ok(answered)
}

/// Makes requests, which must be shared equally.
pub(crate) fn assert_balanced(system: &System) -> Result<()> {
    let answered = requests(system, 20)?;
    ensure!(
        answered == [10, 10],
        "of 20 requests the servers answered {answered:?}"
    );
    Ok(())
}
