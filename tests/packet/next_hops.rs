//! Where packets leave to: by what the daemon resolved, by where the client's last packet came from, or by the kernel's
//! routing table.

use std::process::Command;

use anyhow::{Context as _, ensure};
use aya::maps::Array;
use lb::config::XdpMode;
use lb::dataplane::{BackendEntry, LoadOptions, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;
use nix::sched::{CloneFlags, unshare};

use crate::frame::{Frame, Talk, client};
use crate::world::{CLIENT, ROUTER_MAC, Seen, UPLINK_MAC, VIP, World, service, web, www};

pub fn cases() -> Vec<Case> {
    let in_namespace = |name: &str, run: fn() -> anyhow::Result<()>| {
        let alone = move || std::thread::spawn(move || namespace().and_then(|()| run())).join();
        let run = move || alone().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Case::new(name, run).needs(NetworkNamespaces)
    };
    vec![
        Case::new("next_hops::a_client_whose_router_changes", router_changes),
        Case::new("next_hops::clients_behind_different_routers", two_routers),
        in_namespace(
            "next_hops::back_by_the_interface_that_the_client_uses",
            interfaces,
        ),
        in_namespace(
            "next_hops::to_a_backend_by_the_routing_table",
            to_backend_by_route,
        ),
        in_namespace("next_hops::to_a_client_by_the_routing_table", to_client_by_route),
        in_namespace("next_hops::more_routers_than_can_be_remembered", too_many_routers),
        in_namespace("next_hops::answers_of_untracked_connections", untracked),
    ]
}

const OTHER_ROUTER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];

fn router_changes() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let before = Talk::new(CLIENT, 1);
    let after = Talk {
        router: OTHER_ROUTER,
        ..before.clone()
    };
    world.establish(&before)?;
    world.forward("by another router", &after, after.client_sends().ack())?;
    world.answer(
        "answered there",
        &after,
        after.backend_sends().ack().payload(b"1"),
    )?;
    world.answer("and there", &after, after.backend_sends().ack().payload(b"2"))?;
    world.forward("by the first again", &before, before.client_sends().ack())?;
    world.answer("answered there", &before, before.backend_sends().ack())?;
    // Also in the last segments, which change the entry's state as well.
    world.forward("FIN by another router", &after, after.client_sends().ack().fin())?;
    world.answer("FIN", &after, after.backend_sends().ack().fin())
}

fn two_routers() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let first = Talk::new(client(1), 1);
    let second = Talk {
        router: OTHER_ROUTER,
        ..Talk::new(client(2), 1)
    };
    world.establish(&first)?;
    world.establish(&second)?;
    for talk in [&first, &second, &first] {
        world.answer("each by his own", talk, talk.backend_sends().ack())?;
    }
    Ok(())
}

/// A router's two interfaces, in the calling thread's own network namespace. `web1` and the client have neighbour
/// entries, `web2` and client 2 have not, nothing else has a route.
fn namespace() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    sh("ip link set lo up
        ip link add uplink address 02:00:00:00:00:02 type veth peer name outside
        ip link add inside address 02:00:00:00:00:03 type veth peer name servers
        for device in uplink outside inside servers; do ip link set $device up; done
        ip address add 198.18.0.1/24 dev uplink
        ip address add 198.18.1.1/24 dev inside
        ip address add 198.18.2.1/24 dev inside
        ip neighbour add 198.18.0.2 lladdr 02:00:00:00:00:01 dev uplink nud permanent
        ip neighbour add 198.18.1.2 lladdr 02:00:00:00:01:01 dev inside nud permanent
        echo 1 > /proc/sys/net/ipv4/ip_forward")
}

