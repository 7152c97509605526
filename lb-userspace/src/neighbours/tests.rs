//! The resolver against the kernel's own routes and neighbours, in network namespaces.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::*;
use crate::testing::{Namespace, in_namespace, sh};

const LONG: Duration = Duration::from_secs(20);

/// Both ends of a veth pair in this namespace; nobody answers at the other.
const ONE_LINK: &str = "
    ip link add h0 address 02:00:00:00:00:01 type veth peer name h1
    ip link set h0 up; ip link set h1 up
    ip addr add 198.18.1.1/24 dev h0
    ip -6 addr add 2001:db8:1::1/64 dev h0 nodad";

fn ip(address: &str) -> IpAddr {
    address.parse().expect("address")
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("interface")
}

async fn resolve(address: &str) -> Resolution {
    let resolver = Resolver::new().await.expect("resolver");
    let resolutions = resolver.resolve(&[ip(address)]).await.expect("resolutions");
    assert_eq!(resolutions.len(), 1);
    resolutions[&ip(address)]
}

fn by_h0(destination: u8) -> Resolution {
    Resolution::Resolved {
        hop: NextHop {
            interface_index: index("h0"),
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, destination],
        },
        on_link: true,
    }
}

fn by_gateway(destination: u8) -> Resolution {
    match by_h0(destination) {
        Resolution::Resolved { hop, .. } => Resolution::Resolved { hop, on_link: false },
        other => other,
    }
}

#[test]
fn a_neighbour_on_the_link_is_the_next_hop() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        sh(
            "ip neigh add 198.18.1.2 lladdr 02:00:00:00:00:02 dev h0 nud permanent
            ip neigh add 2001:db8:1::2 lladdr 02:00:00:00:00:03 dev h0 nud permanent",
        );
        assert_eq!(resolve("198.18.1.2").await, by_h0(2));
        assert_eq!(resolve("2001:db8:1::2").await, by_h0(3));
    });
}

#[test]
fn a_gateway_is_the_next_hop_of_what_lies_behind() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        sh(
            "ip neigh add 198.18.1.254 lladdr 02:00:00:00:00:fe dev h0 nud permanent
            ip neigh add 2001:db8:1::fe lladdr 02:00:00:00:00:fd dev h0 nud permanent
            ip route add 198.18.9.0/24 via 198.18.1.254
            ip route add 198.18.10.0/24 via inet6 2001:db8:1::fe dev h0
            ip route add 2001:db8:9::/64 via 2001:db8:1::fe
            ip neigh add fe80::fe lladdr 02:00:00:00:00:fc dev h0 nud permanent
            ip route add 2001:db8:8::/64 via fe80::fe dev h0",
        );
        assert_eq!(
            resolve("2001:db8:8::8").await,
            by_gateway(0xfc),
            "a link-local gateway"
        );
        assert_eq!(resolve("198.18.9.9").await, by_gateway(0xfe));
        assert_eq!(
            resolve("198.18.10.9").await,
            by_gateway(0xfd),
            "IPv4 by an IPv6 gateway"
        );
        assert_eq!(resolve("2001:db8:9::9").await, by_gateway(0xfd));
    });
}

#[test]
fn every_usable_state_is_used_and_no_other() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        for (state, usable) in [
            ("permanent", true),
            ("reachable", true),
            ("stale", true),
            ("delay", true),
            ("probe", true),
            ("incomplete", false),
            ("failed", false),
            ("none", false),
        ] {
            sh(&format!(
                "ip neigh replace 198.18.1.2 lladdr 02:00:00:00:00:02 dev h0 nud {state}"
            ));
            let expected = if usable {
                by_h0(2)
            } else {
                Resolution::NoNeighbour {
                    interface_index: index("h0"),
                }
            };
            assert_eq!(resolve("198.18.1.2").await, expected, "{state}");
            sh("ip neigh del 198.18.1.2 dev h0");
        }
    });
}

