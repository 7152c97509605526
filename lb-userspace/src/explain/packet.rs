//! A frame in words.

use std::net::{IpAddr, SocketAddr};

use lb_common::tcp_state::Flags;
use lb_common::wire::classify::{Classification, classify};
use lb_common::wire::network::{Fragment, ICMP, ICMPV6, Network, TCP, UDP};

/// `TCP 198.18.0.2:40000 → 203.0.113.10:443, syn, 40 bytes`.
pub(super) fn words(frame: &[u8]) -> String {
    match classify(frame) {
        Classification::Segment(_, network, transport) => {
            let ends = (
                SocketAddr::new(network.source, u16::from_be(transport.source_port)),
                SocketAddr::new(network.destination, u16::from_be(transport.destination_port)),
            );
            let mut words = format!("{} {} → {}", protocol(network.protocol), ends.0, ends.1);
            if network.protocol == TCP {
                words += &format!(", {}", flags(transport.flags));
            }
            if network.fragment == Fragment::First {
                words += ", the first of several fragments";
            }
            words + &length(&network)
        }
        Classification::LaterFragment(_, network) => {
            format!("{}, a later fragment{}", ends(&network), length(&network))
        }
        Classification::EchoRequest(_, network) => {
            format!("{}, echo request{}", ends(&network), length(&network))
        }
        Classification::Error(_, network, quoted) => format!(
            "{}, an error about {} {} → {}",
            ends(&network),
            protocol(quoted.network.protocol),
            SocketAddr::new(quoted.network.source, u16::from_be(quoted.source_port)),
            SocketAddr::new(quoted.network.destination, u16::from_be(quoted.destination_port)),
        ),
        Classification::Passes(outcome) => format!("{} bytes, {}", frame.len(), outcome.name()),
    }
}

/// Source and destination of a TCP segment or UDP datagram.
pub(super) fn sockets(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let Classification::Segment(_, network, transport) = classify(frame) else {
        return None;
    };
    Some((
        SocketAddr::new(network.source, u16::from_be(transport.source_port)),
        SocketAddr::new(network.destination, u16::from_be(transport.destination_port)),
    ))
}

/// Source and destination of whatever packet a frame carries.
pub(super) fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let packet = frame.get(lb_common::wire::ethernet::LENGTH..)?;
    match packet.first()? >> 4 {
        4 => Some((
            IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?),
            IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?),
        )),
        6 => Some((
            IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?),
            IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?),
        )),
        _ => None,
    }
}

fn ends(network: &Network<IpAddr>) -> String {
    let protocol = protocol(network.protocol);
    format!("{protocol} {} → {}", network.source, network.destination)
}

fn length(network: &Network<IpAddr>) -> String {
    format!(", {} bytes", network.length)
}

fn protocol(number: u8) -> String {
    match number {
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        ICMP => "ICMP".to_owned(),
        ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn flags(flags: Flags) -> String {
    let names = [
        (Flags::SYN, "syn"),
        (Flags::FIN, "fin"),
        (Flags::RST, "rst"),
        (Flags::ACK, "ack"),
    ];
    let set: Vec<_> = names
        .iter()
        .filter(|(flag, _)| flags.0 & flag != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "no flags".to_owned()
    } else {
        set.join("-")
    }
}

/// A MAC address as people write it.
pub(super) fn mac(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}
