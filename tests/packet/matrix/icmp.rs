//! ICMP errors about balanced connections: whom they concern, and that every header and checksum in them is right.

use std::net::IpAddr;

use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use super::{each, established};
use crate::frame::{Extension, Frame, SAYS, Says};
use crate::kind::Kind;
use crate::seen::Seen;
use crate::talk::Talk;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    [
        each(
            Kind::all(),
            "icmp_errors_from_the_clients_side",
            from_clients_side,
        ),
        each(
            Kind::answered(),
            "icmp_errors_from_the_backends_side",
            from_backends_side,
        ),
        each(Kind::all(), "icmp_errors_about_nobody", about_nobody),
        each(Kind::all(), "icmp_errors_that_are_cut_off", cut_off),
        each(Kind::all(), "icmp_errors_in_odd_headers", odd_headers),
        each(Kind::all(), "icmp_errors_that_are_damaged", damaged),
        each(Kind::all(), "icmp_errors_whose_time_is_over", time_to_live),
        each(Kind::all(), "other_icmp_messages", others),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How many bytes of a packet an error may quote: its header and 8 more (RFC 792), up to TCP's checksum and through it, and
/// all. (Half a checksum, which nobody quotes, is left as it is.)
fn quotes(about: &Frame) -> Vec<usize> {
    let header = about.packet.header_length();
    let all = about.packet.bytes().len();
    let mut quotes = vec![header + 8, header + 15, header + 16, header + 18, all - 1, all];
    quotes.retain(|quoted| *quoted <= all);
    quotes.dedup();
    quotes
}

/// An error goes to a backend as it should, without being counted as the connection's.
fn reaches_backend(world: &World, purpose: &str, talk: &Talk, error: &Frame) -> anyhow::Result<()> {
    let expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(error));
    world.expect(purpose, &error.bytes(), &expected)
}

/// Likewise to a client: where its last packet came from, or where the routing table says.
fn reaches_client(world: &World, purpose: &str, talk: &Talk, error: &Frame) -> anyhow::Result<()> {
    let mut expected = Seen::changed(Outcome::IcmpToClient, &talk.error_at_client(error));
    if !talk.is_stateless {
        expected = expected.transmitted();
    }
    world.expect(purpose, &error.bytes(), &expected)
}

fn from_clients_side(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let answers = [
        talk.backend_accepts(),
        talk.backend_says(b"some answer, and an odd one"),
    ];
    for about in answers {
        for says in SAYS {
            for quoted in quotes(&about) {
                for from in [kind.router_address(), talk.client.ip()] {
                    let error = talk.error_from_clients_side(&about, says, from, quoted);
                    reaches_backend(&world, &format!("{says:?} {quoted} {from}"), &talk, &error)?;
                }
            }
        }
    }
    if !kind.is_tcp() && kind.is_ipv4() {
        let about = talk.backend_says(b"no checksum").without_checksum();
        let all = about.packet.bytes().len();
        let error = talk.error_from_clients_side(&about, Says::TooBig(576), kind.router_address(), all);
        reaches_backend(&world, "no checksum in the quote", &talk, &error)?;
    }
    Ok(world.checked())
}

fn from_backends_side(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    for about in [
        talk.client_opens(),
        talk.client_says(b"a request, and an odd one"),
    ] {
        for says in SAYS {
            for quoted in quotes(&about) {
                for from in [inside_router(kind), talk.backend.endpoint.ip()] {
                    let error = talk.error_from_backends_side(&about, says, from, quoted);
                    reaches_client(&world, &format!("{says:?} {quoted} {from}"), &talk, &error)?;
                }
            }
        }
    }
    if !kind.is_tcp() && kind.is_ipv4() {
        let about = talk.client_says(b"no checksum").without_checksum();
        let all = about.packet.bytes().len();
        let error = talk.error_from_backends_side(&about, Says::PortUnreachable, inside_router(kind), all);
        reaches_client(&world, "no checksum in the quote", &talk, &error)?;
    }
    Ok(world.checked())
}

/// A router between balancer and backends.
fn inside_router(kind: Kind) -> IpAddr {
    kind.endpoint(200).ip()
}

