//! How connections are shared among servers, with real ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, LabOptions, Mode, Node, ServiceText, TRANSFER_PORT, run, wait_for};
use xtask::transfer::Protocol;
use xtask::transfer::client::{Connection, Datagrams};

use super::{FAMILIES, Vips};
use crate::support::lbctl::lbctl;
use crate::support::shared::Shared;
use crate::support::{measured, site};

pub(super) fn cases(lab: &Shared) -> Vec<Case> {
    let case = |name: &str, test: fn(&mut Lab) -> Result<()>| {
        let lab = lab.clone();
        Case::new(format!("policies/schedulers/{name}"), move || lab.with(test))
    };
    vec![
        case(
            "source_hash_keeps_a_client_on_one_server",
            clients_stay_on_one_server,
        ),
        case("least_connections_evens_out", least_connections_evens_out),
        case("backup_stands_in", backup_stands_in),
        case("slow_start_grows", slow_start_grows),
    ]
}

/// How long a backend may take to be seen down or up.
const NOTICED: Duration = Duration::from_secs(10);

/// Services of the VIPs whose pings the kernel answers: both choose by the client's address.
const AFFINE: [(&str, u16); 2] = [("affine-http", 80), ("affine-https", 443)];
/// VIP's port and servers' port.
const LEAST: (u16, u16) = (7101, TRANSFER_PORT);
const BACKUP: (u16, u16) = (7102, TRANSFER_PORT + 1);
const SLOW: (u16, u16) = (7103, TRANSFER_PORT + 2);
const SLOW_START: Duration = Duration::from_secs(8);

pub(super) fn add_services(options: &mut LabOptions, family: Vips) {
    for (name, port) in AFFINE {
        let name = format!("{name}-{}", family.name);
        let mut service = ServiceText::new(&name, family.other, port, Protocol::Tcp, Mode::Nat);
        service.lines = "scheduler = \"source-hash\"\nanswer_ping = false\n".to_owned();
        options.add_service(&service);
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let named = |name: &str| format!("{name}-{}", protocol.name());
        family.add_service(
            options,
            (&named("least"), protocol),
            LEAST,
            "scheduler = \"least-connections\"\n",
            [""; 2],
        );
        family.add_service(
            options,
            (&named("backup"), protocol),
            BACKUP,
            "",
            ["", "backup = true\n"],
        );
    }
    let slow_start = format!("slow_start = \"{}s\"\n", SLOW_START.as_secs());
    family.add_service(options, ("slow", Protocol::Tcp), SLOW, &slow_start, [""; 2]);
}

/// HTTP and HTTPS requests from many addresses: each address has its server, by both ports, and not all have the same.
fn clients_stay_on_one_server(lab: &mut Lab) -> Result<()> {
    const CLIENTS: u8 = 16;
    for family in FAMILIES {
        let mut split = BTreeMap::<_, u32>::new();
        for number in 0..CLIENTS {
            let (address, prefix): (IpAddr, u8) = if family.first.is_ipv4() {
                ([198, 18, 0, 50 + number].into(), 24)
            } else {
                (
                    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50 + u16::from(number)].into(),
                    64,
                )
            };
            let shown = format!("{address}/{prefix}");
            let mut ip = lab.command(Node::Client, "ip")?;
            ip.args(["address", "add", &shown, "dev", "eth0"]);
            if address.is_ipv6() {
                ip.arg("nodad");
            }
            run(&mut ip)?;
            let servers = lab.namespace(Node::Client).run(|| {
                // By whose connection count grows: HTTP does not say who answers.
                AFFINE
                    .iter()
                    .map(|(service, port)| {
                        let name = format!("{service}-{}", family.name);
                        let before = opened(lab, &name)?;
                        for _ in 0..3 {
                            Connection::open_from((address, 0).into(), (family.other, *port).into())?;
                        }
                        let after = opened(lab, &name)?;
                        let grown: Vec<_> = after
                            .into_iter()
                            .filter(|(server, count)| before.get(server) != Some(count))
                            .map(|(server, count)| {
                                (server.clone(), count - before.get(&server).unwrap_or(&0))
                            })
                            .collect();
                        match &grown[..] {
                            [(server, 3)] => Ok(server.clone()),
                            grown => anyhow::bail!("{address} by {name}: {grown:?}"),
                        }
                    })
                    .collect::<Result<Vec<_>>>()
            })?;
            ensure!(servers[0] == servers[1], "{address} is on {servers:?}");
            *split.entry(servers[0].clone()).or_default() += 1;
        }
        measured(&format!(
            "{}: {CLIENTS} clients, by http and https: {split:?}",
            family.name
        ));
        ensure!(split.len() == 2, "all on one: {split:?}");
    }
    Ok(())
}

fn opened(lab: &Lab, service: &str) -> Result<BTreeMap<String, u64>> {
    let backends = site::service(lab, service)?.backends;
    Ok(backends
        .into_iter()
        .map(|backend| (backend.name, backend.traffic.opened))
        .collect())
}

