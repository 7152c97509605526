//! ICMP: errors about balanced connections go to whom they concern, with the headers that they quote changed as if no
//! balancer had been in between (RFC 5508 section 4); echo requests to a VIP are answered.
//!
//! An error quotes the beginning of the packet that it is about. What went to a client has a VIP as its source there; what
//! went to a backend has the backend's endpoint as its destination.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, Choice, Listener, MAX_SIBLINGS, Membership, Mode, Outer, Service};
use lb_common::checksum::Delta;
use lb_common::connection_table::Value;
use lb_common::explain::Decision;
use lb_common::family::{Family, Ipv4, Ipv6, Keys};
use lb_common::outcome::Outcome;
use lb_common::wire::ethernet::{self, Ethernet};
use lb_common::wire::icmp::{self, Messages, Quoted};
use lb_common::wire::ipv4;
use lb_common::wire::network::{Network, UDP};
use lb_common::word::Word as _;

use crate::backend_choice::{Slots, hash_client, hashes};
use crate::connection_table::{Table, is_recent, known_hop, now};
use crate::encapsulate::{encapsulate, overhead};
use crate::explain;
use crate::forward::{How, Verdict};
use crate::maps::{SERVICE_STATES, element};
use crate::own_ports;
use crate::packet::{Packet, Writable as _};
use crate::pipeline::{Towards, leave, way_back};
use crate::rewrite::{self, Rewrite};
use crate::service_lookup::Tables;
use crate::untracked_answer::answers_without_entry;

/// Of echo replies.
const TIME_TO_LIVE: u8 = 64;

/// A family's ICMP, as far as it matters to whoever passes it on.
pub trait Icmp: Rewrite + Messages {
    /// Changes the checksum of a quoted header of the family by a delta, and gives what that changes in the sum of whatever
    /// quotes it.
    fn change_quoted_checksum(packet: &Packet, at: usize, delta: Delta) -> Result<Delta, Outcome>;

    /// Where the addresses lie in a header.
    const SOURCE: usize;
    const DESTINATION: usize;

    /// Writes an address of a quoted header.
    fn put_address(packet: &Packet, at: usize, address: Self::Address) -> Result<(), Outcome>;
}

impl Icmp for Ipv4 {
    const SOURCE: usize = 12;
    const DESTINATION: usize = 16;

    #[inline(always)]
    fn change_quoted_checksum(packet: &Packet, at: usize, delta: Delta) -> Result<Delta, Outcome> {
        let mut header = packet
            .window_mut::<{ ipv4::LENGTH }>(at)
            .ok_or(Outcome::Impossible)?;
        let old = header.field::<u16, 10>();
        let new = delta.apply(old);
        header.set::<u16, 10>(new);
        Ok(Delta::of_word(old, new))
    }

    #[inline(always)]
    fn put_address(packet: &Packet, at: usize, address: u32) -> Result<(), Outcome> {
        packet
            .window_mut::<4>(at)
            .ok_or(Outcome::Impossible)?
            .set::<u32, 0>(address);
        Ok(())
    }
}

impl Icmp for Ipv6 {
    const SOURCE: usize = 8;
    const DESTINATION: usize = 24;

    #[inline(always)]
    fn change_quoted_checksum(_: &Packet, _: usize, _: Delta) -> Result<Delta, Outcome> {
        Ok(Delta::ZERO)
    }

    #[inline(always)]
    fn put_address(packet: &Packet, at: usize, address: [u64; 2]) -> Result<(), Outcome> {
        packet
            .window_mut::<16>(at)
            .ok_or(Outcome::Impossible)?
            .set::<[u64; 2], 0>(address);
        Ok(())
    }
}

/// A message and what it quotes.
struct Message<F: Family> {
    network: Network<F::Address>,
    quoted: Quoted<F::Address>,
}

/// Decides about an ICMP message and changes it accordingly.
#[inline(always)]
pub fn run<F: Icmp + Table<3>>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let packet = Packet::of(context);
    let (ethernet, _) = ethernet::parse(&packet)?;
    let network = F::parse(&packet)?;
    let kind = icmp::kind::<F, _>(&packet, &network)?;
    let tables = Tables::active()?;
    if kind == F::ECHO_REQUEST {
        return answer_echo::<F>(&packet, &tables, ethernet, &network);
    }
    if !F::is_error(kind) {
        return Err(Outcome::IcmpNotOurs);
    }
    let quoted = icmp::quoted::<F, _>(&packet, &network)?;
    concern::<F>(context, &tables, &Message { network, quoted })
}