/// They pass unchanged: about other connections, other services, the balancer's own packets.
fn about_nobody(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let router = kind.router_address();
    let passes = |purpose: &str, about: &Frame, mac: ([u8; 6], [u8; 6])| {
        let all = about.packet.bytes().len();
        for quoted in [about.packet.header_length() + 8, all] {
            let error = Frame::error_about(&about.packet, router, Says::HostUnreachable, quoted);
            world.unchanged(purpose, Outcome::IcmpNotOurs, &error.between(mac.0, mac.1))?;
        }
        Ok::<(), anyhow::Error>(())
    };
    let from_outside = (talk.router, crate::world::UPLINK_MAC);
    let from_inside = (talk.backend_mac(), crate::world::INSIDE_MAC);
    let stranger = Talk {
        client: kind.client(777),
        ..talk.clone()
    };
    let to_stranger = if talk.is_answered() {
        stranger.at_client(&stranger.backend_says(b""))
    } else {
        stranger.backend_says(b"")
    };
    if !kind.is_stateless() {
        passes("to a client without a connection", &to_stranger, from_outside)?;
        if talk.is_answered() {
            let mut from_stranger = stranger.clone();
            from_stranger.own_port += 1;
            let sent = Frame::from(from_stranger.sent_to_backend(&from_stranger.client_says(b"")));
            passes("from a client without a connection", &sent, from_inside)?;
        }
    }
    let mut other_port = talk.vip;
    other_port.set_port(9);
    passes(
        "from another port of the VIP",
        &to_stranger.clone().with_source(other_port),
        from_outside,
    )?;
    if kind.flavour != crate::kind::Flavour::Range {
        let mut elsewhere = talk.server();
        elsewhere.set_port(22);
        passes(
            "to another port of the backend",
            &talk.client_sends().with_destination(elsewhere),
            from_inside,
        )?;
    }
    let mut elsewhere = talk.vip;
    elsewhere.set_ip(router);
    passes(
        "to somebody else",
        &talk.client_sends().with_destination(elsewhere),
        from_outside,
    )?;
    Ok(world.checked())
}

/// Without the ports it cannot be told whom they concern.
fn cut_off(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let about = talk.backend_says(b"");
    let header = about.packet.header_length();
    for quoted in [0, 1, header - 1, header, header + 4, header + 7] {
        let error = talk.error_from_clients_side(&about, Says::TooBig(1400), kind.router_address(), quoted);
        world.unchanged(&format!("{quoted} bytes"), Outcome::IcmpNotOurs, &error)?;
    }
    let whole = talk
        .error_from_clients_side(&about, Says::TooBig(1400), kind.router_address(), header + 8)
        .bytes();
    // The IP header says that there is more than the frame has.
    for length in [whole.len() - 1, whole.len() - 8, 14 + header + 8, 14 + header] {
        let cut = &whole[..length];
        world.expect(
            &format!("{length} bytes"),
            cut,
            &Seen::unchanged(Outcome::MalformedIp, cut),
        )?;
    }
    // A later fragment in the quote has no ports; of an error that is itself in fragments only the first has its header.
    let later = &about.clone().filled_to(2000).fragments(&[1000])[1];
    let sent = if talk.is_answered() {
        later.clone().with_source(talk.vip).with_destination(talk.client)
    } else {
        later.clone()
    };
    let error = Frame::error_about(&sent.packet, kind.router_address(), Says::TimeExceeded, 100);
    world.unchanged("about a later fragment", Outcome::IcmpNotOurs, &error)?;
    let long = talk.error_from_clients_side(
        &talk.backend_says(&[7; 1000]),
        Says::TooBig(1400),
        kind.router_address(),
        1000,
    );
    let fragments = long.fragments(&[512]);
    world.unchanged("the first part of one", Outcome::IcmpNotOurs, &fragments[0])?;
    world.unchanged("a later part of one", Outcome::IcmpNotOurs, &fragments[1])?;
    Ok(world.checked())
}

