//! What a user would have instead: HAProxy, nginx and nftables on the balancer's host, in front of the same web servers, each
//! with as many threads or processes as there are processors and otherwise as its documentation begins.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::candidate::{Candidate, HAPROXY_PORTS, STREAM_PORTS};
use super::labs::processors;
use crate::lab::{self, BODY_PORTS, Lab, Node, Topology, VIP, wait_for};
use crate::process;

/// The name of a peer's process in its lab, if it has one.
pub(super) fn process_name(candidate: Candidate) -> Option<&'static str> {
    match candidate {
        Candidate::HaProxy => Some("haproxy"),
        Candidate::NginxStream => Some("nginx-stream"),
        _ => None,
    }
}

/// Starts HAProxy.
pub(super) fn start_haproxy(lab: &mut Lab, topology: Topology) -> Result<()> {
    let mut text = format!(
        "global\n    maxconn 6000\n    nbthread {}\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n",
        processors()
    );
    let address = topology.address(Node::Lb);
    for (port, backend_port) in HAPROXY_PORTS.into_iter().zip(BODY_PORTS) {
        writeln!(
            text,
            "listen site-{port}\n    bind {address}:{port}\n    balance roundrobin"
        )?;
        for node in Node::WEB {
            writeln!(
                text,
                "    server {node} {}:{backend_port}",
                topology.address(node)
            )?;
        }
    }
    let file = lab.file("haproxy.cfg");
    fs::write(&file, text).context("cannot write HAProxy's configuration")?;
    let program = process::find("haproxy").unwrap_or_else(|| "haproxy".into());
    let mut command = lab.command(Node::Lb, program)?;
    lab.start_process("haproxy", command.arg("-db").arg("-f").arg(&file), "haproxy.log")?;
    wait_until_it_listens(lab, "HAProxy", &format!("{address}:{}", HAPROXY_PORTS[1]))
}

/// Starts nginx as a proxy.
pub(super) fn start_nginx_stream(lab: &mut Lab, topology: Topology) -> Result<()> {
    let directory = lab.file("stream");
    fs::create_dir_all(&directory).context("cannot make nginx's directory")?;
    let directory_name = directory.display();
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         worker_processes {};\nworker_rlimit_nofile 16384;\ndaemon off;\npid {directory_name}/nginx.pid;\n\
         events {{ worker_connections 8000; }}\nstream {{\n",
        processors()
    );
    let address = topology.address(Node::Lb);
    for (port, backend_port) in STREAM_PORTS.into_iter().zip(BODY_PORTS) {
        writeln!(text, "upstream site{port} {{")?;
        for node in Node::WEB {
            writeln!(text, "    server {}:{backend_port};", topology.address(node))?;
        }
        writeln!(
            text,
            "}}\nserver {{ listen {address}:{port} backlog=4096; proxy_pass site{port}; }}"
        )?;
    }
    text.push_str("}\n");
    let file = directory.join("nginx.conf");
    fs::write(&file, text).context("cannot write nginx's configuration")?;
    let program = process::find("nginx").unwrap_or_else(|| "nginx".into());
    let mut command = lab.command(Node::Lb, program)?;
    command.arg("-p").arg(&directory).arg("-c").arg(&file);
    command.arg("-e").arg(directory.join("error.log"));
    lab.start_process("nginx-stream", &mut command, "nginx-stream.log")?;
    wait_until_it_listens(lab, "nginx stream", &format!("{address}:{}", STREAM_PORTS[1]))
}

fn wait_until_it_listens(lab: &Lab, what: &str, target: &str) -> Result<()> {
    wait_for(what, Duration::from_secs(5), || {
        lab.can_connect(Node::Client, target)
    })
}

/// nftables' rules are there only while it is measured: as soon as there are any that translate, the kernel tracks every
/// connection of the host.
pub(super) fn load_nftables(lab: &Lab, topology: Topology) -> Result<()> {
    let [web1, web2] = Node::WEB.map(|node| topology.address(node));
    let mut text =
        "table ip balancer {\n  chain prerouting {\n    type nat hook prerouting priority dstnat;\n"
            .to_owned();
    let [http, https] = BODY_PORTS;
    writeln!(
        text,
        "    ip daddr {VIP} tcp dport {{ {http}, {https} }} \
         dnat to numgen inc mod 2 map {{ 0 : {web1}, 1 : {web2} }}\n  }}\n}}"
    )?;
    let file = lab.file("balancer.nft");
    fs::write(&file, text).context("cannot write nftables' rules")?;
    lab::run(lab.command(Node::Lb, "nft")?.arg("-f").arg(&file)).map(drop)?;
    // As an operator would who has many short connections: 120 s of each would fill the table.
    lab.namespace(Node::Lb)
        .sysctl(&[("netfilter/nf_conntrack_tcp_timeout_time_wait", "10")])
}

/// Takes the rules away.
pub(super) fn unload_nftables(lab: &Lab) -> Result<()> {
    lab::run(
        lab.command(Node::Lb, "nft")?
            .args(["delete", "table", "ip", "balancer"]),
    )
    .map(drop)
}
