//! The wires and addresses: client – router – lb, and one wire from lb to each web server.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::bpf_filesystem::BpfFilesystem;
use super::command::{cannot_run, run};
use super::namespace::Namespace;
use super::node::Node;

/// The whole network as `ip -batch` commands for each node; `{prefix}` is replaced. The wires come first.
const WIRES: &str = "\
link add eth0 netns {prefix}-client type veth peer name client netns {prefix}-router
link add lb netns {prefix}-router type veth peer name uplink netns {prefix}-lb
link add web1 netns {prefix}-lb type veth peer name eth0 netns {prefix}-web1
link add web2 netns {prefix}-lb type veth peer name eth0 netns {prefix}-web2
";

fn addresses(node: Node) -> &'static str {
    match node {
        Node::Client => {
            "address add 198.18.0.2/24 dev eth0
             link set eth0 up
             route add default via 198.18.0.1"
        }
        Node::Router => {
            "address add 198.18.0.1/24 dev client
             address add 198.51.100.1/24 dev lb
             link set client up
             link set lb up
             route add 198.18.1.0/24 via 198.51.100.2
             route add 198.18.2.0/24 via 198.51.100.2
             route add 203.0.113.10/32 via 198.51.100.2"
        }
        Node::Lb => {
            "address add 198.51.100.2/24 dev uplink
             address add 198.18.1.1/24 dev web1
             address add 198.18.2.1/24 dev web2
             link set uplink up
             link set web1 up
             link set web2 up
             route add default via 198.51.100.1"
        }
        Node::Web1 => {
            "address add 198.18.1.2/24 dev eth0
             link set eth0 up
             route add default via 198.18.1.1"
        }
        Node::Web2 => {
            "address add 198.18.2.2/24 dev eth0
             link set eth0 up
             route add default via 198.18.2.1"
        }
    }
}

/// The balancer's interfaces, which the program is attached to.
pub const LB_INTERFACES: [&str; 3] = ["uplink", "web1", "web2"];

/// The far ends of the balancer's wires.
const FAR_ENDS: [(Node, &str); 3] = [(Node::Router, "lb"), (Node::Web1, "eth0"), (Node::Web2, "eth0")];

/// The interfaces that send what a host of the lab itself has made. XDP forwards a packet as it is, and with checksum
/// offload a veth hands on packets whose checksum nobody has filled in yet; real network cards have filled it in by then.
/// On the balancer for another reason: what HAProxy sends there is to be compared under the same terms.
fn without_offload(node: Node) -> &'static [&'static str] {
    match node {
        Node::Client | Node::Web1 | Node::Web2 => &["eth0"],
        Node::Lb => &LB_INTERFACES,
        Node::Router => &[],
    }
}

/// Makes namespaces, wires, addresses and routes; none of them may exist.
///
/// `veth_pass` is the object that is attached to the far ends of the balancer's wires: without a program there, veth drops
/// what XDP transmits or redirects. `directory` is the lab's own.
pub(super) fn build(prefix: &str, directory: &Path, veth_pass: &Path) -> anyhow::Result<()> {
    for node in Node::ALL {
        let namespace = namespace(prefix, node);
        namespace.create()?;
        // No IPv6 in this lab, so that no packet is sent but those that were asked for.
        let off = [
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ];
        // A kernel without IPv6 has nothing to turn off.
        let _ = namespace.sysctl(&off);
        if matches!(node, Node::Router | Node::Lb) {
            namespace.sysctl(&[
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
            ])?;
        }
    }
    batch(
        Command::new("ip").arg("-batch").arg("-"),
        &WIRES.replace("{prefix}", prefix),
    )?;
    for node in Node::ALL {
        let namespace = namespace(prefix, node);
        batch(namespace.command("ip")?.args(["-batch", "-"]), addresses(node))?;
        for device in without_offload(node) {
            run(namespace.command("ethtool")?.args(["-K", device, "tx", "off"]))?;
        }
    }
    let bpf_filesystem = BpfFilesystem::mount(directory)?;
    for (node, device) in FAR_ENDS {
        let mut ip = namespace(prefix, node).command("ip")?;
        ip.args(["link", "set", "dev", device, "xdpdrv", "object"])
            .arg(veth_pass)
            .args(["section", "xdp"])
            .env("TC_BPF_MNT", bpf_filesystem.path());
        run(&mut ip)?;
    }
    Ok(())
}

/// The namespace of a node.
pub(super) fn namespace(prefix: &str, node: Node) -> Namespace {
    Namespace::named(format!("{prefix}-{node}"))
}

fn batch(command: &mut Command, lines: &str) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(command))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).context("cannot write to ip")?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "ip -batch failed: {}\n{lines}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
