//! In network namespaces, against the kernel; what `ip` shows is the judge.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::MsgFlags;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use super::*;
use crate::testing::{in_namespace, sh};

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const LINK: &str = "
    ip link add h0 address 02:00:00:00:00:01 type veth peer name h1
    ip link set h0 up; ip link set h1 up";

fn shown() -> String {
    sh("ip -o address show dev h0")
}

#[test]
fn a_vip_is_added_once_and_removed() {
    in_namespace(async |_| {
        sh(LINK);
        for (vip, shows) in [
            (IpAddr::V4(VIP), "203.0.113.10/32"),
            (IpAddr::V6(VIP6), "2001:db8::10/128"),
        ] {
            assert_eq!(add(vip, "h0").await.unwrap(), Added::Now);
            let all = shown();
            let line = all
                .lines()
                .find(|line| line.contains(shows))
                .expect("the VIP is shown");
            assert!(!line.contains("tentative"), "it answers at once: {line}");
            assert_eq!(add(vip, "h0").await.unwrap(), Added::Before, "as after a restart");
            assert!(remove(vip, "h0").await.unwrap());
            assert!(!shown().contains(shows), "{}", shown());
            assert!(!remove(vip, "h0").await.unwrap(), "it is gone");
        }
    });
}

#[test]
fn what_somebody_else_added_stays() {
    in_namespace(async |_| {
        sh(LINK);
        for prefix in [24, 32] {
            sh(&format!("ip addr add 203.0.113.10/{prefix} dev h0"));
            let added = add(VIP.into(), "h0").await.unwrap();
            assert_eq!((added, added.is_ours()), (Added::Foreign, false));
            assert!(!remove(VIP.into(), "h0").await.unwrap());
            assert_eq!(shown().matches("203.0.113.10").count(), 1, "{}", shown());
            sh(&format!("ip addr del 203.0.113.10/{prefix} dev h0"));
        }
    });
}

#[test]
fn other_addresses_are_left_alone() {
    in_namespace(async |_| {
        sh(LINK);
        sh("ip addr add 203.0.113.1/24 dev h0; ip addr add 203.0.113.10/32 dev h1");
        assert_eq!(add(VIP.into(), "h0").await.unwrap(), Added::Now);
        assert!(remove(VIP.into(), "h0").await.unwrap());
        assert!(shown().contains("203.0.113.1/24"), "{}", shown());
        assert!(sh("ip -o address show dev h1").contains("203.0.113.10/32"));
    });
}

#[test]
fn a_missing_interface_is_named() {
    in_namespace(async |_| {
        let missing = r#"VIP 203.0.113.10: there is no interface "h7" on this host; `ip link` lists those that there are"#;
        assert_eq!(add(VIP.into(), "h7").await.unwrap_err().to_string(), missing);
        assert_eq!(remove(VIP.into(), "h7").await.unwrap_err().to_string(), missing);
        assert_eq!(announce(VIP.into(), "h7").unwrap_err().to_string(), missing);
    });
}

/// A socket that receives the ARP packets of all interfaces.
fn arp_listener() -> OwnedFd {
    let protocol = SockProtocol::EthAll;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), protocol).unwrap();
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(20)).unwrap();
    socket
}

#[test]
fn the_peer_hears_the_announcement_and_learns_from_it() {
    in_namespace(async |home| {
        let peer = crate::testing::Namespace::new();
        sh(&format!(
            "ip link add h1 type veth peer name h0 address 02:00:00:00:00:01 netns {}
            ip link set h1 up; ip addr add 203.0.113.1/24 dev h1
            ip neigh add 203.0.113.10 lladdr 02:00:00:00:00:99 dev h1 nud stale",
            home.path()
        ));
        let listener = arp_listener();
        home.enter();
        sh("ip link set h0 up");
        announce(VIP.into(), "h0").unwrap();

        let mut buffer = [0; 2048];
        let frame = loop {
            let length = recv(listener.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("a frame in time");
            if buffer[12..14] == [0x08, 0x06] {
                break &buffer[..length];
            }
        };
        assert_eq!(frame[..6], [0xff; 6], "to everybody");
        assert_eq!(frame[6..12], [2, 0, 0, 0, 0, 1], "from h0");
        assert_eq!(
            (&frame[28..32], &frame[38..42]),
            (&VIP.octets()[..], &VIP.octets()[..])
        );
        peer.enter();
        let neighbour = sh("ip neigh show 203.0.113.10");
        assert!(
            neighbour.contains("02:00:00:00:00:01"),
            "the old owner is forgotten: {neighbour}"
        );
    });
}

/// The kernel believes it only if checksum, hop limit and addresses are right.
#[test]
fn the_peer_learns_from_a_neighbour_advertisement() {
    in_namespace(async |home| {
        let peer = crate::testing::Namespace::new();
        sh(&format!(
            "ip link add h1 type veth peer name h0 address 02:00:00:00:00:01 netns {}
            ip link set h1 up; ip -6 addr add 2001:db8::1/64 dev h1 nodad
            ip neigh add 2001:db8::10 lladdr 02:00:00:00:00:99 dev h1 nud stale",
            home.path()
        ));
        home.enter();
        sh("ip link set h0 up");
        // h1 may take a moment to be up for IPv6; every announcement is the same.
        for attempt in 0..50 {
            announce(VIP6.into(), "h0").unwrap();
            peer.enter();
            let neighbour = sh("ip neigh show 2001:db8::10");
            home.enter();
            if neighbour.contains("02:00:00:00:00:01") {
                return;
            }
            assert!(attempt < 49, "the old owner is not forgotten: {neighbour}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn an_interface_that_cannot_announce_says_so() {
    in_namespace(async |_| {
        sh("ip tuntap add h2 mode tun; ip link set h2 up; ip link add h3 type veth peer name h4");
        let error = announce(VIP.into(), "h2").unwrap_err().to_string();
        assert!(error.contains("h2 has no MAC address"), "{error}");
        let error = announce(VIP.into(), "lo").unwrap_err().to_string();
        assert!(error.contains("lo has no MAC address"), "{error}");
        for (vip, what) in [
            (VIP.into(), "an ARP announcement"),
            (VIP6.into(), "a neighbour advertisement"),
        ] {
            let error = announce(vip, "h3").unwrap_err().to_string();
            assert!(
                error.contains(&format!("h3: sending {what} failed: Network is down")),
                "{error}"
            );
        }
    });
}