/// Finds out whom an error concerns.
#[inline(always)]
fn concern<F: Icmp + Table<3>>(
    context: &XdpContext,
    tables: &Tables,
    message: &Message<F>,
) -> Result<Verdict, Outcome> {
    let quoted = &message.quoted.network;
    if let Some(listener) = tables.listener::<F>(quoted.source, message.quoted.source_port, quoted.protocol) {
        let towards = backend_of(tables, message, listener).ok_or(Outcome::IcmpNotOurs)?;
        return to_backend(context, tables, message, towards);
    }
    let first = tables
        .membership::<F>(
            quoted.destination,
            message.quoted.destination_port,
            quoted.protocol,
        )
        .ok_or(Outcome::IcmpNotOurs)?;
    let first = Membership::unpack(first.get());
    // Variables, and not an `Option` of all of them: what that leaves undefined, LLVM computes with all the same.
    let (mut candidate, mut client, mut port) = (first, quoted.source, message.quoted.source_port);
    let mut hop = NO_ENTRY;
    for _ in 0..MAX_SIBLINGS {
        if let Some((address, client_port, value)) = client_of(tables, message, candidate) {
            (client, port, hop) = (address, client_port, u32::from(value.hop()));
            break;
        }
        match tables.next_membership(candidate) {
            Some(next) => candidate = Membership::unpack(next.get()),
            None => break,
        }
    }
    if hop == NO_ENTRY && !answers_without_entry(first, false)? {
        return Err(Outcome::IcmpNotOurs);
    }
    to_client(context, tables, message, candidate, (client, port), hop)
}

/// The entry of a connection, in whichever table it is.
#[inline(always)]
fn entry<F: Icmp + Table<3>>(
    wide: bool,
    client: F::Address,
    port: u16,
    service: u16,
    vip_port: u16,
) -> Option<Value> {
    let ipv4 = Ipv4::narrowed(F::widened(client));
    if F::VERSION == 4 && !wide {
        return find::<Ipv4, 1>(ipv4, port, service, vip_port);
    }
    find::<F, 3>(client, port, service, vip_port)
}

#[inline(always)]
fn find<F: Table<K> + Keys<K>, const K: usize>(
    client: F::Address,
    port: u16,
    service: u16,
    vip_port: u16,
) -> Option<Value> {
    let key = F::key(client, port, service, vip_port);
    let (_, value) = F::find(&key)?;
    Some(value)
}

/// The backend that had sent what an error is about to a client: the one that the connection's entry names, or where there
/// need be none, the one that hashing gives.
#[inline(always)]
fn backend_of<F: Icmp + Table<3>>(
    tables: &Tables,
    message: &Message<F>,
    listener: Listener,
) -> Option<Towards> {
    let (client, port, number) = (
        message.quoted.network.destination,
        message.quoted.destination_port,
        listener.number(),
    );
    let wide = listener.is(Listener::WIDE);
    let stateless = listener.is(Listener::STATELESS);
    if !stateless {
        let vip_port = if wide { message.quoted.source_port } else { 0 };
        if let Some(value) = entry::<F>(wide, client, port, number, vip_port) {
            return Some(Towards::of(value));
        }
    }
    let service = tables.service(number).ok()?;
    let vip_port = u16::from_be(message.quoted.source_port);
    let [first, last] = service.ports;
    if service.flags & Service::LEAVING != 0 || vip_port < first || vip_port > last {
        return None;
    }
    let state = element(&SERVICE_STATES, u32::from(number))?;
    if !(stateless || hashes(service) || is_recent(state.untracked.load(), now())) {
        return None;
    }
    let by_source = service.choice == Choice::Source as u32;
    let hash = hash_client::<F>(client, if by_source { 0 } else { port });
    let mut id = Slots::of(service)?.by_hash(tables, hash).ok()?;
    // As its packets go that are not remembered.
    if !stateless
        && hashes(service)
        && let Some(before) = Slots::before(service)
    {
        let before = before.by_hash(tables, hash).ok()?;
        if tables
            .backend(before)
            .is_some_and(|backend| backend.flags & Backend::UP != 0)
        {
            id = before;
        }
    }
    let full_nat = tables.backend(id)?.mode == Mode::FullNat as u8;
    (!full_nat).then_some(Towards { id, port: 0 })
}

/// The client that had sent what an error is about to a backend, by way of one of the backend's services.
#[inline(always)]
fn client_of<F: Icmp + Table<3>>(
    tables: &Tables,
    message: &Message<F>,
    candidate: Membership,
) -> Option<(F::Address, u16, Value)> {
    let wide = candidate.is(Membership::WIDE);
    let vip_port = if wide { message.quoted.destination_port } else { 0 };
    let (client, port) = if candidate.is(Membership::FULL_NAT) {
        let outer: &Outer = tables.outer(candidate.backend).ok()?;
        let owner =
            own_ports::owner_of::<F>(outer, message.quoted.network.source, message.quoted.source_port)?;
        (owner.address, owner.port)
    } else {
        (message.quoted.network.source, message.quoted.source_port)
    };
    let value = entry::<F>(wide, client, port, candidate.service, vip_port)?;
    let own_port =
        candidate.is(Membership::FULL_NAT) && value.port() != u16::from_be(message.quoted.source_port);
    if value.backend() != candidate.backend || own_port {
        return None;
    }
    Some((client, port, value))
}