fn sh(script: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-ec", script]).output()?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn interfaces() -> anyhow::Result<()> {
    let mut world = World::new(&[www(1)])?;
    for interface in ["uplink", "inside"] {
        world.dataplane.attach(interface, XdpMode::Native)?;
    }
    let index = |name| nix::net::if_::if_nametoindex(name);
    let (uplink, inside) = (index("uplink")?, index("inside")?);
    let talk = Talk::new(CLIENT, 1);
    let syn = talk.client_sends().syn();
    let expected = Seen::to_backend(&talk, &syn).opening();
    assert_eq!(world.run_from(uplink, &syn.bytes())?, expected);
    let answer = talk.backend_sends().syn().ack();
    let transmitted = Seen::to_client(&talk, &answer);
    let redirected = Seen {
        action: 4,
        ..transmitted.clone()
    };
    assert_eq!(world.run_from(inside, &answer.bytes())?, redirected);
    assert_eq!(
        world.run_from(uplink, &answer.bytes())?,
        transmitted,
        "the backend is on the clients' side"
    );
    let ack = talk.client_sends().ack();
    assert_eq!(
        world.run_from(inside, &ack.bytes())?,
        Seen::to_backend(&talk, &ack)
    );
    assert_eq!(
        world.run_from(uplink, &answer.bytes())?,
        redirected,
        "now the client is on the servers' side"
    );
    Ok(())
}

/// What the kernel has to finish: rewritten, but to and from the MAC addresses that it came with.
fn by_kernel(mut seen: Seen, sent: &Frame, outcome: Outcome) -> Seen {
    seen = seen.named(outcome);
    seen.frame[..12].copy_from_slice(&sent.bytes()[..12]);
    seen
}

fn unresolved(server: u8) -> BackendEntry {
    BackendEntry {
        next_hop: None,
        ..web(server)
    }
}

fn to_backend_by_route() -> anyhow::Result<()> {
    let service = service(1, VIP, vec![unresolved(1), unresolved(2), unresolved(9)]);
    let world = World::new(&[service])?;
    let known = Talk::new(client(1), 1);
    world.open("the neighbour is known", &known)?;
    world.forward(
        "and again",
        &known,
        known.client_sends().ack().payload(&[0; 1000]),
    )?;
    for (purpose, server) in [("the neighbour is not known", 2), ("there is no route", 9)] {
        let talk = Talk::new(client(server.into()), server);
        let syn = talk.client_sends().syn();
        let expected = by_kernel(
            Seen::to_backend(&talk, &syn).opening(),
            &syn,
            Outcome::ToBackendByKernel,
        );
        world.expect(purpose, &syn.bytes(), &expected)?;
    }
    sh("ip neighbour add 198.18.2.2 lladdr 02:00:00:00:01:02 dev inside nud permanent")?;
    let found = Talk::new(client(2), 2);
    world.forward("now it is known", &found, found.client_sends().syn())?;
    sh("echo 0 > /proc/sys/net/ipv4/ip_forward")?;
    let ack = known.client_sends().ack();
    let expected = by_kernel(Seen::to_backend(&known, &ack), &ack, Outcome::ToBackendByKernel);
    world.expect("the kernel may not forward", &ack.bytes(), &expected)
}

fn to_client_by_route() -> anyhow::Result<()> {
    let options = LoadOptions {
        max_connections: 1000,
        learn_return_hops: false,
        selection_seed: 7,
    };
    let world = World::with_options(&[www(1)], options)?;
    let known = Talk {
        router: OTHER_ROUTER,
        ..Talk::new(CLIENT, 1)
    };
    world.open("SYN", &known)?;
    let answer = known.backend_sends().syn().ack();
    let routed = Talk {
        router: ROUTER_MAC,
        ..known.clone()
    };
    let expected = Seen {
        action: 4,
        ..Seen::to_client(&routed, &answer)
    };
    world.expect(
        "not where it came from, but by the route",
        &answer.bytes(),
        &expected,
    )?;
    let unknown = Talk::new("198.18.0.3:40000".parse()?, 1);
    world.open("SYN", &unknown)?;
    let answer = unknown.backend_sends().syn().ack();
    let expected = by_kernel(
        Seen::to_client(&unknown, &answer),
        &answer,
        Outcome::ToClientByKernel,
    );
    world.expect("the neighbour is not known", &answer.bytes(), &expected)
}

