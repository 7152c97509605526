//! Frames of every kind, half of them damaged: the loaded program and the host's code agree about each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use lb::config::Protocol;
use lb::dataplane::ServiceEntry;
use lb_common::outcome::{OUTCOMES, Outcome};
use lb_common::wire::classify::{Classification, classify};
use lb_common::wire::network::{Network, TCP};
use lb_common::wire::transport::Transport;
use lb_tests::harness::{Case, report};
use lb_tests::random_frames::{Part, Payload, RandomFrame, RandomFrames};

use crate::kind::{Family, Flavour, Kind, Mode};
use crate::seen::action_number;
use crate::world::World;

pub fn cases() -> Vec<Case> {
    (1..=SEEDS)
        .map(|seed| {
            let name = format!("random::program_and_host_agree_about_{FRAMES}_frames_of_seed_{seed}");
            Case::new(name, move || agree(seed))
        })
        .collect()
}

const SEEDS: u64 = 4;
const FRAMES: u32 = 125_000;

/// Services of every family, protocol and mode, each VIP with one mode.
struct Site {
    services: Vec<ServiceEntry>,
    kinds: Vec<Kind>,
}

impl Site {
    fn new() -> Self {
        let mut kinds = Vec::new();
        for mode in [Mode::Nat, Mode::Dsr, Mode::Ipip] {
            for family in [Family::Ipv4, Family::Ipv6] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    kinds.push(Kind {
                        mode,
                        family,
                        protocol,
                        flavour: Flavour::Plain,
                    });
                }
            }
        }
        let services = (0..).zip(&kinds).map(|(number, kind)| {
            let backends = [1, 2].map(|server| lb::dataplane::BackendEntry {
                id: number * 2 + u16::from(server),
                ..kind.backend(server)
            });
            ServiceEntry {
                number: number + 1,
                vip: vip(*kind),
                answer_ping: kind.mode == Mode::Nat,
                ..kind.service_of(backends.into())
            }
        });
        Self {
            services: services.collect(),
            kinds,
        }
    }

    /// Whoever packets should mostly be between.
    fn endpoints(&self) -> Vec<SocketAddr> {
        let mut endpoints = Vec::new();
        for kind in &self.kinds {
            endpoints.push(SocketAddr::new(vip(*kind), kind.port()));
            endpoints.extend([1, 2].map(|server| kind.endpoint(server)));
            endpoints.extend([1, 2, 3].map(|client| kind.client(client)));
        }
        endpoints
    }

    /// The mode of the service that listens on an endpoint.
    fn listener(&self, address: IpAddr, port: u16, protocol: u8) -> Option<Mode> {
        let kind = self.kinds.iter().find(|kind| {
            vip(**kind) == address && kind.port() == port && number_of(kind.protocol) == protocol
        });
        kind.map(|kind| kind.mode)
    }

    fn is_backend(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        self.kinds.iter().any(|kind| {
            let is_one = |server| kind.endpoint(server) == SocketAddr::new(address, port);
            kind.mode == Mode::Nat && number_of(kind.protocol) == protocol && (is_one(1) || is_one(2))
        })
    }

    fn is_vip(&self, address: IpAddr) -> bool {
        self.kinds.iter().any(|kind| vip(*kind) == address)
    }

    fn answers_ping(&self, address: IpAddr) -> bool {
        let mut kinds = self.kinds.iter();
        kinds.any(|kind| vip(*kind) == address && kind.mode == Mode::Nat)
    }

    /// What a frame may come to.
    fn possible(&self, found: &Classification) -> Vec<Outcome> {
        use Outcome::{
            EchoAnswered, FragmentOfNobody, FragmentToBackend, FragmentToClient, FragmentUnmatched,
            IcmpNotOurs, IcmpToBackend, IcmpToClient, NoConnection, NotOurs, TimeToLiveOver, ToBackend,
            ToBackendAtRisk, ToClient, TooBig, TooBigUnanswered,
        };
        match found {
            Classification::Passes(outcome) => vec![*outcome],
            Classification::Segment(_, network, transport) => self.of_segment(network, transport).unwrap_or(
                if self.is_backend(
                    network.source,
                    u16::from_be(transport.source_port),
                    network.protocol,
                ) {
                    vec![ToClient, NoConnection, TimeToLiveOver]
                } else {
                    vec![NotOurs]
                },
            ),
            Classification::LaterFragment(_, network) => {
                let mut possible = vec![
                    FragmentToBackend,
                    FragmentToClient,
                    FragmentOfNobody,
                    TimeToLiveOver,
                ];
                if self.is_vip(network.destination) {
                    possible.extend([FragmentUnmatched, TooBig, TooBigUnanswered]);
                }
                possible
            }
            Classification::EchoRequest(_, network) if self.answers_ping(network.destination) => {
                vec![EchoAnswered]
            }
            Classification::EchoRequest(..) => vec![IcmpNotOurs],
            Classification::Error(..) => {
                vec![
                    IcmpToBackend,
                    IcmpToClient,
                    IcmpNotOurs,
                    TimeToLiveOver,
                    TooBigUnanswered,
                ]
            }
        }
        .into_iter()
        .chain(matches!(found, Classification::Segment(..)).then_some(ToBackendAtRisk))
        .filter(|outcome| *outcome != ToBackendAtRisk || self.is_client(found))
        .filter(|outcome| *outcome != ToBackend || self.is_client(found))
        .collect()
    }

    fn of_segment(&self, network: &Network<IpAddr>, transport: &Transport) -> Option<Vec<Outcome>> {
        let port = u16::from_be(transport.destination_port);
        let mode = self.listener(network.destination, port, network.protocol)?;
        let mut possible = vec![Outcome::ToBackend, Outcome::TimeToLiveOver];
        if mode == Mode::Ipip {
            possible.extend([Outcome::TooBig, Outcome::TooBigUnanswered]);
        }
        if mode == Mode::Nat {
            // Frames from a backend to its own service.
            possible.push(Outcome::HairpinToSelf);
        }
        Some(possible)
    }

    fn is_client(&self, found: &Classification) -> bool {
        let Classification::Segment(_, network, transport) = found else {
            return false;
        };
        let port = u16::from_be(transport.destination_port);
        self.listener(network.destination, port, network.protocol)
            .is_some()
    }
}

