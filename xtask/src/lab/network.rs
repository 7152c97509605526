//! Makes the network of a topology: namespaces, wires, addresses, routes, and the small programs at the ends of wires.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::bpf_filesystem;
use super::command::{cannot_run, run};
use super::namespace::Namespace;
use super::node::Node;
use super::{LabOptions, Mode};

/// The wire between client and router, where there is no long way between them; `{prefix}` is replaced.
const CLIENT_WIRE: &str =
    "link add eth0 netns {prefix}-client type veth peer name client netns {prefix}-router\n";

/// Makes namespaces and wires; none of them may exist. With a long way between client and router, these two are left
/// unjoined.
pub(super) fn make_wires(options: &LabOptions) -> anyhow::Result<()> {
    for node in Node::ALL {
        let namespace = namespace(&options.prefix, node);
        namespace.create()?;
        namespace.sysctl(&IPV4)?;
        // Where the kernel can: with losses it takes longer without.
        let _ = namespace.sysctl(&SENDS_AGAIN);
        if has_ipv6() {
            namespace.sysctl(&IPV6)?;
        }
        let forwards = matches!(node, Node::Router | Node::Lb);
        if forwards {
            namespace.sysctl(&IPV4_ROUTER)?;
        }
        if forwards && has_ipv6() {
            namespace.sysctl(&[("ipv6/conf/all/forwarding", "1")])?;
        }
        if options.mode.backends_have_the_vip() {
            namespace.sysctl(match node {
                Node::Web1 | Node::Web2 => &QUIET_ABOUT_VIPS,
                // What the web servers answer comes from a VIP, which the balancer has itself.
                Node::Lb => &[("ipv4/conf/all/accept_local", "1")],
                _ => &[],
            })?;
        }
    }
    let mut wires = options.topology.wires().to_owned();
    if options.wan.is_none() {
        wires += CLIENT_WIRE;
    }
    batch(
        Command::new("ip").arg("-batch").arg("-"),
        &wires.replace("{prefix}", &options.prefix),
    )
}

/// Gives everything its addresses and routes, and attaches the programs. `directory` is the lab's own.
pub(super) fn configure(options: &LabOptions, directory: &Path) -> anyhow::Result<()> {
    let topology = options.topology;
    for node in Node::ALL {
        let namespace = namespace(&options.prefix, node);
        let lines = configuration(options, node);
        batch(namespace.command("ip")?.args(["-batch", "-"]), &lines)?;
        for device in topology.without_offload(node) {
            run(namespace.command("ethtool")?.args(["-K", device, "tx", "off"]))?;
        }
    }
    attach_programs(options, directory)?;
    let router = namespace(&options.prefix, Node::Router);
    for port in topology.bridge_ports() {
        run(router
            .command("ethtool")?
            .args(["-K", port, "tx", "off", "gro", "off"]))?;
    }
    Ok(())
}

fn configuration(options: &LabOptions, node: Node) -> String {
    let lines = options.topology.configuration(node, options);
    let is_to_be_had = |line: &&str| has_ipv6() || !line.contains("::");
    lines
        .lines()
        .filter(is_to_be_had)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Gives a node again what it has lost of addresses and routes; what it still has is refused, which is as well.
pub(super) fn restore(options: &LabOptions, node: Node) -> anyhow::Result<()> {
    let mut ip = namespace(&options.prefix, node).command("ip")?;
    // With -force it goes on after an error, and in the end says that there was one.
    let _ = batch(ip.args(["-force", "-batch", "-"]), &configuration(options, node));
    Ok(())
}

fn attach_programs(options: &LabOptions, directory: &Path) -> anyhow::Result<()> {
    let filesystem = bpf_filesystem::path(directory);
    let unpacking = match options.mode {
        Mode::Ipip => &Node::WEB[..],
        _ => &[],
    };
    let passing = options
        .topology
        .far_ends()
        .iter()
        .filter(|(node, _)| !unpacking.contains(node))
        .map(|&end| (end, &options.binaries.veth_pass));
    let unpacking = unpacking
        .iter()
        .map(|&node| ((node, "eth0"), &options.binaries.decapsulate));
    for ((node, device), object) in passing.chain(unpacking) {
        let mut ip = namespace(&options.prefix, node).command("ip")?;
        ip.args(["link", "set", "dev", device, "xdpdrv", "object"])
            .arg(object)
            .args(["section", "xdp"])
            .env("TC_BPF_MNT", &filesystem);
        run(&mut ip)?;
    }
    Ok(())
}

/// Whether this kernel has IPv6. Where it has not, the lab is one of IPv4 only.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// No host asks for a better way to where it sends to: answers take another way on purpose.
const IPV4: [(&str, &str); 2] = [
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
];

/// What was lost twice and thrice is sent again no later than what was lost once (Linux 6.15). Servers have it from the
/// beginning: connections have it from the socket that listened.
const SENDS_AGAIN: [(&str, &str); 1] = [("ipv4/tcp_rto_max_ms", "1000")];

/// Neither duplicates nor routers are looked for, so that few packets are sent but those that were asked for: what remains
/// is resolving neighbours, and MLD when an address appears.
const IPV6: [(&str, &str); 8] = [
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
];

const IPV4_ROUTER: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
];

/// Having an address that is another host's to the network: nobody is told about it.
const QUIET_ABOUT_VIPS: [(&str, &str); 2] = [
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
];

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
