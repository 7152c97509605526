//! The same tests for every kind of service: mode by family by protocol.

mod checksums;
mod connection;
mod fragments;
mod headers;
mod hops;
mod icmp;
mod malformed;
mod mid_flow;
mod refused;
mod state;
mod too_big;

use lb_tests::harness::Case;
use lb_tests::needs::Requirement::NetworkNamespaces;

use crate::kind::Kind;
use crate::namespace;
use crate::world::World;

/// A test of a kind, which says how many frames it has checked.
type Topic = fn(Kind) -> anyhow::Result<usize>;

pub fn cases() -> Vec<Case> {
    [
        connection::cases(),
        headers::cases(),
        checksums::cases(),
        fragments::cases(),
        icmp::cases(),
        too_big::cases(),
        refused::cases(),
        mid_flow::cases(),
        malformed::cases(),
        state::cases(),
        hops::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A test for each of these kinds.
fn each(kinds: Vec<Kind>, name: &str, topic: Topic) -> Vec<Case> {
    kinds
        .into_iter()
        .map(|kind| {
            let name = format!("{}::{name}", kind.slug());
            // Without entries, the routing table has to know the way back.
            if kind.is_stateless() && kind.is_answered() {
                return in_namespace(kind, name, topic);
            }
            Case::of(kind.cell(), name, move || topic(kind))
        })
        .collect()
}

/// The same in a namespace of the test's own.
fn each_in_namespace(kinds: Vec<Kind>, name: &str, topic: Topic) -> Vec<Case> {
    kinds
        .into_iter()
        .map(|kind| in_namespace(kind, format!("{}::{name}", kind.slug()), topic))
        .collect()
}

fn in_namespace(kind: Kind, name: String, topic: Topic) -> Case {
    Case::of(kind.cell(), name, move || namespace::inside(move || topic(kind))).needs(NetworkNamespaces)
}

/// Runs something whose result depends on that no tick, about four seconds, passes meanwhile; again, if it failed and one did.
fn within_a_tick(kind: Kind, topic: Topic) -> anyhow::Result<usize> {
    let world = World::new(&[])?;
    for _ in 0..10 {
        let began = world.dataplane.now()?;
        let result = topic(kind);
        if result.is_ok() || world.dataplane.now()? == began {
            return result;
        }
    }
    topic(kind)
}

/// A service with one server, and an established connection to it.
fn established(kind: Kind) -> anyhow::Result<(World, crate::talk::Talk)> {
    let world = World::new(&[kind.service(1)])?;
    let talk = kind.talk(1, 1);
    world.establish(&talk)?;
    Ok((world, talk))
}
