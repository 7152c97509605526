//! What a frame is found to be, next to what it was made as.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::random_frames::{Extension, LONGEST, Made, Packet, Part, Payload, RandomFrames, SHORTEST};
use crate::outcome::Outcome;
use crate::tcp_state::Flags;
use crate::wire::classify::{Classification, classify};
use crate::wire::ethernet::{self, Ethernet, Mac};
use crate::wire::icmp::Quoted;
use crate::wire::network::{Fragment, Network};
use crate::wire::transport::Transport;

/// How many extension headers are looked through, and how far into the frame.
const EXTENSIONS: usize = 6;
const FURTHEST: usize = 512;

/// Whether extension headers are followed to their end; `offset`: where the packet begins in the frame.
fn are_followed(packet: &Packet, offset: usize) -> bool {
    let extensions = &packet.extensions;
    let fragment = extensions
        .iter()
        .position(|extension| *extension == Extension::Fragment);
    let behind_fragment = fragment.is_some_and(|at| packet.part != Part::Whole && at + 1 < extensions.len());
    let middle_of_extensions =
        packet.source.is_ipv6() && matches!(packet.payload, Payload::Rest { protocol: 60 });
    extensions.len() <= EXTENSIONS
        && !extensions
            .iter()
            .any(|extension| matches!(extension, Extension::Routing { segments_left: 1.. }))
        && !behind_fragment
        && !middle_of_extensions
        && (extensions.is_empty() || offset + packet.headers <= FURTHEST)
}

fn protocol(packet: &Packet) -> u8 {
    match packet.payload {
        Payload::Tcp { .. } => 6,
        Payload::Udp { .. } => 17,
        Payload::EchoRequest | Payload::Error { .. } | Payload::OtherIcmp => {
            if packet.source.is_ipv6() {
                58
            } else {
                1
            }
        }
        Payload::Rest { protocol } | Payload::Other { protocol } => protocol,
    }
}

fn network(packet: &Packet, offset: usize) -> Network<IpAddr> {
    let identification = if packet.source.is_ipv6() {
        packet.identification.to_be()
    } else {
        u32::from((packet.identification as u16).to_be())
    };
    Network {
        source: packet.source,
        destination: packet.destination,
        protocol: protocol(packet),
        fragment: match packet.part {
            Part::Whole => Fragment::Whole,
            Part::First => Fragment::First,
            Part::Later => Fragment::Later,
        },
        time_to_live: packet.time_to_live,
        transport_offset: offset + packet.headers,
        length: packet.length,
        identification,
    }
}

/// What a frame must be found to be that nothing has happened to since it was made.
fn expected(made: &Made) -> Classification {
    use Classification::Passes;
    let [destination, source] = made.addresses;
    if made.tags > 0 {
        return Passes(Outcome::VlanTagged);
    }
    let Some(packet) = &made.packet else {
        return Passes(Outcome::NotIp);
    };
    if destination[0] & 1 != 0 {
        return Passes(Outcome::Multicast);
    }
    if !are_followed(packet, ethernet::LENGTH) {
        return Passes(Outcome::ExtensionHeaders);
    }
    let ethernet = Ethernet {
        destination: Mac::from_bytes(destination),
        source: Mac::from_bytes(source),
    };
    let network = network(packet, ethernet::LENGTH);
    match &packet.payload {
        Payload::Tcp {
            source_port,
            destination_port,
            flags,
            header,
        } => Classification::Segment(
            ethernet,
            network,
            Transport {
                source_port: source_port.to_be(),
                destination_port: destination_port.to_be(),
                flags: Flags(*flags),
                header_length: *header,
            },
        ),
        Payload::Udp {
            source_port,
            destination_port,
        } => Classification::Segment(
            ethernet,
            network,
            Transport {
                source_port: source_port.to_be(),
                destination_port: destination_port.to_be(),
                flags: Flags::NONE,
                header_length: 8,
            },
        ),
        Payload::Rest { protocol: 6 | 17 } => Classification::LaterFragment(ethernet, network),
        Payload::Other { .. } => Passes(Outcome::OtherProtocol),
        Payload::Rest { protocol } if *protocol != 1 && *protocol != 58 => Passes(Outcome::OtherProtocol),
        // Parts of ICMP messages are nobody's.
        _ if packet.part != Part::Whole => Passes(Outcome::IcmpNotOurs),
        Payload::EchoRequest => Classification::EchoRequest(ethernet, network),
        Payload::Error { about, quoted } => match expected_quote(about, *quoted, packet) {
            Some(quote) => Classification::Error(ethernet, network, quote),
            None => Passes(Outcome::IcmpNotOurs),
        },
        Payload::OtherIcmp | Payload::Rest { .. } => Passes(Outcome::IcmpNotOurs),
    }
}