/// Answers never go to a router that the client has left, even if the new one cannot be remembered.
fn too_many_routers() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let before = Talk::new(CLIENT, 1);
    world.establish(&before)?;
    for number in 0..30_000u16 {
        let [high, low] = number.to_be_bytes();
        let ack = before
            .client_sends()
            .ack()
            .between([0x02, 0, 0, 9, high, low], UPLINK_MAC);
        world.pass(&ack.bytes())?;
    }
    let after = Talk {
        router: OTHER_ROUTER,
        ..before.clone()
    };
    world.forward("by one more router", &after, after.client_sends().ack())?;
    let answer = before.backend_sends().ack();
    let routed = Seen {
        action: 4,
        ..Seen::to_client(&before, &answer)
    };
    world.expect("answered by the route", &answer.bytes(), &routed)?;
    world.forward("by the first router", &before, before.client_sends().ack())?;
    world.answer("answered there", &before, before.backend_sends().ack())
}

/// The table is full of others: answers find no entry, and are rewritten all the same, while and where that is safe.
fn untracked() -> anyhow::Result<()> {
    let shared = |number, id, port| {
        let backend = BackendEntry { id, ..web(3) };
        service(
            number,
            format!("203.0.113.30:{port}").parse().expect("an endpoint"),
            vec![backend],
        )
    };
    let services: [ServiceEntry; 3] = [www(1), shared(2, 3, 80), shared(3, 33, 81)];
    let mut world = World::with_room(&services, 1)?;
    for number in 0..8 {
        world.establish_somewhere(client(number))?;
    }
    let talk = Talk::new(CLIENT, 1);
    let answer = talk.backend_sends().syn().ack();
    let unchanged = Seen::unchanged(Outcome::NoConnection, &answer.bytes());
    world.expect("nothing is untracked yet", &answer.bytes(), &unchanged)?;

    let syn = talk.client_sends().syn();
    let expected = Seen::to_backend(&talk, &syn).named(Outcome::ToBackendUntracked);
    world.expect("SYN", &syn.bytes(), &expected)?;
    let answered = Seen::to_client(&talk, &answer).named(Outcome::ToClientUntracked);
    world.expect("the answer, by the route", &answer.bytes(), &answered)?;

    let stranger = Talk::new("198.18.0.3:40000".parse()?, 1);
    let late = stranger.backend_sends().ack();
    let expected = by_kernel(
        Seen::to_client(&stranger, &late),
        &late,
        Outcome::ToClientByKernel,
    );
    world.expect("a client without a neighbour entry", &late.bytes(), &expected)?;
    for own in ["198.18.0.1:50000", "198.18.1.1:50000", "127.0.0.1:50000"] {
        let probe = Talk::new(own.parse()?, 1).backend_sends().syn().ack().bytes();
        world.expect(
            "a health probe",
            &probe,
            &Seen::unchanged(Outcome::NoConnection, &probe),
        )?;
    }
    for number in [2, 3] {
        let vip = format!("203.0.113.30:{}", 78 + number).parse()?;
        let talk = Talk {
            vip,
            ..Talk::new(CLIENT, 3)
        };
        world.pass(&talk.client_sends().syn().bytes())?;
    }
    let ambiguous = Talk::new(CLIENT, 3).backend_sends().syn().ack().bytes();
    world.expect(
        "two services",
        &ambiguous,
        &Seen::unchanged(Outcome::NoConnection, &ambiguous),
    )?;

    let last_untracked = |world: &mut World, ticks_ago: u16| -> anyhow::Result<()> {
        let now = world.dataplane.now()?;
        let map = world
            .dataplane
            .ebpf_mut()
            .map_mut("SERVICE_STATES")
            .context("no SERVICE_STATES")?;
        let mut states: Array<_, [u64; 8]> = Array::try_from(map)?;
        let mut state = states.get(&1, 0)?;
        state[1] = u64::from(now.0.wrapping_sub(ticks_ago)) + 1;
        Ok(states.set(1, state, 0)?)
    };
    last_untracked(&mut world, 7)?;
    world.expect("not long ago", &answer.bytes(), &answered)?;
    last_untracked(&mut world, 9)?;
    world.expect("too long ago", &answer.bytes(), &unchanged)
}
