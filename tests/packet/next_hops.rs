//! Where packets leave to, by several real interfaces, by more routers than can be remembered, and without entries. (The
//! rest is in `matrix`.)

use lb::config::XdpMode;
use lb::dataplane::{BackendEntry, ServiceEntry};
use lb_common::outcome::Outcome;
use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::aging;
use crate::frame::{Frame, Says};
use crate::kind::{Family, Flavour, Kind, NAT, one_port};
use crate::namespace;
use crate::pool::OPTIONS;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::{UPLINK_MAC, World};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let kind = Kind { family, ..NAT };
        let mut in_namespace = |title: &str, run: fn(Kind) -> anyhow::Result<usize>| {
            let name = format!("next_hops::{title}_{}", kind.slug());
            let run = move || namespace::inside(move || run(kind));
            cases.push(Case::of(kind.cell(), name, run).needs(NetworkNamespaces));
        };
        in_namespace("back_by_the_interface_that_the_client_uses", interfaces);
        in_namespace("more_routers_than_can_be_remembered", too_many_routers);
        in_namespace("answers_of_untracked_connections", untracked);
    }
    cases
}

const OTHER_ROUTER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];

fn interfaces(kind: Kind) -> anyhow::Result<usize> {
    let mut world = World::alone(&[kind.service(1)], OPTIONS)?;
    for interface in ["uplink", "inside"] {
        world.dataplane.attach(interface, XdpMode::Native)?;
    }
    let index = |name| nix::net::if_::if_nametoindex(name);
    let (uplink, inside) = (index("uplink")?, index("inside")?);
    let talk = kind.talk(1, 1);
    let first = talk.client_opens();
    assert_eq!(
        world.run_from(uplink, &first.bytes())?,
        Seen::opening(&talk, &first)
    );
    let answer = talk.backend_accepts();
    let (transmitted, redirected) = (
        Seen::to_client(&talk, &answer).transmitted(),
        Seen::to_client(&talk, &answer).redirected(),
    );
    let answered = |interface| world.run_from(interface, &answer.bytes());
    assert_eq!(answered(inside)?, redirected);
    assert_eq!(
        answered(uplink)?,
        transmitted,
        "the backend is on the clients' side"
    );
    let next = talk.client_says(b"x");
    assert_eq!(
        world.run_from(inside, &next.bytes())?,
        Seen::to_backend(&talk, &next)
    );
    assert_eq!(
        answered(uplink)?,
        redirected,
        "now the client is on the servers' side"
    );
    Ok(5)
}

/// Answers never go to a router that the client has left, even if the new one cannot be remembered.
fn too_many_routers(kind: Kind) -> anyhow::Result<usize> {
    let world = World::new(&[kind.service(1)])?;
    let before = kind.talk(1, 1);
    world.establish(&before)?;
    for number in 0..30_000u16 {
        let [high, low] = number.to_be_bytes();
        let ack = before
            .client_says(b"")
            .between([0x02, 0, 0, 9, high, low], UPLINK_MAC);
        world.pass(&ack.bytes())?;
    }
    let after = Talk {
        router: OTHER_ROUTER,
        ..before.clone()
    };
    world.forward("by one more router", &after, after.client_says(b""))?;
    let answer = before.backend_says(b"");
    let routed = Seen::to_client(&before, &answer).redirected();
    world.expect("answered by the route", &answer.bytes(), &routed)?;
    world.forward("by the first router", &before, before.client_says(b""))?;
    world.answer("answered there", &before, before.backend_says(b""))?;
    Ok(world.checked())
}

/// A backend that two further services share.
fn shared(kind: Kind, number: u16) -> ServiceEntry {
    let backend = BackendEntry {
        id: 30 + number,
        ..kind.backend(3)
    };
    ServiceEntry {
        number,
        ports: one_port(80 + number),
        ..kind.service_of(vec![backend])
    }
}

