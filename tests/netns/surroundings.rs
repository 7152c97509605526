//! What there is around a balancer beside clients and servers that do as expected: servers that are clients themselves, of
//! their own service and of others, the balancer's host, a router that is replaced. For each lab of `modes`, and one more.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::harness::Case;
use lb_tests::programs;
use xtask::lab::{
    Backends, LB_INTERFACES, Lab, Mode, Node, ServiceText, TRANSFER_PORT, Topology, VIP6, run, wait_for,
};
use xtask::transfer::Protocol;
use xtask::transfer::client::{Connection, Datagrams, Direction};

use crate::support::counted::outcome;
use crate::support::kind::Kind;
use crate::support::link::mac;
use crate::support::shared::Shared;
use crate::support::{measured, site};

/// Further tests of a lab with this topology and mode, in which every kind has a service at [`TRANSFER_PORT`].
pub(crate) fn of_lab(lab: &Shared, topology: Topology, mode: Mode) -> Vec<Case> {
    let case = |name: &str, test: fn(&mut Lab, Topology, Mode) -> Result<()>| {
        let lab = lab.clone();
        let name = format!("modes/{}/{}/{name}", topology.name(), mode.name());
        Case::new(name, move || lab.with(|lab| test(lab, topology, mode)))
    };
    let mut cases = vec![case("the_host_is_refused_at_its_own_vip", host_is_refused)];
    // With one arm and `nat` a server answers another one directly, past the balancer: no connection comes about.
    if (topology, mode) != (Topology::L2, Mode::Nat) {
        cases.push(case(
            "servers_are_clients_of_their_own_service",
            servers_are_clients,
        ));
    }
    cases
}

/// The tests that need a lab of their own.
pub(crate) fn cases() -> Vec<Case> {
    let lab = Shared::planned("lb-t-around", |options| {
        for (vip, protocol) in
            Kind::all(Topology::Routed, Mode::Nat).map(|kind| (kind.family.vip(), kind.protocol))
        {
            let family = if vip.is_ipv4() { "ipv4" } else { "ipv6" };
            let name = format!("busy-{family}-{}", protocol.name());
            let mut service = ServiceText::new(&name, vip, BUSY_PORT, protocol, Mode::Nat);
            service.backends = Backends::UnprobedWebServers;
            options.add_service(&service);
        }
        options.add_service(&ServiceText::new("www6", VIP6, 443, Protocol::Tcp, Mode::Nat));
        Ok(())
    });
    let with = |test: fn(&mut Lab) -> Result<()>| {
        let lab = lab.clone();
        move || lab.with(test)
    };
    vec![
        Case::new(
            "surroundings/servers_call_out_from_a_service_port",
            with(servers_call_out),
        ),
        Case::new(
            "surroundings/probes_are_nobodys_connections",
            with(probes_are_nobodys),
        ),
        Case::new(
            "surroundings/ipv6_vip_is_advertised",
            with(ipv6_vip_is_advertised),
        ),
    ]
}

/// From the balancer's own host, where the VIP is a local address and nobody listens.
fn host_is_refused(lab: &mut Lab, topology: Topology, mode: Mode) -> Result<()> {
    for kind in Kind::all(topology, mode) {
        let to = kind.to(TRANSFER_PORT);
        let started = Instant::now();
        let error = lab.namespace(Node::Lb).run(|| match kind.protocol {
            Protocol::Tcp => Ok(TcpStream::connect_timeout(&to, Duration::from_secs(2)).err()),
            Protocol::Udp => {
                let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                socket.send(b"ping 1\n")?;
                Ok(socket.recv(&mut [0; 100]).err())
            }
        })?;
        let took = started.elapsed();
        let error = error.with_context(|| format!("{} was answered", kind.slug()))?;
        ensure!(
            error.kind() == std::io::ErrorKind::ConnectionRefused && took < Duration::from_millis(500),
            "{}: {error} after {took:?}",
            kind.slug()
        );
    }
    Ok(())
}

/// With `nat` the other one answers, with `full-nat` whoever's turn it is, and a server that has the VIP talks to itself.
fn servers_are_clients(lab: &mut Lab, topology: Topology, mode: Mode) -> Result<()> {
    for kind in Kind::all(topology, mode) {
        for (node, other) in [(Node::Web1, Node::Web2), (Node::Web2, Node::Web1)] {
            let mut own = 0;
            for sequence in 0..6 {
                let server = ask(lab, node, kind.protocol, kind.to(TRANSFER_PORT), sequence)
                    .with_context(|| format!("{} from {node}", kind.slug()))?;
                ensure!(server == node.name() || server == other.name(), "{server}");
                own += u32::from(server == node.name());
            }
            let wanted = match mode {
                Mode::Nat => 0,
                Mode::FullNat => 3,
                Mode::Dsr | Mode::Ipip => 6,
            };
            ensure!(
                own == wanted,
                "{} from {node}: {own} of 6 answered by itself",
                kind.slug()
            );
        }
    }
    Ok(())
}

