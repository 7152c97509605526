//! What the data path needs of an IPv4 or IPv6 header.

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's.
pub const UDP: u8 = 17;
/// ICMP's, over IPv4.
pub const ICMP: u8 = 1;
/// ICMPv6's.
pub const ICMPV6: u8 = 58;

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first of several parts: it has the ports.
    First,
    /// A later one: it has none.
    Later,
}

/// What the data path needs of a header; `A` is an address as it is in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// The transport protocol.
    pub protocol: u8,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// The time to live, or hop limit.
    pub time_to_live: u8,
    /// Where the transport header begins in the frame, in bytes.
    pub transport_offset: usize,
    /// Length of the packet, headers and payload, in bytes: at least that of its headers, at most what the frame holds.
    pub length: usize,
    /// The identification that fragments of one datagram share, as in the packet; of a packet that is no fragment,
    /// anything.
    pub identification: u32,
}