#[test]
fn no_route_and_forbidding_routes_are_no_route() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        sh("ip route add unreachable 198.18.20.0/24
            ip route add prohibit 198.18.21.0/24
            ip route add blackhole 198.18.22.0/24
            ip -6 route add unreachable 2001:db8:20::/64");
        for address in [
            "203.0.113.1",
            "198.18.20.1",
            "198.18.21.1",
            "198.18.22.1",
            "198.18.1.255",
            "2001:db8:77::1",
            "2001:db8:20::1",
        ] {
            assert_eq!(resolve(address).await, Resolution::NoRoute, "{address}");
        }
    });
}

#[test]
fn an_own_address_is_local() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        for address in ["198.18.1.1", "127.0.0.1", "2001:db8:1::1", "::1"] {
            assert_eq!(resolve(address).await, Resolution::Local, "{address}");
        }
    });
}

#[test]
fn a_tunnel_has_no_neighbours() {
    in_namespace(async |_| {
        sh("ip tuntap add h2 mode tun; ip link set h2 up; ip addr add 198.18.2.1/24 dev h2");
        let expected = Resolution::NoNeighbour {
            interface_index: index("h2"),
        };
        assert_eq!(resolve("198.18.2.2").await, expected);
    });
}

#[test]
fn many_addresses_at_once() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        let addresses: Vec<_> = (2..=200).map(|last| ip(&format!("198.18.1.{last}"))).collect();
        let neighbours: String = (2..=200)
            .map(|last| format!("ip neigh add 198.18.1.{last} lladdr 02:00:00:00:00:{last:02x} dev h0\n"))
            .collect();
        sh(&neighbours);
        let resolutions = Resolver::new()
            .await
            .expect("resolver")
            .resolve(&addresses)
            .await
            .expect("resolutions");
        assert_eq!(resolutions.len(), 199);
        for last in 2..=200 {
            assert_eq!(
                resolutions[&ip(&format!("198.18.1.{last}"))],
                by_h0(last),
                "{last}"
            );
        }
    });
}

/// A backend in a namespace of its own, `h0` there linked to `h0` here. The calling thread is back home after it.
fn backend(home: &Namespace) -> Namespace {
    let backend = Namespace::new();
    sh(&format!(
        "ip link add h0 type veth peer name h0 address 02:00:00:00:00:01 netns {}",
        home.path()
    ));
    sh("ip link set h0 address 02:00:00:00:00:02; ip link set h0 up");
    sh("ip addr add 198.18.1.2/24 dev h0; ip -6 addr add 2001:db8:1::2/64 dev h0 nodad");
    home.enter();
    sh("ip link set h0 up; ip addr add 198.18.1.1/24 dev h0; ip -6 addr add 2001:db8:1::1/64 dev h0 nodad");
    backend
}

/// Resolves after every change until that gives `expected`; no polling, the watch has to tell.
async fn until(address: &str, expected: Resolution, changes: &mut UnboundedReceiver<()>) {
    while resolve(address).await != expected {
        timeout(LONG, changes.recv())
            .await
            .expect("a change in time")
            .expect("a watch");
    }
}

#[test]
fn an_unknown_neighbour_is_found_and_told_of() {
    in_namespace(async |home| {
        let _backend = backend(&home);
        let (sender, mut changes) = unbounded_channel();
        let _watch = Resolver::watch(sender).await.expect("watch");
        for address in ["198.18.1.2", "2001:db8:1::2"] {
            assert_eq!(
                resolve(address).await,
                Resolution::NoNeighbour {
                    interface_index: index("h0")
                }
            );
            until(address, by_h0(2), &mut changes).await;
        }
    });
}

