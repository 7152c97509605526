//! Frames that are whole, field by field.

use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, VlanId};

use super::header::{Header, ipv4_header, ipv6_header};
use super::payload::{payload, rest};
use super::{LONGEST, Made, Packet, Part, RandomFrames};

/// The least length of a frame on a wire, without its checksum.
const PADDED: usize = 60;

const BROADCAST: [u8; 6] = [0xff; 6];

/// The next frame of a sequence.
pub(super) fn frame(frames: &mut RandomFrames) -> (Made, Vec<u8>) {
    loop {
        let (made, frame) = frame_of_any_length(frames);
        // One of several million has so many long extension headers that it does not fit.
        if frame.len() <= LONGEST {
            return (made, frame);
        }
    }
}

fn frame_of_any_length(frames: &mut RandomFrames) -> (Made, Vec<u8>) {
    let random = &mut frames.random;
    let destination = match random.u8(..) {
        0..8 => BROADCAST,
        8..16 => [0x33, 0x33, 0, 0, 0, random.u8(..)],
        _ => [2, 0, 0, 0, 1, random.u8(..4)],
    };
    let source = [2, 0, 0, 0, 2, random.u8(..4)];
    let tags = match random.u8(..) {
        0..8 => 1,
        8..12 => 2,
        _ => 0,
    };
    let is_other = random.u8(..) < 8;
    let (packet, mut bytes, kind) = if is_other {
        let kind = random.choice([EtherType::ARP, EtherType(0x88cc), EtherType(0), EtherType(1500)]);
        let bytes: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
        (None, bytes, kind.unwrap_or(EtherType::ARP))
    } else {
        let ipv6 = frames.random.bool();
        let (packet, bytes) = packet(frames, ipv6, true);
        let kind = if packet.source.is_ipv6() {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        };
        (Some(packet), bytes, kind)
    };
    let mut frame = ethernet(source, destination, tags, kind);
    frame.append(&mut bytes);
    if frame.len() < PADDED && frames.random.bool() {
        frame.resize(PADDED, 0);
    }
    let made = Made {
        addresses: [destination, source],
        tags,
        packet,
    };
    (made, frame)
}

/// The headers up to what the frame carries. An outer tag is 802.1ad's or, as many switches have it, 802.1Q's.
fn ethernet(source: [u8; 6], destination: [u8; 6], tags: usize, kind: EtherType) -> Vec<u8> {
    let tag_kinds = match tags {
        0 => vec![],
        1 => vec![EtherType::VLAN_TAGGED_FRAME],
        _ => vec![EtherType::PROVIDER_BRIDGING, EtherType::VLAN_TAGGED_FRAME],
    };
    let mut kinds = tag_kinds.clone();
    kinds.push(kind);
    let header = Ethernet2Header {
        source,
        destination,
        ether_type: kinds[0],
    };
    let mut bytes = header.to_bytes().to_vec();
    for inside in &kinds[1..] {
        let tag = SingleVlanHeader {
            vlan_id: VlanId::try_new(7).expect("less than 4,096"),
            ether_type: *inside,
            ..SingleVlanHeader::default()
        };
        bytes.extend(tag.to_bytes());
    }
    bytes
}

/// A packet. `may_be_error`: an error's packet is about none that is one itself.
pub(super) fn packet(frames: &mut RandomFrames, ipv6: bool, may_be_error: bool) -> (Packet, Vec<u8>) {
    let (from, to) = (frames.endpoint(ipv6), frames.endpoint(ipv6));
    let part = match frames.random.u8(..) {
        0..8 => Part::First,
        8..16 => Part::Later,
        _ => Part::Whole,
    };
    let (payload, protocol, bytes) = match part {
        Part::Later => rest(&mut frames.random, ipv6),
        Part::Whole | Part::First => payload(frames, from, to, may_be_error),
    };
    let header = Header {
        source: from.ip(),
        destination: to.ip(),
        time_to_live: frames.random.choice([64, 64, 64, 63, 255, 2, 1, 0]).unwrap_or(64),
        part,
        protocol,
        carried: bytes.len(),
    };
    let made = if ipv6 {
        ipv6_header(&mut frames.random, &header)
    } else {
        ipv4_header(&mut frames.random, &header)
    };
    let packet = Packet {
        source: from.ip(),
        destination: to.ip(),
        time_to_live: header.time_to_live,
        part,
        identification: made.identification,
        extensions: made.extensions,
        headers: made.bytes.len(),
        length: made.bytes.len() + bytes.len(),
        payload,
    };
    (packet, [made.bytes, bytes].concat())
}
