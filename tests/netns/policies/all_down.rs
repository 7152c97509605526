//! What a client sees when no server is left: a refusal at once, silence, or the servers' own answer.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, LabOptions, Node, TRANSFER_PORT};
use xtask::transfer::Protocol;

use super::{FAMILIES, Vips};
use crate::support::counted::outcome;
use crate::support::shared::Shared;
use crate::support::{measured, site};

pub(super) fn cases(lab: &Shared) -> Vec<Case> {
    let lab = lab.clone();
    vec![Case::new("policies/all_down/clients_see_the_policy", move || {
        lab.with(clients_see_the_policy)
    })]
}

/// A policy as the configuration has it, its port, and what a client sees.
const POLICIES: [(&str, u16, Sees); 3] = [
    ("refuse", 7111, Sees::Refusal("refused_no_backend")),
    ("drop", 7112, Sees::Nothing("dropped_no_backend")),
    // The servers' hosts are there, only nobody listens.
    ("keep-sending", 7113, Sees::Refusal("to_backend")),
];
const BACKEND_PORT: u16 = TRANSFER_PORT + 3;

/// What a client sees, and the outcome that its packets have.
#[derive(Clone, Copy)]
enum Sees {
    Refusal(&'static str),
    Nothing(&'static str),
}

/// Before this a refusal must have come.
const AT_ONCE: Duration = Duration::from_millis(500);
/// So long a client waits that is not answered.
const PATIENCE: Duration = Duration::from_millis(1500);

pub(super) fn add_services(options: &mut LabOptions, family: Vips) {
    for (policy, port, _) in POLICIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let name = format!("{policy}-{}", protocol.name());
            let lines = format!("when_all_down = \"{policy}\"\n");
            family.add_service(options, (&name, protocol), (port, BACKEND_PORT), &lines, [""; 2]);
        }
    }
}

fn clients_see_the_policy(lab: &mut Lab) -> Result<()> {
    Node::WEB.iter().try_for_each(|&node| lab.stop_app(node))?;
    for (policy, ..) in POLICIES {
        for family in FAMILIES {
            for protocol in ["tcp", "udp"] {
                let service = format!("{policy}-{protocol}-{}", family.name);
                for node in Node::WEB {
                    let is_down = |backend: &lb::api::types::Backend| backend.health.status == "down";
                    site::wait_for_backend(lab, &service, node.name(), Duration::from_secs(10), is_down)?;
                }
            }
        }
    }
    for (policy, port, sees) in POLICIES {
        for family in FAMILIES {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let what = || format!("{policy} {} {}", protocol.name(), family.name);
                assert_seen(lab, protocol, (family.first, port).into(), sees).with_context(what)?;
            }
        }
    }
    Node::WEB.iter().try_for_each(|&node| lab.start_app(node))?;
    lab.wait_until_all_up(Duration::from_secs(10))
}

fn assert_seen(lab: &Lab, protocol: Protocol, to: SocketAddr, sees: Sees) -> Result<()> {
    let (Sees::Refusal(name) | Sees::Nothing(name)) = sees;
    let before = outcome(lab, name)?;
    let started = Instant::now();
    let error = lab.namespace(Node::Client).run(|| attempt(protocol, to))?;
    let took = started.elapsed();
    let counted = outcome(lab, name)? - before;
    measured(&format!(
        "{} to {to}: {error} after {} ms, {counted} {name}",
        protocol.name(),
        took.as_millis()
    ));
    ensure!(counted > 0, "{error} after {took:?}, but not by {name}");
    match sees {
        Sees::Refusal(_) => ensure!(
            error == ErrorKind::ConnectionRefused && took < AT_ONCE,
            "{error} after {took:?}"
        ),
        Sees::Nothing(_) => ensure!(
            matches!(error, ErrorKind::TimedOut | ErrorKind::WouldBlock) && took >= PATIENCE,
            "{error} after {took:?}"
        ),
    }
    Ok(())
}

/// How an attempt to get an answer fails.
fn attempt(protocol: Protocol, to: SocketAddr) -> Result<ErrorKind> {
    let failed = match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&to, PATIENCE).map(drop),
        Protocol::Udp => {
            let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"ping 1\n")?;
            socket.recv(&mut [0; 100]).map(drop)
        }
    };
    Ok(failed.err().context("it was answered")?.kind())
}
