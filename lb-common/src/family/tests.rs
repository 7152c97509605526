use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::connection_table::entry::{ipv4_key_parts, wide_key_parts};

fn ipv4(address: [u8; 4]) -> u32 {
    u32::from_ne_bytes(address)
}

fn ipv6(address: [u8; 16]) -> [u64; 2] {
    abi::address(&address)
}

proptest! {
    #[test]
    fn records_have_the_whole_address(address4: [u8; 4], address6: [u8; 16]) {
        let record = Ipv4::to_record(ipv4(address4));
        prop_assert_eq!(record, abi::address(&address4));
        prop_assert_eq!(Ipv4::of_record(&record), ipv4(address4));
        prop_assert!(Ipv4::is(ipv4(address4), &record));

        let record = Ipv6::to_record(ipv6(address6));
        prop_assert_eq!(record.map(u64::to_ne_bytes).concat(), address6);
        prop_assert_eq!(Ipv6::of_record(&record), ipv6(address6));
        prop_assert!(Ipv6::is(ipv6(address6), &record));
    }

    /// Who finds a record by a hash sees whether it is the one, by any bit.
    #[test]
    fn another_address_is_another(address: [u8; 16], bit in 0usize..128) {
        let mut other = address;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Ipv6::is(ipv6(address), &ipv6(other)));
    }

    #[test]
    fn an_ipv4_address_is_widened_as_rfc_4291_has_it(address: [u8; 4]) {
        let widened = Ipv4::widened(ipv4(address));
        let expected = Ipv4Addr::from(address).to_ipv6_mapped().octets();
        prop_assert_eq!(widened.map(u64::to_ne_bytes).concat(), expected);
        prop_assert_eq!(Ipv4::narrowed(widened), ipv4(address));
    }

    #[test]
    fn an_ipv6_address_stays_as_it_is(address: [u8; 16]) {
        prop_assert_eq!(Ipv6::widened(ipv6(address)), ipv6(address));
        prop_assert_eq!(Ipv6::narrowed(ipv6(address)), ipv6(address));
    }

    #[test]
    fn keys_have_all_that_tells_connections_apart(
        address4: [u8; 4],
        address6: [u8; 16],
        port: u16,
        service: u16,
        vip_port: u16,
    ) {
        let key: [u64; 1] = Ipv4::key(ipv4(address4), port.to_be(), service, vip_port.to_be());
        prop_assert_eq!(ipv4_key_parts(key), (address4, port, service));
        let key: [u64; 3] = Ipv4::key(ipv4(address4), port.to_be(), service, vip_port.to_be());
        let mapped = Ipv4Addr::from(address4).to_ipv6_mapped().octets();
        prop_assert_eq!(wide_key_parts(key), (mapped, port, service, vip_port));
        let key: [u64; 3] = Ipv6::key(ipv6(address6), port.to_be(), service, vip_port.to_be());
        prop_assert_eq!(wide_key_parts(key), (address6, port, service, vip_port));
    }

    /// No key of an endpoint is zero, which is an empty place, and the families' never meet.
    #[test]
    fn endpoints_of_one_family_are_never_the_others(
        address4: [u8; 4],
        address6: [u8; 16],
        port: u16,
        protocol: u8,
    ) {
        let (one, other) = (
            Ipv4::endpoint(ipv4(address4), port, protocol),
            Ipv6::endpoint(ipv6(address6), port, protocol),
        );
        prop_assert!(one != 0 && other != 0 && one != other);
        prop_assert_ne!(one, Ipv6::endpoint(Ipv4::widened(ipv4(address4)), port, protocol));
    }

    #[test]
    fn deltas_are_those_of_the_bytes(old: [u8; 16], new: [u8; 16], checksum: u16) {
        let expected = Delta::replacing(&old, &new).apply(checksum);
        let found = Ipv6::delta(ipv6(old), ipv6(new)).apply(checksum);
        prop_assert!(found == expected || found ^ expected == 0xffff);

        let (old, new) = ([old[0], old[1], old[2], old[3]], [new[0], new[1], new[2], new[3]]);
        let expected = Delta::replacing(&old, &new).apply(checksum);
        let found = Ipv4::delta(ipv4(old), ipv4(new)).apply(checksum);
        prop_assert!(found == expected || found ^ expected == 0xffff);
    }
}

/// Whatever bit differs, in the address, the port or the protocol, it is another endpoint.
#[test]
fn every_bit_of_an_endpoint_counts() {
    let (address4, address6) = (
        Ipv4Addr::new(203, 0, 113, 10).octets(),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6).octets(),
    );
    let mut keys = HashSet::from([
        Ipv4::endpoint(ipv4(address4), 443, 6),
        Ipv6::endpoint(ipv6(address6), 443, 6),
    ]);
    for bit in 0..32 {
        assert!(keys.insert(Ipv4::endpoint(ipv4(address4) ^ 1 << bit, 443, 6)));
    }
    for bit in 0..64 {
        let [low, high] = ipv6(address6);
        assert!(keys.insert(Ipv6::endpoint([low ^ 1 << bit, high], 443, 6)));
        assert!(keys.insert(Ipv6::endpoint([low, high ^ 1 << bit], 443, 6)));
    }
    for bit in 0..16 {
        assert!(keys.insert(Ipv4::endpoint(ipv4(address4), 443 ^ 1 << bit, 6)));
        assert!(keys.insert(Ipv6::endpoint(ipv6(address6), 443 ^ 1 << bit, 6)));
    }
    for bit in 0..8 {
        assert!(keys.insert(Ipv4::endpoint(ipv4(address4), 443, 6 ^ 1 << bit)));
        assert!(keys.insert(Ipv6::endpoint(ipv6(address6), 443, 6 ^ 1 << bit)));
    }
}

#[test]
fn headers_and_protocols() {
    assert_eq!((Ipv4::VERSION, Ipv4::HEADER_LENGTH, Ipv4::ICMP), (4, 20, 1));
    assert_eq!((Ipv6::VERSION, Ipv6::HEADER_LENGTH, Ipv6::ICMP), (6, 40, 58));
}
