//! Where packets leave to: by what the daemon resolved, by where the client's last packet came from, or as the kernel's
//! routing table says.

use lb::dataplane::{BackendEntry, LoadOptions};
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use super::{each, each_in_namespace, established};
use crate::kind::{Kind, Mode};
use crate::namespace::sh;
use crate::pool::OPTIONS;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::{ROUTER_MAC, World};

pub fn cases() -> Vec<Case> {
    [
        each(remembering(), "a_client_whose_router_changes", router_changes),
        each(remembering(), "clients_behind_different_routers", two_routers),
        each_in_namespace(
            Kind::all(),
            "to_a_backend_by_the_routing_table",
            to_backend_by_route,
        ),
        each_in_namespace(
            remembering(),
            "to_a_client_by_the_routing_table",
            to_client_by_route,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Kinds for which it matters where a client's packets come from.
fn remembering() -> Vec<Kind> {
    let mut kinds = Kind::answered();
    kinds.retain(|kind| !kind.is_stateless());
    kinds
}

const OTHER_ROUTER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];

fn router_changes(kind: Kind) -> anyhow::Result<usize> {
    let (world, before) = established(kind)?;
    let after = Talk {
        router: OTHER_ROUTER,
        ..before.clone()
    };
    world.forward("by another router", &after, after.client_says(b"here"))?;
    world.answer("answered there", &after, after.backend_says(b"1"))?;
    world.answer("and there", &after, after.backend_says(b"2"))?;
    world.forward("by the first again", &before, before.client_says(b"back"))?;
    world.answer("answered there", &before, before.backend_says(b""))?;
    if kind.is_tcp() {
        // Also in the last segments, which change the entry's state as well.
        let fin = after.client_says(b"").fin();
        world.forward("FIN by another router", &after, fin)?;
        world.answer("FIN", &after, after.backend_says(b"").fin())?;
    }
    Ok(world.checked())
}

fn two_routers(kind: Kind) -> anyhow::Result<usize> {
    let (world, first) = established(kind)?;
    let second = kind.talk(2, 1);
    let second = Talk {
        router: OTHER_ROUTER,
        own_port: second.own_port + 1,
        ..second
    };
    world.establish(&second)?;
    for talk in [&first, &second, &first] {
        world.answer("each by his own", talk, talk.backend_says(b"here"))?;
    }
    Ok(world.checked())
}

fn unresolved(kind: Kind, server: u8) -> BackendEntry {
    BackendEntry {
        next_hop: None,
        ..kind.backend(server)
    }
}

/// `web1`'s neighbour is known to the kernel, `web2`'s is not, and nothing leads to `web9`.
fn to_backend_by_route(kind: Kind) -> anyhow::Result<usize> {
    let only = |server| {
        let service = kind.service_of(vec![unresolved(kind, server)]);
        World::new(&[service]).map(|world| (world, kind.talk(1, server)))
    };
    let (world, known) = only(1)?;
    world.open("the neighbour is known", &known)?;
    world.forward("and again", &known, known.client_says(&[0; 1000]))?;
    let mut checked = 0;
    for (purpose, server) in [("the neighbour is not known", 2), ("there is no route", 9)] {
        let (world, talk) = only(server)?;
        let first = talk.client_opens();
        let opening = Seen::opening(&talk, &first);
        if kind.mode == Mode::Nat {
            let outcome = Outcome::ToBackendByKernel;
            world.expect(purpose, &first.bytes(), &opening.by_kernel(&first, outcome))?;
        } else {
            // The kernel would not send it: it comes from, or goes to, an address of its own.
            let mut expected = Seen::unchanged(Outcome::NeighbourUnknown, &first.bytes());
            expected.backends = opening.backends;
            for counters in expected.backends.values_mut() {
                (counters.packets_in, counters.bytes_in) = (0, 0);
            }
            expected.backends.retain(|_, counters| counters.opened != 0);
            world.expect(purpose, &first.bytes(), &expected)?;
        }
        checked += world.checked();
    }
    sh("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")?;
    let next = known.client_says(b"x");
    if kind.mode == Mode::Nat {
        let expected = Seen::to_backend(&known, &next).by_kernel(&next, Outcome::ToBackendByKernel);
        world.expect("the kernel may not forward", &next.bytes(), &expected)?;
    } else {
        world.unchanged("the kernel may not forward", Outcome::NeighbourUnknown, &next)?;
    }
    Ok(checked + world.checked())
}

/// Not where the client's packets come from, but where the routing table says.
fn to_client_by_route(kind: Kind) -> anyhow::Result<usize> {
    let options = LoadOptions {
        learn_return_hops: false,
        ..OPTIONS
    };
    let world = World::with_options(&[kind.service(1)], options)?;
    let known = Talk {
        router: OTHER_ROUTER,
        ..kind.talk(1, 1)
    };
    world.open("the first packet", &known)?;
    let answer = known.backend_accepts();
    let routed = Talk {
        router: ROUTER_MAC,
        ..known.clone()
    };
    let expected = Seen::to_client(&routed, &answer).redirected();
    world.expect("by the route", &answer.bytes(), &expected)?;

    // On the link, but without a neighbour entry; and nowhere.
    let neighbour = if kind.is_ipv4() {
        "198.18.0.3"
    } else {
        "2001:db8::3"
    };
    let nowhere = if kind.is_ipv4() {
        "198.51.100.7"
    } else {
        "2001:db8:dead::7"
    };
    for (number, address) in (1..).zip([neighbour, nowhere]) {
        let mut talk = kind.talk(1, 1);
        talk.client.set_ip(address.parse()?);
        talk.own_port += number;
        world.open("the first packet", &talk)?;
        let answer = talk.backend_accepts();
        let expected = Seen::to_client(&talk, &answer).by_kernel(&answer, Outcome::ToClientByKernel);
        world.expect(address, &answer.bytes(), &expected)?;
    }
    Ok(world.checked())
}