#[test]
fn a_backend_that_comes_later_is_found() {
    in_namespace(async |home| {
        let backend = backend(&home);
        backend.enter();
        sh("ip addr del 198.18.1.2/24 dev h0");
        home.enter();
        let (sender, mut changes) = unbounded_channel();
        let _watch = Resolver::watch(sender).await.expect("watch");
        let begin = Instant::now();
        let unknown = Resolution::NoNeighbour {
            interface_index: index("h0"),
        };
        let mut resolved = 0;
        // Long enough for the kernel to give up (3 s) and to be asked again: seldom, and without an end.
        while begin.elapsed() < Duration::from_secs(5) {
            assert_eq!(resolve("198.18.1.2").await, unknown);
            resolved += 1;
            let _ = timeout(Duration::from_secs(1), changes.recv()).await;
        }
        assert!(resolved < 30, "{resolved} times in 5 s is a busy loop");
        backend.enter();
        sh("ip addr add 198.18.1.2/24 dev h0");
        home.enter();
        until("198.18.1.2", by_h0(2), &mut changes).await;
    });
}

#[test]
fn a_backend_that_moves_to_another_mac_address_is_found() {
    in_namespace(async |home| {
        let backend = backend(&home);
        // Quick to doubt, so that the test is.
        sh("echo 1 > /proc/sys/net/ipv4/neigh/h0/delay_first_probe_time
            echo 100 > /proc/sys/net/ipv4/neigh/h0/retrans_time_ms
            ip neigh replace 198.18.1.2 lladdr 02:00:00:00:00:99 dev h0 nud stale");
        let (sender, mut changes) = unbounded_channel();
        let _watch = Resolver::watch(sender).await.expect("watch");
        // Nothing but the resolver talks to the backend, and yet it does not stay at the old address.
        assert_eq!(resolve("198.18.1.2").await, by_h0(0x99));
        until("198.18.1.2", by_h0(2), &mut changes).await;
        drop(backend);
    });
}

#[test]
fn every_kind_of_change_is_told() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        let (sender, mut changes) = unbounded_channel();
        let watch = Resolver::watch(sender).await.expect("watch");
        // Whatever the link's coming up still causes (router solicitations, multicast).
        let settle = async |changes: &mut UnboundedReceiver<()>| {
            while timeout(Duration::from_millis(700), changes.recv()).await.is_ok() {}
        };
        settle(&mut changes).await;
        for change in [
            "ip route add 198.18.30.0/24 dev h0",
            "ip -6 route add 2001:db8:30::/64 dev h0",
            "ip neigh add 198.18.1.9 lladdr 02:00:00:00:00:09 dev h0",
            "ip rule add from 198.18.1.3 table 100",
            "ip -6 rule add from 2001:db8::3 table 100",
            "ip nexthop add id 1 dev h0",
            "ip addr add 198.18.31.1/24 dev h0",
            "ip link set h1 down",
        ] {
            sh(change);
            timeout(LONG, changes.recv())
                .await
                .unwrap_or_else(|_| panic!("{change}: not told"));
            settle(&mut changes).await;
        }
        drop(watch);
        let ended = timeout(LONG, async { while changes.recv().await.is_some() {} }).await;
        assert!(ended.is_ok(), "the task ends with the watch");
    });
}

#[test]
fn a_burst_that_overruns_the_socket_is_a_change() {
    in_namespace(async |_| {
        sh(ONE_LINK);
        let (sender, mut changes) = unbounded_channel();
        let _watch = Resolver::watch(sender).await.expect("watch");
        // The watch does not get to read meanwhile: the runtime has but this thread.
        sh(
            "for a in $(seq 0 39); do for b in $(seq 0 254); do echo route add 198.$((100 + a)).$b.0/24 dev h0; done; done | ip -batch -",
        );
        timeout(LONG, changes.recv())
            .await
            .expect("told")
            .expect("a watch");
        sleep(Duration::from_millis(100)).await;
        let mut messages = 0;
        while changes.try_recv().is_ok() {
            messages += 1;
        }
        assert!(messages < 1000, "10,200 routes made {messages} messages");
        sh("ip route add 198.19.0.0/24 dev h0");
        timeout(LONG, changes.recv())
            .await
            .expect("still watching")
            .expect("a watch");
    });
}
