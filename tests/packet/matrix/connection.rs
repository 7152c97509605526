//! A connection from its first packet to its last.

use anyhow::ensure;
use lb_common::outcome::Outcome;
use lb_common::tcp_state::State;
use lb_tests::harness::Case;

use super::{each, established, within_a_tick};
use crate::kind::{Kind, OWN_PORTS};
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(Kind::all(), "from_the_first_packet_to_the_last", connection),
        each(Kind::all(), "several_servers", several_servers),
        each(
            Kind::all(),
            "answers_that_go_past_the_balancer_are_left_alone",
            past_the_balancer,
        ),
        each(Kind::all(), "out_of_the_interface_that_it_came_in_by", one_armed),
        each(
            Kind::answered(),
            "from_elsewhere_on_the_backends_host",
            not_the_service,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn connection(kind: Kind) -> anyhow::Result<usize> {
    within_a_tick(kind, whole_connection)
}

fn whole_connection(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    if kind.is_stateless() {
        stateless(&world, &talk)?;
    } else if kind.is_tcp() && kind.is_answered() {
        tcp(&world, &talk)?;
    } else if kind.is_tcp() {
        one_sided_tcp(&world, &talk)?;
    } else {
        udp(&world, &talk)?;
    }
    Ok(world.checked())
}

fn state(world: &World, talk: &Talk, expected: State) -> anyhow::Result<()> {
    let connection = world.connection(talk.client)?;
    ensure!(
        (connection.service, connection.backend) == (1, talk.backend.id),
        "{connection:?}"
    );
    ensure!(connection.state == expected, "{connection:?}, not {expected:?}");
    Ok(())
}

fn tcp(world: &World, talk: &Talk) -> anyhow::Result<()> {
    world.open("SYN", talk)?;
    state(world, talk, State::SynSeen)?;
    world.forward("the same SYN again", talk, talk.client_opens())?;
    world.answer("SYN-ACK", talk, talk.backend_accepts())?;
    state(world, talk, State::SynAckSeen)?;
    world.forward("ACK", talk, talk.client_says(b""))?;
    state(world, talk, State::Established)?;
    world.forward("request", talk, talk.client_says(b"GET / HTTP/1.1\r\n"))?;
    world.answer("response", talk, talk.backend_says(b"HTTP/1.1 200 OK"))?;
    world.forward("FIN", talk, talk.client_says(b"").fin())?;
    state(world, talk, State::ClientFin)?;
    world.answer("the rest of a download", talk, talk.backend_says(&[7; 1400]))?;
    state(world, talk, State::ClientFin)?;
    world.answer("FIN", talk, talk.backend_says(b"").fin())?;
    state(world, talk, State::Closed)?;
    world.forward("last ACK", talk, talk.client_says(b""))?;
    state(world, talk, State::Closed)
}

/// The backend's answers do not come by here. (What traffic in a later tick does is in `state`.)
fn one_sided_tcp(world: &World, talk: &Talk) -> anyhow::Result<()> {
    world.open("SYN", talk)?;
    state(world, talk, State::SynSeen)?;
    world.forward("ACK", talk, talk.client_says(b""))?;
    state(world, talk, State::Unconfirmed)?;
    world.forward("request", talk, talk.client_says(b"GET / HTTP/1.1\r\n"))?;
    state(world, talk, State::Unconfirmed)?;
    world.forward("an ACK of the response", talk, talk.client_says(b""))?;
    state(world, talk, State::Established)?;
    world.forward("FIN", talk, talk.client_says(b"").fin())?;
    state(world, talk, State::ClientFin)?;
    world.forward("last ACK", talk, talk.client_says(b""))?;
    world.forward("RST", talk, talk.client_sends().rst())?;
    state(world, talk, State::Reset)
}

fn udp(world: &World, talk: &Talk) -> anyhow::Result<()> {
    world.open("the first datagram", talk)?;
    state(world, talk, State::Unconfirmed)?;
    world.forward("another one", talk, talk.client_says(b"query"))?;
    state(world, talk, State::Unconfirmed)?;
    if talk.is_answered() {
        world.answer("an answer", talk, talk.backend_says(b"answer"))?;
        state(world, talk, State::SynAckSeen)?;
        world.answer("another one", talk, talk.backend_says(b"more"))?;
        state(world, talk, State::SynAckSeen)?;
        world.forward("the client goes on", talk, talk.client_says(&[1; 1400]))?;
        state(world, talk, State::Established)?;
        world.answer("and on", talk, talk.backend_says(&[2; 1400]))?;
        world.answer("without payload", talk, talk.backend_says(b""))?;
    }
    world.forward("without payload", talk, talk.client_says(b""))?;
    world.forward("and on", talk, talk.client_says(b"on"))?;
    state(world, talk, State::Established)
}

fn stateless(world: &World, talk: &Talk) -> anyhow::Result<()> {
    for payload in [&b"first"[..], b"", &[9; 1400]] {
        world.forward("a datagram", talk, talk.client_says(payload))?;
        if talk.is_answered() {
            world.answer("an answer", talk, talk.backend_says(payload))?;
        }
    }
    assert_eq!(world.connections()?, [], "nothing is remembered");
    Ok(())
}

/// Each connection keeps its own, whatever the others do.
fn several_servers(kind: Kind) -> anyhow::Result<usize> {
    const SERVERS: u8 = 3;
    let world = World::new(&[kind.service(SERVERS)])?;
    let mut talks = Vec::new();
    for number in 0..9u8 {
        let talk = |server| {
            let talk = kind.talk(number.into(), server);
            let first = talk.own_port;
            talk.by_own_port(first + u16::from(number / SERVERS) % OWN_PORTS)
        };
        let server = if kind.is_stateless() {
            world.server_of(&talk(1).client_opens())?
        } else {
            number % SERVERS + 1
        };
        let talk = talk(server);
        world.establish(&talk)?;
        talks.push(talk);
    }
    for talk in talks.iter().chain(talks.iter().rev()) {
        world.both("all at once", talk, |frame| frame)?;
    }
    Ok(world.checked())
}

/// What backends send in the VIP's name, and what others send to clients, is nobody's business here.
fn past_the_balancer(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let from_vip = talk
        .client_sends()
        .with_source(talk.vip)
        .with_destination(talk.client);
    world.unchanged("from the VIP", Outcome::NotOurs, &from_vip)?;
    let mut elsewhere = talk.vip;
    elsewhere.set_port(9);
    let other_port = talk.client_sends().with_destination(elsewhere);
    world.unchanged("to another port of the VIP", Outcome::NotOurs, &other_port)?;
    if !kind.is_answered() && kind.is_ipv4() == kind.is_inside_ipv4() {
        let mut direct = talk.client_sends();
        direct.packet.set_destination(talk.backend.endpoint);
        world.unchanged("to the backend itself", Outcome::NotOurs, &direct)?;
        direct.packet.set_source(talk.backend.endpoint);
        direct.packet.set_destination(talk.client);
        world.unchanged("from the backend itself", Outcome::NotOurs, &direct)?;
    }
    Ok(world.checked())
}

/// The backends are behind the interface that the clients are behind.
fn one_armed(kind: Kind) -> anyhow::Result<usize> {
    let mut service = kind.service(1);
    let hop = service.backends[0].next_hop.as_mut().expect("it has one");
    hop.interface_index = crate::world::INGRESS;
    let world = World::new(&[service])?;
    let talk = kind.talk(1, 1);
    let first = talk.client_opens();
    let expected = Seen::opening(&talk, &first).transmitted();
    world.expect("the first packet", &first.bytes(), &expected)?;
    let next = talk.client_says(b"more");
    let expected = Seen::to_backend(&talk, &next).transmitted();
    world.expect("another one", &next.bytes(), &expected)?;
    if talk.is_answered() {
        world.answer("an answer", &talk, talk.backend_accepts())?;
    }
    Ok(world.checked())
}

/// Answers to the balancer's own probes and to direct access, connections that the backend opens itself from its service's
/// port, and what comes from its other ports.
fn not_the_service(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let before = world.connections()?;
    let probe = Talk {
        client: kind.client(7777),
        ..talk.clone()
    };
    let from_endpoint = |frame: crate::frame::Frame| frame.with_destination(probe.client);
    let outcome = if kind.is_stateless() {
        // Who it is for cannot be told from a client.
        Outcome::ToClientStateless
    } else {
        Outcome::NoConnection
    };
    if kind.is_stateless() {
        world.answer("to whom we never heard of", &probe, probe.backend_says(b"!"))?;
    } else {
        for (purpose, frame) in [
            ("the answer to a probe", from_endpoint(talk.backend_accepts())),
            ("and its end", from_endpoint(talk.backend_says(b"bye"))),
            (
                "it opens a connection itself",
                from_endpoint(talk.backend_sends().payload(b"x")),
            ),
        ] {
            world.unchanged(purpose, outcome, &frame)?;
        }
    }
    if kind.flavour != crate::kind::Flavour::Range {
        let mut port = talk.server();
        port.set_port(22);
        let other_port = talk.backend_says(b"login:").with_source(port);
        world.unchanged("from another port of the backend", Outcome::NotOurs, &other_port)?;
    }
    let after = world.connections()?;
    let clients = |table: &[lb::dataplane::Connection]| table.iter().map(|c| c.client).collect::<Vec<_>>();
    assert_eq!(clients(&after), clients(&before), "nothing of this is remembered");
    world.both("the connection goes on", &talk, |frame| frame)?;
    Ok(world.checked())
}