/// An end of the quoted packet as it is to be.
struct End<A> {
    address: A,
    /// As in the packet; 0: unchanged.
    port: u16,
}

/// Source and destination of the quoted packet, where they change.
type Ends<A> = (Option<End<A>>, Option<End<A>>);

#[inline(always)]
fn to_backend<F: Icmp>(
    context: &XdpContext,
    tables: &Tables,
    message: &Message<F>,
    towards: Towards,
) -> Result<Verdict, Outcome> {
    if message.network.time_to_live <= 1 {
        return Err(Outcome::TimeToLiveOver);
    }
    explain::note(Decision::Concerns, u64::from(towards.id), 0);
    let backend = tables.backend(towards.id).ok_or(Outcome::Impossible)?;
    if !F::is(message.quoted.network.source, &backend.vip) {
        return Err(Outcome::IcmpNotOurs);
    }
    if backend.interface_index == 0 && backend.mode != Mode::Nat as u8 {
        return Err(Outcome::NeighbourUnknown);
    }
    let leaves = || Verdict::leaves(context, Outcome::IcmpToBackend, backend.interface_index);
    let ethernet = backend.ethernet;
    if backend.mode == Mode::Ipip as u8 {
        let length = message.network.length;
        // An error is never answered with an error (RFC 1122 section 3.2.2).
        if (length + overhead(backend)) as u32 > tables.smallest_mtu() && tables.smallest_mtu() != 0 {
            return Err(Outcome::TooBigUnanswered);
        }
        encapsulate::<F>(context, length, backend, tables.outer(towards.id)?, ethernet)?;
        return Ok(leaves());
    }
    let packet = Packet::of(context);
    if backend.mode != Mode::Dsr as u8 {
        let address = F::of_record(&backend.address);
        let server = End {
            address,
            port: u16::from_ne_bytes(backend.port),
        };
        let (source, client) = if backend.mode == Mode::FullNat as u8 {
            let own = F::of_record(&tables.outer(towards.id)?.source);
            let end = End {
                address: own,
                port: towards.port.to_be(),
            };
            (Some(own), Some(end))
        } else {
            (None, None)
        };
        change(&packet, message, (source, Some(address)), (Some(server), client))?;
    }
    if backend.interface_index == 0 {
        return Err(Outcome::ToBackendByKernel);
    }
    rewrite::ethernet(&packet, ethernet)?;
    Ok(leaves())
}

/// Instead of the number of the hop that an entry names, where there is no entry: above all of them, and unknown.
const NO_ENTRY: u32 = 1 << 16;

#[inline(always)]
fn to_client<F: Icmp>(
    context: &XdpContext,
    tables: &Tables,
    message: &Message<F>,
    candidate: Membership,
    (client, port): (F::Address, u16),
    hop: u32,
) -> Result<Verdict, Outcome> {
    if message.network.time_to_live <= 1 {
        return Err(Outcome::TimeToLiveOver);
    }
    explain::note(Decision::Concerns, u64::from(candidate.backend), 0);
    let backend: &Backend = tables.backend(candidate.backend).ok_or(Outcome::Impossible)?;
    let address = F::of_record(&backend.address);
    if address != message.quoted.network.destination {
        return Err(Outcome::IcmpNotOurs);
    }
    let vip = F::of_record(&backend.vip);
    let route = way_back::<F>(context, known_hop(hop as u16), vip, client);
    if hop == NO_ENTRY && route.how == How::NotForwarded {
        // About a packet of the host's own.
        return Err(Outcome::IcmpNotOurs);
    }
    // What the backend itself says comes from the service; what a router says, from the router.
    let source = (message.network.source == address).then_some(vip);
    let hidden = candidate.is(Membership::FULL_NAT);
    let packet = Packet::of(context);
    let server = End {
        address: vip,
        port: u16::from_ne_bytes(backend.vip_port),
    };
    let sender = hidden.then_some(End {
        address: client,
        port,
    });
    change(
        &packet,
        message,
        (source, hidden.then_some(client)),
        (sender, Some(server)),
    )?;
    leave(context, route, Outcome::IcmpToClient, Outcome::ToClientByKernel)
}