/// The table is full of others: answers find no entry, and are rewritten all the same, while and where that is safe.
fn untracked(kind: Kind) -> anyhow::Result<usize> {
    let services = [kind.service(1), shared(kind, 2), shared(kind, 3)];
    let mut world = World::with_room(&services, 1)?;
    for number in 100..108 {
        world.establish(&kind.talk(number, 1))?;
    }
    let talk = kind.talk(1, 1);
    let answer = talk.backend_accepts();
    world.unchanged("nothing is untracked yet", Outcome::NoConnection, &answer)?;

    let first = talk.client_opens();
    let expected = Seen::to_backend(&talk, &first).named(Outcome::ToBackendUntracked);
    world.expect("the first packet", &first.bytes(), &expected)?;
    let answered = Seen::to_client(&talk, &answer).named(Outcome::ToClientUntracked);
    world.expect("the answer, by the route", &answer.bytes(), &answered)?;
    errors(&world, kind, &talk)?;
    let fragments = talk.backend_says(b"").filled_to(2000).fragments(&[800]);
    let left = talk
        .at_client(&talk.backend_says(b"").filled_to(2000))
        .fragments(&[800]);
    for (outcome, (sent, left)) in [Outcome::ToClientUntracked, Outcome::FragmentToClient]
        .into_iter()
        .zip(fragments.iter().zip(&left))
    {
        let mut expected = Seen::to_client(&talk, sent).named(outcome);
        expected.frame = left.bytes();
        world.expect("in fragments", &sent.bytes(), &expected)?;
    }
    strangers(&world, kind)?;

    aging::untracked(&mut world, 1, 7)?;
    world.expect("not long ago", &answer.bytes(), &answered)?;
    aging::untracked(&mut world, 1, 9)?;
    world.unchanged("too long ago", Outcome::NoConnection, &answer)?;
    let about = talk.client_says(b"");
    let quoted = about.packet.header_length() + 8;
    let error = talk.error_from_backends_side(&about, Says::TooBig(1300), kind.endpoint(1).ip(), quoted);
    world.unchanged("an error, too long ago", Outcome::IcmpNotOurs, &error)?;
    Ok(world.checked())
}

fn errors(world: &World, kind: Kind, talk: &Talk) -> anyhow::Result<()> {
    let about = talk.client_says(b"");
    let quoted = about.packet.header_length() + 8;
    let error = talk.error_from_backends_side(&about, Says::TooBig(1300), kind.endpoint(1).ip(), quoted);
    let expected = Seen::changed(Outcome::IcmpToClient, &talk.error_at_client(&error));
    world.expect("an error from the backend's side", &error.bytes(), &expected)?;
    let about = talk.backend_says(b"");
    let error = talk.error_from_clients_side(&about, Says::TooBig(1300), kind.router_address(), quoted);
    let expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(&error));
    world.expect("an error from the client's side", &error.bytes(), &expected)
}

/// Who is no client, or of which service he is a client cannot be told.
fn strangers(world: &World, kind: Kind) -> anyhow::Result<()> {
    let to = |address: &str| -> anyhow::Result<Talk> {
        let mut talk = kind.talk(1, 1);
        talk.client.set_ip(address.parse()?);
        Ok(talk)
    };
    let (neighbour, own) = if kind.is_ipv4() {
        ("198.18.0.3", ["198.18.0.1", "198.18.1.1", "127.0.0.1"])
    } else {
        ("2001:db8::3", ["2001:db8::1", "2001:db8:0:1::1", "::1"])
    };
    let stranger = to(neighbour)?;
    let late = stranger.backend_says(b"");
    let expected = Seen::to_client(&stranger, &late).by_kernel(&late, Outcome::ToClientByKernel);
    world.expect("a client without a neighbour entry", &late.bytes(), &expected)?;
    for own in own {
        let talk = to(own)?;
        world.unchanged("a health probe", Outcome::NoConnection, &talk.backend_accepts())?;
        let about: Frame = talk.client_says(b"");
        let quoted = about.packet.header_length() + 8;
        let from = kind.endpoint(1).ip();
        let error = talk.error_from_backends_side(&about, Says::PortUnreachable, from, quoted);
        world.unchanged("an error about one", Outcome::IcmpNotOurs, &error)?;
    }
    for number in [2, 3] {
        let talk = kind.talk(1, 3).at_port(80 + number);
        let purpose = "of a shared endpoint: nobody could tell whose its answers are";
        world.unchanged(purpose, Outcome::TableFull, &talk.client_opens())?;
    }
    let ambiguous = kind.talk(1, 3).backend_accepts();
    world.unchanged("two services", Outcome::NoConnection, &ambiguous)?;
    assert_eq!(kind.flavour, Flavour::Plain);
    Ok(())
}
