//! IPv4 and IPv6 as one code path: what differs between them, so that everything else is written once and compiled twice.

use crate::abi;
use crate::checksum::Delta;
use crate::connection_table::entry::{ipv4_key, wide_key};
use crate::lookup_table::{ipv4_endpoint, ipv6_endpoint};
use crate::outcome::Outcome;
use crate::wire::network::{ICMP, ICMPV6, Network};
use crate::wire::{Frame, ipv4, ipv6};

/// An address family.
pub trait Family {
    /// An address as it is in the packet.
    type Address: Copy + PartialEq;
    /// 4 or 6.
    const VERSION: u32;
    /// Length of a header without options or extensions, in bytes.
    const HEADER_LENGTH: usize;
    /// The protocol number of ICMP.
    const ICMP: u8;

    /// Reads the header of the packet in a frame.
    ///
    /// # Errors
    /// The outcome of a packet that is none.
    fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Network<Self::Address>, Outcome>;

    /// Whether the header may be one without options or extensions, of a whole datagram; if not, it is not.
    fn may_be_plain<F: Frame + ?Sized>(frame: &F) -> bool;

    /// Reads the header of a packet of which only the beginning is there, at an offset of a frame.
    fn parse_quoted<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Network<Self::Address>>;

    /// The key of an endpoint in the lookup tables.
    fn endpoint(address: Self::Address, port: u16, protocol: u8) -> u64;

    /// The address in a record.
    fn of_record(record: &abi::Address) -> Self::Address;

    /// The address as a record has it.
    fn to_record(address: Self::Address) -> abi::Address;

    /// Whether a record that was found by [`endpoint`](Self::endpoint) has this very address.
    fn is(address: Self::Address, record: &abi::Address) -> bool;

    /// What replacing an address by another changes in a checksum.
    fn delta(old: Self::Address, new: Self::Address) -> Delta;

    /// The address as a wide key has it.
    fn widened(address: Self::Address) -> [u64; 2];

    /// The address in a wide key.
    fn narrowed(address: [u64; 2]) -> Self::Address;
}

/// A family whose connections have keys of `K` words.
pub trait Keys<const K: usize>: Family {
    /// The key of a connection; `vip_port` is 0 unless the service has several ports. Ports are as in the packet.
    fn key(client: Self::Address, client_port: u16, service: u16, vip_port: u16) -> [u64; K];
}

/// IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4;

/// IPv6.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6;

/// ::ffff:0:0/96 (RFC 4291 section 2.5.5.2).
const MAPPED: u64 = 0xffffu32.to_be() as u64;

impl Family for Ipv4 {
    type Address = u32;
    const VERSION: u32 = 4;
    const HEADER_LENGTH: usize = ipv4::LENGTH;
    const ICMP: u8 = ICMP;

    #[inline(always)]
    fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Network<u32>, Outcome> {
        ipv4::parse(frame)
    }

    #[inline(always)]
    fn may_be_plain<F: Frame + ?Sized>(frame: &F) -> bool {
        ipv4::is_plain(frame)
    }

    #[inline(always)]
    fn parse_quoted<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Network<u32>> {
        ipv4::parse_quoted(frame, offset)
    }

    #[inline(always)]
    fn endpoint(address: u32, port: u16, protocol: u8) -> u64 {
        ipv4_endpoint(address, port, protocol)
    }

    #[inline(always)]
    fn of_record([address, _]: &abi::Address) -> u32 {
        *address as u32
    }

    #[inline(always)]
    fn to_record(address: u32) -> abi::Address {
        [u64::from(address), 0]
    }

    /// The whole address is in the key.
    #[inline(always)]
    fn is(_: u32, _: &abi::Address) -> bool {
        true
    }

    #[inline(always)]
    fn delta(old: u32, new: u32) -> Delta {
        Delta::of_words([old], [new])
    }

    #[inline(always)]
    fn widened(address: u32) -> [u64; 2] {
        [0, MAPPED | u64::from(address) << 32]
    }

    #[inline(always)]
    fn narrowed([_, high]: [u64; 2]) -> u32 {
        (high >> 32) as u32
    }
}

impl Family for Ipv6 {
    type Address = [u64; 2];
    const VERSION: u32 = 6;
    const HEADER_LENGTH: usize = ipv6::LENGTH;
    const ICMP: u8 = ICMPV6;

    #[inline(always)]
    fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Network<[u64; 2]>, Outcome> {
        ipv6::parse(frame)
    }

    /// Only who has read it knows.
    #[inline(always)]
    fn may_be_plain<F: Frame + ?Sized>(_: &F) -> bool {
        true
    }

    #[inline(always)]
    fn parse_quoted<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Network<[u64; 2]>> {
        ipv6::parse_quoted(frame, offset).ok()
    }

    #[inline(always)]
    fn endpoint(address: [u64; 2], port: u16, protocol: u8) -> u64 {
        ipv6_endpoint(address, port, protocol)
    }

    #[inline(always)]
    fn of_record(record: &abi::Address) -> [u64; 2] {
        *record
    }

    #[inline(always)]
    fn to_record(address: [u64; 2]) -> abi::Address {
        address
    }

    #[inline(always)]
    fn is(address: [u64; 2], record: &abi::Address) -> bool {
        let [low, high] = *record;
        (low ^ address[0]) | (high ^ address[1]) == 0
    }

    #[inline(always)]
    fn delta(old: [u64; 2], new: [u64; 2]) -> Delta {
        let words =
            |[low, high]: [u64; 2]| [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
        Delta::of_words(words(old), words(new))
    }

    #[inline(always)]
    fn widened(address: [u64; 2]) -> [u64; 2] {
        address
    }

    #[inline(always)]
    fn narrowed(address: [u64; 2]) -> [u64; 2] {
        address
    }
}

impl Keys<1> for Ipv4 {
    #[inline(always)]
    fn key(client: u32, client_port: u16, service: u16, _: u16) -> [u64; 1] {
        ipv4_key(client, client_port, service)
    }
}

impl Keys<3> for Ipv4 {
    #[inline(always)]
    fn key(client: u32, client_port: u16, service: u16, vip_port: u16) -> [u64; 3] {
        wide_key(Self::widened(client), client_port, service, vip_port)
    }
}

impl Keys<3> for Ipv6 {
    #[inline(always)]
    fn key(client: [u64; 2], client_port: u16, service: u16, vip_port: u16) -> [u64; 3] {
        wide_key(client, client_port, service, vip_port)
    }
}

#[cfg(test)]
mod tests;