/// The server that answers a node.
fn ask(lab: &Lab, node: Node, protocol: Protocol, to: SocketAddr, sequence: u64) -> Result<String> {
    lab.namespace(node).run(|| match protocol {
        Protocol::Tcp => Ok(Connection::open(to)?.ping(sequence)?.server),
        Protocol::Udp => Ok(Datagrams::open(to)?.ping(sequence, 100)?.server),
    })
}

const NEW_MAC: &str = "02:00:00:00:aa:02";
/// For as long a connection is used, and after so long the router is replaced.
const BUSY: Duration = Duration::from_millis(2500);
const REPLACED_AFTER: Duration = Duration::from_millis(700);
/// What a connection carries at a time.
const PIECE: u64 = 500_000;
/// Nothing may take longer: less than it takes to send a lost packet again and again.
const STALL: Duration = Duration::from_secs(1);

/// The router between client and balancer has another MAC address from now on, as if another one had taken over, while
/// packets of the client's are on their long way to it. Answers go to whoever the client's last packet came from; the
/// balancer's kernel goes on believing in the old one. Of a lab with that topology in which answers pass the balancer.
pub(crate) fn router_gets_another_mac(lab: &mut Lab, mode: Mode) -> Result<()> {
    let old = mac(lab, Node::Router, ROUTERS_END)?;
    let gateways = [
        IpAddr::from(lab.address(Node::Router)),
        lab.address6(Node::Router).into(),
    ]
    .map(|it| it.to_string());
    for gateway in &gateways {
        let believe = [
            "neighbour",
            "replace",
            gateway,
            "lladdr",
            &old,
            "dev",
            "uplink",
            "nud",
            "permanent",
        ];
        run(lab.command(Node::Lb, "ip")?.args(believe))?;
    }
    let lab = &*lab;
    let slowest = thread::scope(|scope| {
        let users: Vec<_> = Kind::all(Topology::Routed, mode)
            .map(|kind| scope.spawn(move || stay_busy(lab, kind).with_context(|| kind.slug())))
            .collect();
        thread::sleep(REPLACED_AFTER);
        set_mac(lab, NEW_MAC)?;
        users
            .into_iter()
            .map(|user| user.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<_>>>()
    });
    set_mac(lab, &old)?;
    for gateway in &gateways {
        run(lab
            .command(Node::Lb, "ip")?
            .args(["neighbour", "delete", gateway, "dev", "uplink"]))?;
    }
    let slowest = slowest?;
    measured(&format!(
        "the slowest of all pieces, of each kind: {} ms",
        slowest
            .iter()
            .map(|it| it.as_millis().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    ));
    ensure!(slowest.iter().all(|slowest| *slowest < STALL), "{slowest:?}");
    Ok(())
}

/// The router's end of its wire to the balancer.
const ROUTERS_END: &str = "lb";

fn set_mac(lab: &Lab, mac: &str) -> Result<()> {
    run(lab
        .command(Node::Router, "ip")?
        .args(["link", "set", ROUTERS_END, "address", mac]))
    .map(drop)
}

/// Uses one connection again and again: how long the slowest time took.
fn stay_busy(lab: &Lab, kind: Kind) -> Result<Duration> {
    lab.namespace(Node::Client).run(|| {
        let (to, began) = (kind.to(TRANSFER_PORT), Instant::now());
        let mut slowest = Duration::ZERO;
        let mut note = |report: xtask::transfer::client::Report| slowest = slowest.max(report.elapsed);
        match kind.protocol {
            Protocol::Tcp => {
                let mut connection = Connection::open(to)?;
                connection.set_patience(Duration::from_secs(10))?;
                while began.elapsed() < BUSY {
                    note(connection.get(PIECE)?);
                }
            }
            Protocol::Udp => {
                let mut datagrams = Datagrams::open(to)?;
                while began.elapsed() < BUSY {
                    note(datagrams.transfer(Direction::Get, PIECE, Datagrams::BLOCK)?);
                }
            }
        }
        Ok(slowest)
    })
}

/// The servers' port of the busy services, where nobody listens: the servers themselves call others from it.
const BUSY_PORT: u16 = 9100;

/// A server that talks to others from the very port that a service has it under: its packets are nobody's answers, and pass.
fn servers_call_out(lab: &mut Lab) -> Result<()> {
    let client = [
        IpAddr::from(lab.address(Node::Client)),
        lab.address6(Node::Client).into(),
    ];
    let mut command = lab.command(Node::Client, programs::of_the_lab()?.xtask)?;
    command.args(["lab-app", "--name", "client", "--listen", "127.0.0.1:8080"]);
    for address in client {
        command
            .arg("--transfer")
            .arg(SocketAddr::new(address, TRANSFER_PORT).to_string());
    }
    lab.start_process("client-app", &mut command, "client-app.log")?;
    for address in client {
        let to = SocketAddr::new(address, TRANSFER_PORT);
        wait_for("the client's server", Duration::from_secs(5), || {
            lab.can_connect(Node::Client, &to.to_string())
        })?;
        for node in Node::WEB {
            let own = if address.is_ipv4() {
                SocketAddr::new(lab.address(node).into(), BUSY_PORT)
            } else {
                SocketAddr::new(lab.address6(node).into(), BUSY_PORT)
            };
            let before = outcome(lab, "no_connection")?;
            lab.namespace(node).run(|| {
                let mut connection = Connection::open_from(own, to)?;
                let reports = [
                    connection.get(PIECE)?,
                    connection.put(PIECE)?,
                    Datagrams::open_from(own, to)?.transfer(Direction::Get, PIECE, Datagrams::BLOCK)?,
                ];
                for report in reports {
                    ensure!(
                        report.server == "client" && report.peer == own,
                        "{report:?}, not from {own}"
                    );
                }
                Ok(())
            })?;
            let passed = outcome(lab, "no_connection")? - before;
            ensure!(
                passed > 10,
                "{own}: only {passed} packets passed as no_connection"
            );
        }
    }
    lab.stop_process("client-app").map(drop)
}

/// The daemon probes the endpoints that the program looks for answers from: they reach the daemon, and are nobody's.
fn probes_are_nobodys(lab: &mut Lab) -> Result<()> {
    let before = outcome(lab, "no_connection")?;
    let lb = [IpAddr::from(lab.address(Node::Lb)), lab.address6(Node::Lb).into()];
    thread::sleep(Duration::from_millis(1200));
    let passed = outcome(lab, "no_connection")? - before;
    // Two services with two servers, each at least twice, by SYN+ACK and FIN.
    ensure!(passed >= 16, "only {passed} packets of probes have passed");
    let listed: lb::api::types::Connections = crate::support::lbctl::json(lab, &["connection", "list"])?;
    ensure!(
        listed
            .connections
            .iter()
            .all(|connection| !lb.contains(&connection.client)),
        "{listed:?}"
    );
    for service in ["www", "www-http"] {
        for backend in site::service(lab, service)?.backends {
            ensure!(
                backend.eligible && backend.traffic.packets_out == 0,
                "{backend:?}"
            );
        }
    }
    Ok(())
}

/// A router that has the VIP on its own link, and believes it to be at another host.
fn ipv6_vip_is_advertised(lab: &mut Lab) -> Result<()> {
    let vip = VIP6.to_string();
    let own = mac(lab, Node::Lb, LB_INTERFACES[0])?;
    let believed = |lab: &Lab| {
        run(lab
            .command(Node::Router, "ip")?
            .args(["neighbour", "show", &vip, "dev", ROUTERS_END]))
    };
    run(lab
        .command(Node::Router, "ip")?
        .args(["route", "replace", &vip, "dev", ROUTERS_END]))?;
    // Resolved by asking.
    let requests = lab.https_requests(VIP6, 4);
    ensure!(believed(lab)?.contains(&own), "{}", believed(lab)?);
    let requests = requests?;
    ensure!(requests.failures.is_empty(), "{requests:?}");

    ensure!(lab.stop_lbd()?, "lbd was not running");
    let wrong = [
        "neighbour",
        "replace",
        &vip,
        "lladdr",
        NEW_MAC,
        "dev",
        "lb",
        "nud",
        "reachable",
    ];
    run(lab.command(Node::Router, "ip")?.args(wrong))?;
    lab.start_lbd()?;
    // Told without having asked.
    wait_for("the advertisement", Duration::from_secs(2), || {
        let believed = believed(lab).map_err(|error| format!("{error:#}"))?;
        if believed.contains(&own) {
            Ok(())
        } else {
            Err(format!("the router believes {believed:?}, not {own}"))
        }
    })?;
    lab.wait_until_all_up(Duration::from_secs(5))?;
    let requests = lab.https_requests(VIP6, 4)?;
    ensure!(requests.failures.is_empty(), "{requests:?}");
    Ok(())
}
