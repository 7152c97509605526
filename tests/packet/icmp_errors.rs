//! ICMP errors: about whose packets they are none of ours, what may follow them in a frame, and how many are sent. (What else
//! becomes of them is in `matrix`.)

use std::collections::BTreeMap;
use std::time::Instant;

use lb::dataplane::ServiceEntry;
use lb_common::abi::Choice;
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::frame::{Frame, MTU, Says};
use crate::jiffies;
use crate::kind::{Flavour, Kind, Mode, RANGE};
use crate::namespace::{self, sh};
use crate::seen::Seen;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::all() {
        let mut case = |title: &str, in_namespace: bool, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("icmp_errors::{title}_{}", kind.slug());
            cases.push(if in_namespace {
                let run = move || namespace::inside(move || run(kind));
                Case::of(kind.cell(), name, run).needs(NetworkNamespaces)
            } else {
                Case::of(kind.cell(), name, move || run(kind))
            });
        };
        if kind.flavour == Flavour::Range {
            case("about_the_hosts_own_packets", false, of_the_host);
        }
        let by_route = kind.is_stateless() && kind.is_answered();
        case("short_ones_in_longer_frames", by_route, trailers);
        if kind.flavour != Flavour::Range {
            case("too_big_for_many_clients_at_once", true, many_clients);
        }
    }
    cases
}

/// The host's own packets come from the VIP, too, but from none of the ports of the service there. A service that hashes
/// knows where each of its connections must be, entry or no entry.
fn of_the_host(kind: Kind) -> anyhow::Result<usize> {
    let service = ServiceEntry {
        choice: Choice::Hash,
        ..kind.service(3)
    };
    let world = World::new(&[service])?;
    let about_port = |port: u16| {
        let talk = kind.talk(1, 1).at_port(port);
        let mut about = talk.client_sends();
        about.packet.set_source(talk.vip);
        about.packet.set_destination(talk.client);
        let quoted = about.packet.header_length() + 8;
        let error = Frame::error_about(&about.packet, kind.router_address(), Says::TooBig(1280), quoted);
        error.between(talk.router, crate::world::UPLINK_MAC)
    };
    let (first, last) = RANGE;
    for port in [22, first - 1, last + 1, 65_535, 0] {
        let purpose = format!("about port {port}");
        world.unchanged(&purpose, Outcome::IcmpNotOurs, &about_port(port))?;
    }
    let expected = if kind.mode == Mode::FullNat {
        Outcome::IcmpNotOurs
    } else {
        Outcome::IcmpToBackend
    };
    for port in [first, 7443, last] {
        let seen = world.run(&about_port(port).bytes())?;
        assert_eq!(
            seen.outcomes,
            BTreeMap::from([(expected.name(), 1)]),
            "about port {port}"
        );
    }
    Ok(world.checked() + 3)
}

/// Ethernet pads short frames, and some networks add trailers. The packet's length says where the quote ends, and nothing
/// behind that is a checksum of what is quoted.
fn trailers(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    let trailers = [
        &[0xa5; 1][..],
        &[0xa5; 2],
        &[0xa5; 8],
        &[0xa5; 10],
        &[0xa5; 20],
        &[0; 18],
    ];
    let about = talk.backend_says(b"x");
    let header = about.packet.header_length();
    for quoted in [header + 8, header + 16, header + 18] {
        if quoted > about.packet.bytes().len() {
            continue;
        }
        for trailer in trailers {
            let purpose = format!("{quoted} bytes and {} more", trailer.len());
            let error =
                talk.error_from_clients_side(&about, Says::TooBig(1280), kind.router_address(), quoted);
            let error = error.padding(trailer);
            let expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(&error));
            world.expect(&purpose, &error.bytes(), &expected)?;
            if !talk.is_answered() {
                continue;
            }
            let about = talk.client_says(b"x");
            let from = talk.backend.endpoint.ip();
            let error = talk
                .error_from_backends_side(&about, Says::PortUnreachable, from, quoted)
                .padding(trailer);
            let mut expected = Seen::changed(Outcome::IcmpToClient, &talk.error_at_client(&error));
            if !kind.is_stateless() {
                expected = expected.transmitted();
            }
            world.expect(&purpose, &error.bytes(), &expected)?;
        }
    }
    Ok(world.checked())
}

/// Clients with addresses of their own; those of a family are [`BETWEEN_ADDRESSES`] apart.
const CLIENTS: u32 = 40;
const BETWEEN_ADDRESSES: u32 = 50_000;
/// How many of them must be answered, however fast they come: two of 256 groups are rarely the same.
const ANSWERED: u64 = 30;

/// Nobody can use up everybody's errors, and nobody gets more than one in a jiffy.
fn many_clients(kind: Kind) -> anyhow::Result<usize> {
    sh(&format!("ip link set lo mtu {MTU}"))?;
    let mut service = kind.service(1);
    let hop = service.backends[0].next_hop.as_mut().expect("it has one");
    hop.interface_index = nix::net::if_::if_nametoindex("inside")?;
    let world = World::new(&[service])?;
    let big = |client: u32| kind.talk(client, 1).client_opens().filled_to(MTU + 1).bytes();
    let from_each: Vec<_> = (0..CLIENTS).map(|n| big(n * BETWEEN_ADDRESSES)).collect();
    let from_one = vec![big(0); CLIENTS as usize];
    let send = |frames: &[Vec<u8>]| {
        jiffies::next()?;
        let begin = Instant::now();
        let counted = world.counting(|| {
            for frame in frames {
                world.pass(frame)?;
            }
            Ok(())
        })?;
        let cpus = std::thread::available_parallelism()?.get() as u64;
        let most = (begin.elapsed().as_millis() as u64 + 2) * cpus;
        let count = |outcome: Outcome| counted.get(outcome.name()).copied().unwrap_or(0);
        let (answered, not) = (count(Outcome::TooBig), count(Outcome::TooBigUnanswered));
        assert_eq!(answered + not, u64::from(CLIENTS), "{counted:?}");
        anyhow::Ok((answered, most))
    };
    let (answered, _) = send(&from_each)?;
    assert!(answered >= ANSWERED, "{answered} of {CLIENTS} clients");
    let (answered, most) = send(&from_one)?;
    assert!(
        (1..=most).contains(&answered),
        "{answered} to one, at most {most}"
    );
    Ok(2 * CLIENTS as usize)
}
