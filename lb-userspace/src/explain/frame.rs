//! The frame that a question is about.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use lb_common::tcp_state::Flags;
use lb_common::wire::ethernet;

use crate::config::Protocol;

/// A neighbour that nobody is: locally administered.
pub(super) const SOMEBODY: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TIME_TO_LIVE: u8 = 64;
const SEQUENCE: u32 = 1;
const WINDOW: u16 = 64_240;

/// Between whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// The frame's own addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) source: [u8; 6],
    pub(super) destination: [u8; 6],
}

/// A frame; `length`: of the packet in it, in bytes, with zeros for what is missing.
///
/// # Errors
/// A length that no such packet has, in words.
pub(super) fn build(
    protocol: Protocol,
    addresses: Addresses,
    ends: Ends,
    flags: Flags,
    length: Option<u16>,
) -> Result<Vec<u8>, String> {
    let shortest = encode(protocol, addresses, ends, flags, 0)?;
    let least = shortest.len() - ethernet::LENGTH;
    match length.map(usize::from) {
        None => Ok(shortest),
        Some(length) if length < least || length > LONGEST => Err(format!(
            "length: {length} bytes; such a packet has {least} to {LONGEST}"
        )),
        Some(length) => encode(protocol, addresses, ends, flags, length - least),
    }
}

/// The program runner takes a page less what it needs itself.
const LONGEST: usize = 3400;

fn encode(
    protocol: Protocol,
    addresses: Addresses,
    Ends { from, to }: Ends,
    flags: Flags,
    payload: usize,
) -> Result<Vec<u8>, String> {
    let ethernet = PacketBuilder::ethernet2(addresses.source, addresses.destination);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), TIME_TO_LIVE),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), TIME_TO_LIVE),
        _ => return Err(format!("{from} and {to} are of two families")),
    };
    let payload = vec![0; payload];
    let mut frame = Vec::new();
    let written = match protocol {
        Protocol::Udp => ip.udp(from.port(), to.port()).write(&mut frame, &payload),
        Protocol::Tcp => {
            let mut tcp = ip.tcp(from.port(), to.port(), SEQUENCE, WINDOW);
            if flags.0 & Flags::SYN != 0 {
                tcp = tcp.syn();
            }
            if flags.0 & Flags::ACK != 0 {
                tcp = tcp.ack(SEQUENCE);
            }
            if flags.finishes() {
                tcp = tcp.fin();
            }
            if flags.resets() {
                tcp = tcp.rst();
            }
            tcp.write(&mut frame, &payload)
        }
    };
    written.map_err(|error| error.to_string())?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::wire::classify::{Classification, classify};

    const ADDRESSES: Addresses = Addresses {
        source: SOMEBODY,
        destination: [2, 0, 0, 0, 0, 2],
    };

    #[test]
    fn a_frame_is_what_was_asked_for() {
        for (from, to) in [
            ("198.18.0.2:40000", "203.0.113.10:443"),
            ("[2001:db8::2]:40000", "[2001:db8:ffff::10]:443"),
        ] {
            let ends = Ends {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
            };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for flags in [Flags::SYN, Flags::ACK, Flags::FIN | Flags::ACK, Flags::RST] {
                    for length in [None, Some(100), Some(1500)] {
                        let frame = build(protocol, ADDRESSES, ends, Flags(flags), length).unwrap();
                        let Classification::Segment(_, network, transport) = classify(&frame[..]) else {
                            panic!("{frame:02x?}");
                        };
                        assert_eq!(network.source, ends.from.ip());
                        assert_eq!(network.destination, ends.to.ip());
                        assert_eq!(u16::from_be(transport.source_port), ends.from.port());
                        assert_eq!(u16::from_be(transport.destination_port), ends.to.port());
                        if protocol == Protocol::Tcp {
                            assert_eq!(transport.flags, Flags(flags));
                        }
                        if let Some(length) = length {
                            assert_eq!(network.length, usize::from(length));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let ends = Ends {
            from: "198.18.0.2:40000".parse().unwrap(),
            to: "203.0.113.10:443".parse().unwrap(),
        };
        for length in [0, 39, 3401] {
            let error = build(Protocol::Tcp, ADDRESSES, ends, Flags(Flags::SYN), Some(length)).unwrap_err();
            assert_eq!(
                error,
                format!("length: {length} bytes; such a packet has 40 to 3400")
            );
        }
    }
}