/// What must be found of the packet that an error is about; `None`: nothing of use.
fn expected_quote(about: &Packet, quoted: usize, error: &Packet) -> Option<Quoted<IpAddr>> {
    let offset = ethernet::LENGTH + error.headers + 8;
    let (source_port, destination_port, checksum) = match about.payload {
        Payload::Tcp {
            source_port,
            destination_port,
            ..
        } => (source_port, destination_port, 16),
        Payload::Udp {
            source_port,
            destination_port,
        } => (source_port, destination_port, 6),
        _ => return None,
    };
    if quoted < about.headers + 8 || !are_followed(about, offset) {
        return None;
    }
    let has_checksum = quoted >= about.headers + checksum + 2;
    Some(Quoted {
        offset,
        network: network(about, offset),
        source_port: source_port.to_be(),
        destination_port: destination_port.to_be(),
        checksum_offset: if has_checksum {
            offset + about.headers + checksum
        } else {
            0
        },
    })
}

#[test]
fn every_frame_is_found_to_be_what_it_was_made_as() {
    let mut counts = HashMap::new();
    for seed in 0..20 {
        let mut frames = RandomFrames::new(seed, &[]);
        for number in 0..5_000 {
            let frame = frames.next_whole();
            let found = classify(&frame.bytes[..]);
            assert_eq!(
                found,
                expected(&frame.made),
                "seed {seed}, frame {number}: {frame:?}"
            );
            *counts.entry(kind(&found)).or_insert(0u32) += 1;
        }
    }
    // And all kinds came.
    let kinds = [
        "DatagramFirst",
        "DatagramWhole",
        "EchoRequest",
        "Error",
        "ExtensionHeaders",
        "IcmpNotOurs",
        "LaterFragment",
        "Multicast",
        "NotIp",
        "OtherProtocol",
        "SegmentFirst",
        "SegmentWhole",
        "VlanTagged",
    ];
    assert_eq!(counts.len(), kinds.len());
    for kind in kinds {
        assert!(
            counts.get(kind).is_some_and(|count| *count > 500),
            "{kind}: {counts:?}"
        );
    }
}

fn kind(found: &Classification) -> String {
    match found {
        Classification::Passes(outcome) => format!("{outcome:?}"),
        Classification::Segment(_, network, _) if network.protocol == 6 => {
            format!("Segment{:?}", network.fragment)
        }
        Classification::Segment(_, network, _) => format!("Datagram{:?}", network.fragment),
        Classification::LaterFragment(..) => "LaterFragment".to_owned(),
        Classification::EchoRequest(..) => "EchoRequest".to_owned(),
        Classification::Error(..) => "Error".to_owned(),
    }
}

#[test]
fn a_seed_gives_the_same_frames_again_and_another_one_others() {
    let endpoints = [
        "203.0.113.10:443".parse().unwrap(),
        "[2001:db8::10]:443".parse().unwrap(),
    ];
    let frames = |seed: u64| -> Vec<Vec<u8>> {
        RandomFrames::new(seed, &endpoints)
            .take(1_000)
            .map(|frame| frame.bytes)
            .collect()
    };
    let one = frames(1);
    assert_eq!(one, frames(1));
    let other = frames(2);
    assert!(one.iter().zip(&other).filter(|(one, other)| one == other).count() < 10);
    assert!(
        one.iter()
            .all(|frame| (SHORTEST..=LONGEST).contains(&frame.len()))
    );
}

/// Found by the fuzzer: so many long extension headers as to be longer than a frame may be.
#[test]
fn no_frame_is_too_long() {
    for seed in [386_495_552, 488_953_024] {
        assert!(RandomFrames::new(seed, &[]).next_whole().bytes.len() <= LONGEST);
    }
}

#[test]
fn most_packets_are_between_the_given_endpoints() {
    let [vip, vip6]: [SocketAddr; 2] = [
        "203.0.113.10:443".parse().unwrap(),
        "[2001:db8::10]:443".parse().unwrap(),
    ];
    let (mut to_vip, mut all) = (0, 0);
    for frame in RandomFrames::new(3, &[vip, vip6]).take(2_000) {
        if let Classification::Segment(_, network, transport) = classify(&frame.bytes[..]) {
            let to = SocketAddr::new(network.destination, u16::from_be(transport.destination_port));
            to_vip += u32::from(to == vip || to == vip6);
            all += 1;
        }
    }
    assert!(to_vip > all / 2 && to_vip < all * 9 / 10, "{to_vip} of {all}");
}
