//! `lbctl why` about connections that then are made.

use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result, ensure};
use lb::api::explain::Answer;
use lb::api::types::Connections;
use lb_tests::harness::Case;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use xtask::lab::{Node, VIP};

use crate::support::lbctl::{json, lbctl};
use crate::support::{connections, measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new(
        "why/says_where_connections_go",
        says_where_connections_go,
    )]
}

const FIRST_PORT: u16 = 41_000;
const CONNECTIONS: u16 = 20;

fn says_where_connections_go() -> Result<()> {
    let lab = site::up("lb-t-why")?;
    let (vip, client) = (SocketAddr::from((VIP, 80)), lab.address(Node::Client));
    let mut backends = std::collections::BTreeSet::new();
    for port in FIRST_PORT..FIRST_PORT + CONNECTIONS {
        let from = SocketAddr::from((client, port));
        let why = |more: &[&str]| {
            let (from, to) = (from.to_string(), vip.to_string());
            json::<Answer>(&lab, &[&["why", "tcp", &*from, &*to], more].concat())
        };
        // Asking twice, and for an answer that has nobody to come from, changes nothing.
        let before = why(&[])?;
        ensure!(before == why(&[])?, "asked twice: {before:?}");
        ensure!(says(&before, "connection") == "none", "{before:?}");
        ensure!(
            before.outcome == "to_backend" && before.action == "redirect",
            "{before:?}"
        );
        ensure!(
            before
                .service
                .as_ref()
                .is_some_and(|it| it.starts_with("www-http ")),
            "{before:?}"
        );
        let nobody = lbctl(
            &lab,
            &[
                "why",
                "tcp",
                &from.to_string(),
                &vip.to_string(),
                "--from-backend",
            ],
        )?;
        ensure!(nobody.code == 4, "{nobody:?}");

        let mut connection = lab.namespace(Node::Client).run(|| connect_from(port))?;
        let goes = before.backend.clone().context("no backend")?;
        let listed: Connections = json(&lab, &["connection", "list", "--client", &client.to_string()])?;
        let mut found = listed.connections.iter().filter(|it| it.client_port == port);
        let backend = &found.next().context("no connection")?.backend;
        ensure!(
            goes.starts_with(&format!("{backend} (")),
            "{goes} was said, {backend} it is"
        );
        backends.insert(backend.clone());

        let during = why(&[])?;
        ensure!(
            says(&during, "connection").starts_with("established with "),
            "{during:?}"
        );
        ensure!(during.backend == before.backend, "{during:?}");
        let answer = why(&["--from-backend"])?;
        ensure!(
            answer.outcome == "to_client" && answer.backend == before.backend,
            "{answer:?}"
        );
        ensure!(
            *answer.interface == **backend,
            "it comes by the interface to {backend}: {answer:?}"
        );
        ensure!(
            says(&answer, "rewrite").contains(&format!("becomes {vip}")),
            "{answer:?}"
        );
        connections::request(&mut connection)?;
    }
    ensure!(backends.len() == 2, "all went to {backends:?}");
    measured(&format!(
        "lbctl why was right about {CONNECTIONS} connections before, while they were there, and about their answers"
    ));
    let to_nobody = lbctl(&lab, &["why", "tcp", "198.18.0.2:40000", "203.0.113.10:4"])?;
    ensure!(
        to_nobody.code == 0 && to_nobody.out.contains("\nnot_ours: "),
        "{to_nobody:?}"
    );
    let elsewhere = lbctl(
        &lab,
        &[
            "why",
            "tcp",
            "198.18.0.2:40000",
            "203.0.113.10:80",
            "--interface",
            "eth7",
        ],
    )?;
    ensure!(
        elsewhere.code == 4 && elsewhere.err.contains("it is on uplink, web1, web2"),
        "{elsewhere:?}"
    );
    lab.down()
}

/// What is said about something, once.
fn says<'a>(answer: &'a Answer, about: &str) -> &'a str {
    let mut decisions = answer.decisions.iter();
    decisions.find(|it| it.about == about).map_or("", |it| &it.says)
}

/// A connection to the VIP's port 80 from a port of the client's.
fn connect_from(port: u16) -> Result<TcpStream> {
    let stream = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&stream, sockopt::ReuseAddr, &true)?;
    bind(stream.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    let vip = SocketAddrV4::new(VIP, 80);
    connect(stream.as_raw_fd(), &SockaddrIn::from(vip))?;
    Ok(TcpStream::from(stream))
}