/// The VIP of a kind: one for each mode and family.
fn vip(kind: Kind) -> IpAddr {
    let mode = kind.mode as u8;
    match kind.vip().ip() {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) + u32::from(mode)).to_be_bytes()),
        IpAddr::V6(address) => IpAddr::from((u128::from(address) + u128::from(mode)).to_be_bytes()),
    }
}

fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => lb_common::wire::network::UDP,
    }
}

fn agree(seed: u64) -> anyhow::Result<()> {
    let site = Site::new();
    let world = World::new(&site.services)?;
    let mut counted = world.outcomes()?;
    let mut shares = BTreeMap::<&str, u32>::new();
    let mut valid = 0;
    for (number, frame) in RandomFrames::new(seed, &site.endpoints())
        .take(FRAMES as usize)
        .enumerate()
    {
        let (action, out) = world.pass(&frame.bytes)?;
        let now = world.outcomes()?;
        let moved: Vec<_> = OUTCOMES
            .iter()
            .filter(|outcome| now[outcome.name()] != counted[outcome.name()])
            .collect();
        counted = now;
        let of = || format!("frame {number} of seed {seed}: {frame:02x?}\nleft as {out:02x?}");
        let [outcome] = moved[..] else {
            anyhow::bail!("{moved:?}: {}", of());
        };
        *shares.entry(outcome.name()).or_default() += 1;
        let possible = site.possible(&classify(&frame.bytes[..]));
        ensure!(
            possible.contains(outcome),
            "{outcome:?} is none of {possible:?}: {}",
            of()
        );
        let expected = [
            action_number(outcome.action()),
            action_number(lb_common::outcome::Action::Transmit),
        ];
        let is_answer = matches!(
            outcome,
            Outcome::ToClient | Outcome::IcmpToClient | Outcome::FragmentToClient
        );
        ensure!(
            action == expected[usize::from(is_answer)],
            "action {action}: {}",
            of()
        );
        let changes = !matches!(
            outcome.action(),
            lb_common::outcome::Action::Pass | lb_common::outcome::Action::Drop
        );
        ensure!(changes || out == frame.bytes, "{outcome:?} changes it: {}", of());
        if changes && !frame.damaged {
            valid += u32::from(is_whole(&frame));
            checksums(&frame, &out).with_context(of)?;
        }
    }
    ensure!(shares.len() >= 19, "only {shares:?}");
    ensure!(
        valid > FRAMES / 100,
        "only {valid} of the frames said anything about checksums"
    );
    report(
        "random frames, half of them damaged, about which the program and the host agree",
        format!(
            "seed {seed}: {FRAMES} frames came to {} outcomes; checksums of {valid} that were sent on are right",
            shares.len()
        ),
    );
    Ok(())
}

/// Whether it has all of its datagram, so that its checksum can be checked.
fn is_whole(frame: &RandomFrame) -> bool {
    frame.made.packet.as_ref().is_some_and(|packet| {
        packet.part == Part::Whole && matches!(packet.payload, Payload::Tcp { .. } | Payload::Udp { .. })
    })
}

/// What left has the checksums that etherparse computes, if what came had.
fn checksums(frame: &RandomFrame, out: &[u8]) -> anyhow::Result<()> {
    if !is_whole(frame) {
        return Ok(());
    }
    let came = is_valid(&frame.bytes)?;
    ensure!(came != Some(false), "the frame was made with a wrong checksum");
    ensure!(is_valid(out)? != Some(false), "a wrong checksum leaves");
    Ok(())
}

/// Whether a TCP segment or UDP datagram has the right checksum; `None`: it is none, or has none, or extension headers in an
/// order that etherparse does not read.
fn is_valid(frame: &[u8]) -> anyhow::Result<Option<bool>> {
    let Ok(mut headers) = PacketHeaders::from_ethernet_slice(frame) else {
        return Ok(None);
    };
    // What is in a tunnel's packet.
    if headers.transport.is_none() && !headers.payload.slice().is_empty() {
        let inside = headers.payload.slice();
        headers = match PacketHeaders::from_ip_slice(inside) {
            Ok(headers) => headers,
            Err(_) => return Ok(None),
        };
    }
    let payload = headers.payload.slice();
    let (found, expected) = match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            (tcp.checksum, tcp.calc_checksum_ipv4(ip, payload)?)
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            (tcp.checksum, tcp.calc_checksum_ipv6(ip, payload)?)
        }
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) if udp.checksum != 0 => {
            (udp.checksum, udp.calc_checksum_ipv4(ip, payload)?)
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            (udp.checksum, udp.calc_checksum_ipv6(ip, payload)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(found == expected))
}