/// Changes source and destination of the message, and those of what it quotes.
#[inline(always)]
fn change<F: Icmp>(
    packet: &Packet,
    message: &Message<F>,
    (source, destination): (Option<F::Address>, Option<F::Address>),
    (quoted_source, quoted_destination): Ends<F::Address>,
) -> Result<(), Outcome> {
    let network = &message.network;
    let mut outer = Delta::ZERO;
    if let Some(new) = source {
        outer = outer.and(F::delta(network.source, new));
    }
    if let Some(new) = destination {
        outer = outer.and(F::delta(network.destination, new));
    }
    F::route(packet, source, destination, outer)?;

    let quoted = &message.quoted.network;
    let (mut addresses, mut ports) = (Delta::ZERO, Delta::ZERO);
    if let Some(end) = quoted_source {
        addresses = addresses.and(F::delta(quoted.source, end.address));
        F::put_address(packet, message.quoted.offset + F::SOURCE, end.address)?;
        if end.port != 0 {
            ports = ports.and(Delta::of_word(message.quoted.source_port, end.port));
            put_word(packet, quoted.transport_offset, end.port)?;
        }
    }
    if let Some(end) = quoted_destination {
        addresses = addresses.and(F::delta(quoted.destination, end.address));
        F::put_address(packet, message.quoted.offset + F::DESTINATION, end.address)?;
        if end.port != 0 {
            ports = ports.and(Delta::of_word(message.quoted.destination_port, end.port));
            put_word(packet, quoted.transport_offset + 2, end.port)?;
        }
    }
    let header = F::change_quoted_checksum(packet, message.quoted.offset, addresses)?;
    let transport = change_quoted_transport(packet, &message.quoted, addresses.and(ports));
    let delta = F::pseudo_header(outer)
        .and(addresses)
        .and(ports)
        .and(header)
        .and(transport);
    let at = network.transport_offset + icmp::CHECKSUM;
    let mut window = packet.window_mut::<2>(at).ok_or(Outcome::Impossible)?;
    let checksum = window.field::<u16, 0>();
    window.set::<u16, 0>(delta.apply(checksum));
    Ok(())
}

#[inline(always)]
fn put_word(packet: &Packet, at: usize, word: u16) -> Result<(), Outcome> {
    packet
        .window_mut::<2>(at)
        .ok_or(Outcome::Impossible)?
        .set::<u16, 0>(word);
    Ok(())
}

/// The checksum of the quoted TCP or UDP header, if the quote is long enough to have it.
#[inline(always)]
fn change_quoted_transport<A>(packet: &Packet, quoted: &Quoted<A>, delta: Delta) -> Delta {
    let (at, is_udp) = (quoted.checksum_offset, quoted.network.protocol == UDP);
    if at == 0 {
        return Delta::ZERO;
    }
    let Some(mut window) = packet.window_mut::<2>(at) else {
        return Delta::ZERO;
    };
    let old = window.field::<u16, 0>();
    if is_udp && old == 0 {
        return Delta::ZERO;
    }
    let new = match delta.apply(old) {
        0 if is_udp => 0xffff,
        new => new,
    };
    window.set::<u16, 0>(new);
    Delta::of_word(old, new)
}

/// Turns an echo request to a VIP into its reply.
#[inline(always)]
fn answer_echo<F: Icmp>(
    packet: &Packet,
    tables: &Tables,
    ethernet: Ethernet,
    network: &Network<F::Address>,
) -> Result<Verdict, Outcome> {
    let vip = tables.vip::<F>(network.destination).ok_or(Outcome::IcmpNotOurs)?;
    if !vip.is(Listener::ANSWERS_ECHO) {
        return Err(Outcome::IcmpNotOurs);
    }
    F::renew(packet, TIME_TO_LIVE + 1)?;
    // Swapped addresses have the same sum, so that only the time to live changes the header's checksum.
    F::route(
        packet,
        Some(network.destination),
        Some(network.source),
        Delta::ZERO,
    )?;
    let mut header = packet
        .window_mut::<{ icmp::LENGTH }>(network.transport_offset)
        .ok_or(Outcome::Impossible)?;
    let old = header.field::<u16, 0>();
    let [_, code] = old.to_ne_bytes();
    let new = u16::from_ne_bytes([F::ECHO_REPLY, code]);
    header.set::<u16, 0>(new);
    let checksum = header.field::<u16, { icmp::CHECKSUM }>();
    header.set::<u16, { icmp::CHECKSUM }>(Delta::of_word(old, new).apply(checksum));
    let back = Ethernet {
        destination: ethernet.source,
        source: ethernet.destination,
    };
    rewrite::ethernet(packet, back.to_words())?;
    Err(Outcome::EchoAnswered)
}