/// Headers, outside and quoted, that have options, or extension headers.
fn odd_headers(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let odd = |frame: Frame| -> Vec<Frame> {
        if kind.is_ipv4() {
            let options = [0, 1, 10].into_iter();
            options.map(|words| frame.clone().ipv4_options(words)).collect()
        } else {
            let chains = [
                vec![],
                vec![Extension::HopByHop(0)],
                vec![Extension::DestinationOptions(3), Extension::Routing(0)],
                vec![Extension::AtomicFragment],
            ];
            let chains = chains.into_iter();
            chains.map(|chain| frame.clone().extensions(&chain)).collect()
        }
    };
    for about in odd(talk.backend_says(b"odd")) {
        let quoted = about.packet.header_length() + 8;
        let error = talk.error_from_clients_side(&about, Says::TooBig(1300), kind.router_address(), quoted);
        for error in odd(error) {
            reaches_backend(&world, "to the backend", &talk, &error)?;
        }
    }
    if talk.is_answered() {
        for about in odd(talk.client_says(b"odd")) {
            let quoted = about.packet.header_length() + 8;
            let error =
                talk.error_from_backends_side(&about, Says::TooBig(1300), inside_router(kind), quoted);
            for error in odd(error) {
                reaches_client(&world, "to the client", &talk, &error)?;
            }
        }
    }
    Ok(world.checked())
}

/// Checksums are changed, not made anew, here as well.
fn damaged(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let about = talk.backend_says(b"damaged");
    let all = about.packet.bytes().len();
    let error = talk.error_from_clients_side(&about, Says::Prohibited, kind.router_address(), all);
    let mut sent = error.bytes();
    let mut expected = Seen::changed(Outcome::IcmpToBackend, &talk.error_at_backend(&error));
    for frame in [&mut sent, &mut expected.frame] {
        let last = frame.len() - 1;
        frame[last] ^= 0x40;
    }
    world.expect("to the backend", &sent, &expected)?;
    if talk.is_answered() {
        let about = talk.client_says(b"damaged");
        let all = about.packet.bytes().len();
        let error = talk.error_from_backends_side(&about, Says::Prohibited, inside_router(kind), all);
        let mut sent = error.bytes();
        let mut expected = Seen::changed(Outcome::IcmpToClient, &talk.error_at_client(&error));
        if !kind.is_stateless() {
            expected = expected.transmitted();
        }
        for frame in [&mut sent, &mut expected.frame] {
            let last = frame.len() - 1;
            frame[last] ^= 0x40;
        }
        world.expect("to the client", &sent, &expected)?;
    }
    Ok(world.checked())
}

fn time_to_live(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let about = talk.backend_says(b"");
    let quoted = about.packet.header_length() + 8;
    let error = talk.error_from_clients_side(&about, Says::TooBig(1300), kind.router_address(), quoted);
    for time_to_live in [0, 1] {
        let error = error.clone().time_to_live(time_to_live);
        world.unchanged("to the backend", Outcome::TimeToLiveOver, &error)?;
    }
    reaches_backend(&world, "in time", &talk, &error.time_to_live(2))?;
    if talk.is_answered() {
        let about = talk.client_says(b"");
        let error = talk.error_from_backends_side(&about, Says::TooBig(1300), inside_router(kind), quoted);
        let late = error.clone().time_to_live(1);
        world.unchanged("to the client", Outcome::TimeToLiveOver, &late)?;
        reaches_client(&world, "in time", &talk, &error.time_to_live(2))?;
    }
    Ok(world.checked())
}

/// Messages that quote nothing, or that only a host on the link may send.
fn others(kind: Kind) -> anyhow::Result<usize> {
    let (world, talk) = established(kind)?;
    let about = talk.backend_says(b"");
    let error = talk.error_from_clients_side(
        &about,
        Says::PortUnreachable,
        kind.router_address(),
        about.packet.header_length() + 8,
    );
    let at = 14 + error.packet.header_length();
    // Echo reply, redirect, router advertisement, timestamp; neighbour discovery, multicast listeners.
    let types: &[u8] = if kind.is_ipv4() {
        &[0, 4, 5, 9, 10, 13, 14, 30, 255]
    } else {
        &[0, 5, 100, 127, 129, 130, 133, 134, 135, 136, 137, 143, 255]
    };
    for kind in types {
        let mut frame = error.bytes();
        frame[at] = *kind;
        let purpose = format!("type {kind}");
        world.expect(&purpose, &frame, &Seen::unchanged(Outcome::IcmpNotOurs, &frame))?;
    }
    Ok(world.checked())
}
