//! `nat` mode: what goes to a backend, what comes back, and what is none of ours.

use lb_common::outcome::Outcome;
use lb_tests::harness::Case;

use crate::world::{
    CLIENT, INSIDE_MAC, ROUTER_MAC, UPLINK_MAC, VIP, World, from_client, segment, web, web_mac, www,
};

pub fn cases() -> Vec<Case> {
    vec![Case::new("nat::a_connection_from_syn_to_answer", connection)]
}

fn connection() -> anyhow::Result<()> {
    let world = World::new(&[www(1)])?;
    let server = web(1).endpoint;
    let syn = from_client(CLIENT, VIP, |tcp| tcp.syn = true);
    let sent = segment(
        INSIDE_MAC,
        web_mac(1),
        CLIENT,
        server,
        63,
        |tcp| tcp.syn = true,
        b"",
    );
    world.expect("SYN", &syn, Outcome::ToBackend, &sent)?;

    let answer = |from, source, destination, ttl| {
        segment(
            source,
            destination,
            from,
            CLIENT,
            ttl,
            |tcp| (tcp.syn, tcp.ack) = (true, true),
            b"",
        )
    };
    let received = answer(VIP, UPLINK_MAC, ROUTER_MAC, 63);
    let seen = world.run(&answer(server, web_mac(1), INSIDE_MAC, 64))?;
    assert_eq!(seen.frame, received);
    assert_eq!(seen.action, 3);
    Ok(())
}