/// Whoever loses connections gets the next ones.
fn least_connections_evens_out(lab: &mut Lab) -> Result<()> {
    const HELD: usize = 20;
    for family in FAMILIES {
        let to = SocketAddr::new(family.first, LEAST.0);
        let service = format!("least-tcp-{}", family.name);
        let mut held = (0..HELD)
            .map(|_| Named::open(lab, to))
            .collect::<Result<Vec<_>>>()?;
        let split = split(&held);
        ensure!(split == [HELD / 2, HELD / 2], "{split:?} at first");
        held.retain(|one| one.server == Node::Web2.name());
        // The daemon counts once a second.
        wait_for("the connections to end", Duration::from_secs(5), || {
            let open = connections(lab, &service).map_err(|error| format!("{error:#}"))?;
            if open == [0, HELD as u64 / 2] {
                Ok(())
            } else {
                Err(format!("{open:?}"))
            }
        })?;
        std::thread::sleep(Duration::from_millis(1200));
        for _ in 0..HELD / 2 {
            held.push(Named::open(lab, to)?);
        }
        let split = self::split(&held);
        measured(&format!("{service}: {split:?} after those of web1 had ended"));
        ensure!(split[0].abs_diff(split[1]) <= 1, "{split:?} in the end");
    }
    Ok(())
}

fn connections(lab: &Lab, service: &str) -> Result<Vec<u64>> {
    let backends = site::service(lab, service)?.backends;
    Ok(backends
        .iter()
        .map(|backend| backend.traffic.connections)
        .collect())
}

/// A connection that stays open, and its server.
struct Named {
    _connection: Connection,
    server: String,
}

impl Named {
    fn open(lab: &Lab, to: SocketAddr) -> Result<Self> {
        lab.namespace(Node::Client).run(|| {
            let mut connection = Connection::open(to)?;
            let server = connection.ping(0)?.server;
            Ok(Self {
                _connection: connection,
                server,
            })
        })
    }
}

fn split(held: &[Named]) -> [usize; 2] {
    Node::WEB.map(|node| held.iter().filter(|one| one.server == node.name()).count())
}

/// Who answers so many connections, one after the other.
fn servers(lab: &Lab, protocol: Protocol, to: SocketAddr, count: usize) -> Result<[usize; 2]> {
    let mut servers = [0; 2];
    for _ in 0..count {
        let server = lab.namespace(Node::Client).run(|| match protocol {
            Protocol::Tcp => Ok(Connection::open(to)?.ping(1)?.server),
            Protocol::Udp => Ok(Datagrams::open_from(fresh_port(to), to)?.ping(1, 10)?.server),
        })?;
        let number = Node::WEB.iter().position(|node| node.name() == server);
        servers[number.with_context(|| format!("{server} answered"))?] += 1;
    }
    Ok(servers)
}

/// A client's address with a port that no test has had, below those that the kernel chooses: a datagram from a port that was
/// used a moment ago goes where those before it went.
fn fresh_port(to: SocketAddr) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let any = if to.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(any, NEXT.fetch_add(1, Relaxed))
}

/// The backup gets nothing, then everything, then nothing.
fn backup_stands_in(lab: &mut Lab) -> Result<()> {
    for (web1_runs, wanted) in [(true, [6, 0]), (false, [0, 6]), (true, [6, 0])] {
        if web1_runs {
            lab.start_app(Node::Web1)?;
        } else {
            lab.stop_app(Node::Web1)?;
        }
        for family in FAMILIES {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let service = format!("backup-{}-{}", protocol.name(), family.name);
                site::wait_for_backend(lab, &service, "web1", NOTICED, |it| it.eligible == web1_runs)?;
                let split = servers(lab, protocol, (family.first, BACKUP.0).into(), 6)?;
                ensure!(
                    split == wanted,
                    "{service}: {split:?} with web1 running: {web1_runs}"
                );
            }
        }
    }
    let page = lbctl(lab, &["status"])?.out;
    ensure!(page.contains("backup"), "{page}");
    Ok(())
}

/// A server that has recovered gets little at first, and its whole share in the end, which `lbctl` shows.
fn slow_start_grows(lab: &mut Lab) -> Result<()> {
    const CONNECTIONS: usize = 22;
    lab.stop_app(Node::Web1)?;
    for family in FAMILIES {
        let service = format!("slow-{}", family.name);
        site::wait_for_backend(lab, &service, "web1", NOTICED, |it| !it.eligible)?;
    }
    lab.start_app(Node::Web1)?;
    let mut recovering = Vec::new();
    for family in FAMILIES {
        let service = format!("slow-{}", family.name);
        let recovered = site::wait_for_backend(lab, &service, "web1", NOTICED, |it| it.eligible)?;
        let page = lbctl(lab, &["service", "show", &service])?.out;
        let at_first = servers(lab, Protocol::Tcp, (family.first, SLOW.0).into(), CONNECTIONS)?;
        let percent = recovered.slow_start_percent;
        ensure!(percent.is_some_and(|percent| percent < 50), "{recovered:?}");
        ensure!(
            page.contains("slow start 8s") && page.contains("up, at "),
            "{page}"
        );
        ensure!(
            at_first[0] * 2 < at_first[1],
            "{service}: {at_first:?} at {percent:?} %"
        );
        recovering.push((family, service, at_first, Instant::now()));
    }
    for (family, service, at_first, began) in recovering {
        site::wait_for_backend(lab, &service, "web1", SLOW_START + NOTICED, |it| {
            it.eligible && it.slow_start_percent.is_none()
        })?;
        let in_the_end = servers(lab, Protocol::Tcp, (family.first, SLOW.0).into(), CONNECTIONS)?;
        measured(&format!(
            "{service}: {at_first:?} at first, {in_the_end:?} after {:.1} s",
            began.elapsed().as_secs_f32()
        ));
        ensure!(in_the_end == [CONNECTIONS / 2; 2], "{in_the_end:?} in the end");
    }
    Ok(())
}
