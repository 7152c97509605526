//! The stages of a packet's life, in order.

use core::num::NonZeroU64;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, Listener, MAX_SIBLINGS, Membership, Mode, Outer, Stage};
use lb_common::checksum::Delta;
use lb_common::connection_table::{Value, Way};
use lb_common::explain::Decision;
use lb_common::family::{Family, Ipv4, Ipv6};
use lb_common::outcome::Outcome;
use lb_common::return_hop::Hop;
use lb_common::tcp_state::{Sender, State};
use lb_common::wire::Frame;
use lb_common::wire::ethernet::{self, Carries, Ethernet};
use lb_common::wire::network::{Fragment, Network};
use lb_common::wire::segment::{self, Kind};
use lb_common::wire::transport::TCP_LENGTH;

use crate::answer::answer;
use crate::connection_table::{self, Table, answers_are_seen, known_hop};
use crate::encapsulate::{encapsulate, overhead};
use crate::forward::{How, Route, Verdict, route};
use crate::maps::PROGRAMS;
use crate::mtu::{self, Otherwise};
use crate::own_ports;
use crate::packet::{Front, Packet, Writable};
use crate::parse::{Segment, parse};
use crate::rewrite::{self, Rewrite};
use crate::service_lookup::{self, Tables};
use crate::word::SharedWord;
use crate::{counters, explain, fragment, global, trace};

/// A family whose packets go this way, the programs that go on with those that do not, and the functions that the
/// verifier looks at by themselves.
pub trait Path<const K: usize>: Table<K> + Rewrite {
    /// What is not [`ordinary`].
    const OTHER_STAGE: Stage;
    /// ICMP.
    const ICMP_STAGE: Stage;
    /// Later fragments.
    const FRAGMENT_STAGE: Stage;
    /// Clients' packets of connections that are not known.
    const NEW_STAGE: Stage;
    /// Backends' packets of connections that are not known.
    const UNTRACKED_STAGE: Stage;
    /// Packets that are answered in a backend's stead.
    const ANSWER_STAGE: Stage;

    /// [`crate::new_connection::store`].
    fn store(which: u32, key: [u64; K], value: u64) -> u64;
    /// [`connection_table::note_change`].
    fn note_change(key: [u64; K], seen: u32, copy: u32) -> u64;
    /// [`crate::own_ports::give`].
    fn give_port(which: u32, low: u64, high: u64, owner: u64, now: u16) -> u64;
    /// [`fragment::note`].
    fn note_fragment(context: *mut xdp_md, noted: u64, low: u64, high: u64) -> u64;
    /// [`crate::backend_choice::collides`].
    fn collides(context: *mut xdp_md, copy: u32, number: u16, id: u16) -> u64;
    /// [`sibling`].
    fn sibling(context: *mut xdp_md, copy: u32, first: u64) -> u64;
}

impl Path<1> for Ipv4 {
    const OTHER_STAGE: Stage = Stage::Ipv4;
    const ICMP_STAGE: Stage = Stage::Icmp;
    const FRAGMENT_STAGE: Stage = Stage::Ipv4Fragment;
    const NEW_STAGE: Stage = Stage::NewIpv4;
    const UNTRACKED_STAGE: Stage = Stage::UntrackedIpv4;
    const ANSWER_STAGE: Stage = Stage::AnswerIpv4;

    #[inline(always)]
    fn store(which: u32, [key]: [u64; 1], value: u64) -> u64 {
        global::store(which, key, value)
    }

    #[inline(always)]
    fn note_change([key]: [u64; 1], seen: u32, copy: u32) -> u64 {
        global::note_change(key, seen, copy)
    }

    #[inline(always)]
    fn give_port(which: u32, low: u64, high: u64, owner: u64, now: u16) -> u64 {
        global::give_port(which, low, high, owner, now)
    }

    #[inline(always)]
    fn note_fragment(context: *mut xdp_md, noted: u64, low: u64, high: u64) -> u64 {
        global::note_fragment_ipv4(context, noted, low, high)
    }

    #[inline(always)]
    fn collides(context: *mut xdp_md, copy: u32, number: u16, id: u16) -> u64 {
        global::collides_ipv4(context, copy, number, id)
    }

    #[inline(always)]
    fn sibling(context: *mut xdp_md, copy: u32, first: u64) -> u64 {
        global::sibling_ipv4(context, copy, first)
    }
}

impl Path<3> for Ipv4 {
    const OTHER_STAGE: Stage = Stage::Ipv4Wide;
    const ICMP_STAGE: Stage = Stage::Icmp;
    const FRAGMENT_STAGE: Stage = Stage::Ipv4Fragment;
    const NEW_STAGE: Stage = Stage::NewIpv4Wide;
    const UNTRACKED_STAGE: Stage = Stage::UntrackedIpv4Wide;
    const ANSWER_STAGE: Stage = Stage::AnswerIpv4;

    #[inline(always)]
    fn store(which: u32, [a, b, c]: [u64; 3], value: u64) -> u64 {
        global::store_wide(which, a, b, c, value)
    }

    #[inline(always)]
    fn note_change([a, b, c]: [u64; 3], seen: u32, copy: u32) -> u64 {
        global::note_change_wide(a, b, c, seen, copy)
    }

    #[inline(always)]
    fn give_port(which: u32, low: u64, high: u64, owner: u64, now: u16) -> u64 {
        global::give_port_wide(which, low, high, owner, now)
    }

    #[inline(always)]
    fn note_fragment(context: *mut xdp_md, noted: u64, low: u64, high: u64) -> u64 {
        global::note_fragment_ipv4(context, noted, low, high)
    }

    #[inline(always)]
    fn collides(context: *mut xdp_md, copy: u32, number: u16, id: u16) -> u64 {
        global::collides_ipv4_wide(context, copy, number, id)
    }

    #[inline(always)]
    fn sibling(context: *mut xdp_md, copy: u32, first: u64) -> u64 {
        global::sibling_ipv4_wide(context, copy, first)
    }
}

impl Path<3> for Ipv6 {
    const OTHER_STAGE: Stage = Stage::Ipv6;
    const ICMP_STAGE: Stage = Stage::Icmpv6;
    const FRAGMENT_STAGE: Stage = Stage::Ipv6Fragment;
    const NEW_STAGE: Stage = Stage::NewIpv6;
    const UNTRACKED_STAGE: Stage = Stage::UntrackedIpv6;
    const ANSWER_STAGE: Stage = Stage::AnswerIpv6;

    #[inline(always)]
    fn store(which: u32, [a, b, c]: [u64; 3], value: u64) -> u64 {
        global::store_wide(which, a, b, c, value)
    }

    #[inline(always)]
    fn note_change([a, b, c]: [u64; 3], seen: u32, copy: u32) -> u64 {
        global::note_change_wide(a, b, c, seen, copy)
    }

    #[inline(always)]
    fn give_port(which: u32, low: u64, high: u64, owner: u64, now: u16) -> u64 {
        global::give_port_wide(which, low, high, owner, now)
    }

    #[inline(always)]
    fn note_fragment(context: *mut xdp_md, noted: u64, low: u64, high: u64) -> u64 {
        global::note_fragment_ipv6(context, noted, low, high)
    }

    #[inline(always)]
    fn collides(context: *mut xdp_md, copy: u32, number: u16, id: u16) -> u64 {
        global::collides_ipv6(context, copy, number, id)
    }

    #[inline(always)]
    fn sibling(context: *mut xdp_md, copy: u32, first: u64) -> u64 {
        global::sibling_ipv6(context, copy, first)
    }
}

/// The backend that a packet goes to, and the balancer's own port that it comes from with `full-nat`.
#[derive(Clone, Copy)]
pub struct Towards {
    pub id: u16,
    /// In the machine's order.
    pub port: u16,
}

impl Towards {
    /// What an entry says.
    #[inline(always)]
    pub fn of(value: Value) -> Self {
        Self {
            id: value.backend(),
            port: value.port(),
        }
    }
}

/// Decides about an ordinary packet and changes it accordingly; leaves others to others.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Outcome> {
    let control = service_lookup::control()?;
    trace::hand_over(context, control);
    let packet = Packet::of(context);
    let Some(front) = front_of::<Ipv4>(&packet) else {
        return Err(match ethernet::parse(&packet)? {
            (_, Carries::Ipv4) => go_on(context, Stage::Ipv4),
            (_, Carries::Ipv6) => go_on(context, Stage::Ipv6),
        });
    };
    let (ethernet, carries) = ethernet::parse(&front)?;
    let tables = Tables::of_control(control);
    if matches!(carries, Carries::Ipv6) {
        let front = front_of::<Ipv6>(&packet).ok_or_else(|| go_on(context, Stage::Ipv6))?;
        return run_ordinary::<Ipv6, 3>(context, front, ethernet, &tables);
    }
    run_ordinary::<Ipv4, 1>(context, front, ethernet, &tables)
}

/// As many bytes as an ordinary packet has at least: all headers, without options or extensions. (UDP's is shorter than TCP's, but
/// so short datagrams are rare.)
#[inline(always)]
fn front_of<F: Family>(packet: &Packet) -> Option<Front> {
    packet.front(ethernet::LENGTH + F::HEADER_LENGTH + TCP_LENGTH)
}

#[inline(always)]
fn run_ordinary<F: Path<K>, const K: usize>(
    context: &XdpContext,
    front: Front,
    ethernet: Ethernet,
    tables: &Tables,
) -> Result<Verdict, Outcome> {
    match ordinary::<F, K>(&front, ethernet) {
        Ok(segment) => judge::<F, K>(context, &segment, tables, Some(front)),
        Err(stage) => Err(go_on(context, stage)),
    }
}

/// The headers of an ordinary packet: neither options nor extensions, a whole datagram, and nothing that is wrong with it. Or whom
/// it is left to.
#[inline(always)]
fn ordinary<F: Path<K>, const K: usize>(front: &Front, ethernet: Ethernet) -> Result<Segment<F>, Stage> {
    const OFFSET: usize = ethernet::LENGTH;
    let other = |_| F::OTHER_STAGE;
    if !F::may_be_plain(front) {
        return Err(F::OTHER_STAGE);
    }
    let network = F::parse(front).map_err(other)?;
    match segment::kind::<F>(&network).map_err(other)? {
        Kind::Segment => {}
        Kind::LaterFragment => return Err(F::FRAGMENT_STAGE),
        Kind::Icmp => return Err(F::ICMP_STAGE),
    }
    if network.transport_offset != OFFSET + F::HEADER_LENGTH || !matches!(network.fragment, Fragment::Whole) {
        return Err(F::OTHER_STAGE);
    }
    // Such that the compiler knows it.
    let network = Network {
        transport_offset: OFFSET + F::HEADER_LENGTH,
        fragment: Fragment::Whole,
        ..network
    };
    segment::with_transport::<F, Front>(front, ethernet, network).map_err(other)
}

/// Decides about a packet of a known family that is not ordinary, or may be so.
#[inline(always)]
pub fn run_family<F: Path<K>, const K: usize>(context: &XdpContext) -> Result<Verdict, Outcome> {
    let packet = Packet::of(context);
    let (ethernet, _) = ethernet::parse(&packet)?;
    let network = F::parse(&packet)?;
    match segment::kind::<F>(&network)? {
        Kind::Segment => {}
        Kind::LaterFragment => return Err(go_on(context, F::FRAGMENT_STAGE)),
        Kind::Icmp => return Err(go_on(context, F::ICMP_STAGE)),
    }
    let segment = segment::with_transport::<F, Packet>(&packet, ethernet, network)?;
    judge::<F, K>(context, &segment, &Tables::active()?, None)
}

/// Leaves the frame to another program, which does not come back.
#[inline(always)]
pub fn go_on(context: &XdpContext, stage: Stage) -> Outcome {
    // SAFETY: the daemon has put programs of this object there.
    unsafe { PROGRAMS.tail_call(context, stage as u32) };
    trace::fall_back(context, stage as u32);
    Outcome::Impossible
}

/// Decides about a segment; `ordinary` are the first bytes of its frame if it is one that the attached program decides about.
#[inline(always)]
fn judge<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    ordinary: Option<Front>,
) -> Result<Verdict, Outcome> {
    let (network, transport) = (&segment.network, &segment.transport);
    let protocol = network.protocol;
    if let Some(listener) = tables.listener::<F>(network.destination, transport.destination_port, protocol) {
        if K == 1 && listener.is(Listener::WIDE) {
            return Err(go_on(context, Stage::Ipv4Wide));
        }
        return from_client::<F, K>(context, segment, tables, listener, ordinary);
    }
    if let Some(membership) = tables.membership::<F>(network.source, transport.source_port, protocol) {
        let membership = Membership::unpack(membership.get());
        if ordinary.is_some() && membership.next == 0 && membership.flags == 0 {
            // As most are: what others may need is left out.
            let membership = Membership {
                next: 0,
                flags: 0,
                ..membership
            };
            return from_backend::<F, K>(context, segment, tables, membership, ordinary);
        }
        if K == 1 && membership.is(Membership::WIDE) {
            return Err(go_on(context, Stage::Ipv4Wide));
        }
        return from_backend::<F, K>(context, segment, tables, membership, ordinary);
    }
    if segment.is_fragment() {
        fragment::note_passed::<F, K>(context, tables, network.destination);
    }
    Err(Outcome::NotOurs)
}

/// Whether a packet may be sent on at all.
#[inline(always)]
pub fn is_forwardable<F: Path<K>, const K: usize>(segment: &Segment<F>) -> Result<(), Outcome> {
    if segment.network.time_to_live <= 1 {
        Err(Outcome::TimeToLiveOver)
    } else {
        Ok(())
    }
}

/// The VIP's port as a key has it.
#[inline(always)]
pub fn vip_port<F: Path<K>, const K: usize>(listener: Listener, segment: &Segment<F>) -> u16 {
    if listener.is(Listener::WIDE) {
        segment.transport.destination_port
    } else {
        0
    }
}

/// A packet to a service, of a known connection; everything else goes to another program.
#[inline(always)]
fn from_client<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    listener: Listener,
    ordinary: Option<Front>,
) -> Result<Verdict, Outcome> {
    let (client, port) = (segment.network.source, segment.transport.source_port);
    let key = F::key(client, port, listener.number(), vip_port(listener, segment));
    if !listener.is(Listener::STATELESS)
        && let Some(entry) = F::find(&key)
        && let Some(backend) = keeps(tables, segment, entry.1)
    {
        let known = Known {
            listener,
            key,
            way: entry.0,
            value: entry.1,
            backend,
        };
        // Most are of this mode: what another one may need is left out.
        const NAT: u8 = Mode::Nat as u8;
        return if ordinary.is_some() && backend.mode == NAT {
            of_known(context, segment, tables, known, NAT, ordinary)
        } else {
            of_known(context, segment, tables, known, backend.mode, ordinary)
        };
    }
    explain::note(Decision::FromClient, listener.0.get(), 0);
    Err(go_on(context, F::NEW_STAGE))
}

/// A connection that is known.
struct Known<const K: usize> {
    listener: Listener,
    key: [u64; K],
    way: &'static Way<SharedWord, K>,
    value: Value,
    backend: &'static Backend,
}

/// A client's packet of a known connection to a backend of this mode.
#[inline(always)]
fn of_known<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    known: Known<K>,
    mode: u8,
    ordinary: Option<Front>,
) -> Result<Verdict, Outcome> {
    let Known {
        listener,
        key,
        way,
        value,
        backend,
    } = known;
    if ordinary.is_some() && !goes_its_way(tables, segment, backend, mode) {
        return Err(go_on(context, F::OTHER_STAGE));
    }
    explain::note(Decision::FromClient, listener.0.get(), value.0);
    is_forwardable(segment)?;
    if backend.flags & Backend::RESET != 0 {
        way.update(value, value.with(State::Closed, value.hop(), value.deadline()));
        return Err(answer::<F, K>(context, Outcome::ResetBackendDown, 0));
    }
    let hop = match ordinary {
        _ if !answers_are_seen(mode) => 0,
        Some(front) => return_hop(context, &front, value.hop()),
        None => return_hop(context, &Packet::of(context), value.hop()),
    };
    let seen = (Sender::Client, segment.transport.flags);
    connection_table::note::<F, K>(key, value, (tables, backend, mode), seen, hop);
    let towards = (Towards::of(value), backend, mode);
    to_backend(context, segment, tables, towards, Outcome::ToBackend, ordinary)
}

/// Whether the next hop of a packet to a backend is known, and the packet fits.
#[inline(always)]
fn goes_its_way<F: Path<K>, const K: usize>(
    tables: &Tables,
    segment: &Segment<F>,
    backend: &Backend,
    mode: u8,
) -> bool {
    let (_, growth) = tunnel(backend, mode);
    backend.interface_index != 0 && (segment.network.length + growth) as u32 <= tables.smallest_mtu()
}

/// Whether a backend's packets go through a tunnel, and by how much they grow for it.
#[inline(always)]
fn tunnel(backend: &Backend, mode: u8) -> (bool, usize) {
    let tunnels = mode == Mode::Ipip as u8;
    (tunnels, if tunnels { overhead(backend) } else { 0 })
}

/// The backend of a known connection, unless this is a new connection from the same port, or its backend cannot take a
/// new one, or is gone.
#[inline(always)]
fn keeps<F: Path<K>, const K: usize>(
    tables: &Tables,
    segment: &Segment<F>,
    value: Value,
) -> Option<&'static Backend> {
    let backend = tables.backend(value.backend())?;
    if stays(backend, value, Opening::of(segment)) && F::is(segment.network.destination, &backend.vip) {
        Some(backend)
    } else {
        None
    }
}

/// How a packet may open a connection, by flags.
#[derive(Clone, Copy)]
pub struct Opening(pub u32);

impl Opening {
    /// A SYN, or any datagram.
    pub const OPENS: u32 = 1;
    /// A datagram, which more likely belongs to what its port has done before.
    const DATAGRAM: u32 = 2;

    #[inline(always)]
    pub fn of<F: Family>(segment: &Segment<F>) -> Self {
        if segment.is_tcp() {
            Self(u32::from(segment.opens()))
        } else {
            Self(Self::OPENS | Self::DATAGRAM)
        }
    }
}

/// Whether a packet of a known connection goes to the connection's backend: not if it opens a new one from the same port, while
/// the old one is over or its backend cannot take a new one.
#[inline(always)]
pub fn stays(backend: &Backend, value: Value, opening: Opening) -> bool {
    let takes = if opening.0 & Opening::DATAGRAM != 0 {
        Backend::UP | Backend::LEAVING
    } else {
        Backend::UP
    };
    opening.0 & Opening::OPENS == 0 || !value.state().is_over() && backend.flags & takes != 0
}

#[inline(always)]
pub fn return_hop<F: Frame>(context: &XdpContext, frame: &F, known: u16) -> u16 {
    connection_table::return_hop(frame, context.ingress_ifindex() as u32, known)
}

/// Sends a client's packet to its backend, which is of this mode.
#[inline(always)]
pub fn to_backend<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    (towards, backend, mode): (Towards, &'static Backend, u8),
    outcome: Outcome,
    ordinary: Option<Front>,
) -> Result<Verdict, Outcome> {
    let length = segment.network.length;
    let (tunnels, growth) = tunnel(backend, mode);
    let mut route = Route::known(backend.ethernet, backend.interface_index);
    if ordinary.is_none() {
        if backend.interface_index == 0 {
            route = leave_to_backend::<F, K>(context, segment, backend);
        }
        if (length + growth) as u32 > tables.smallest_mtu() {
            let otherwise = Otherwise {
                cut: mode == Mode::Nat as u8,
                answer: true,
            };
            route = mtu::fitting::<F, K>(context, route, growth, otherwise)?;
        }
        if segment.is_fragment() {
            fragment::note_to_backend::<F, K>(context, towards);
        }
    }
    let by_kernel = route.how != How::Known;
    if by_kernel && mode != Mode::Nat as u8 {
        // The kernel can send only what neither comes from one of its own addresses nor goes to one.
        return Err(Outcome::NeighbourUnknown);
    }
    let packet = ordinary.map_or_else(|| Packet::of(context), |front| front.packet());
    counters::to_backend(towards.id, packet.length());
    if tunnels {
        let outer = tables.outer(towards.id)?;
        encapsulate::<F>(context, length, backend, outer, route.ethernet)?;
        return Ok(Verdict::leaves(context, outcome, route.interface_index));
    }
    if let Some(front) = ordinary {
        rewrite_to_backend(&front, segment, tables, towards, (backend, mode))?;
        rewrite::ethernet(&front, route.ethernet)?;
    } else {
        rewrite_to_backend(&packet, segment, tables, towards, (backend, mode))?;
        if by_kernel {
            return Err(Outcome::ToBackendByKernel);
        }
        rewrite::ethernet(&packet, route.ethernet)?;
    }
    Ok(Verdict::leaves(context, outcome, route.interface_index))
}

/// Where the routing table sends packets to a backend, whose address may be of another family than the packet.
#[inline(always)]
fn leave_to_backend<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    backend: &Backend,
) -> Route {
    if backend.flags & Backend::IPV6 != 0 {
        let source = if F::VERSION == 6 {
            F::widened(segment.network.source)
        } else {
            [0; 2]
        };
        route::<Ipv6>(context, source, Ipv6::of_record(&backend.address))
    } else {
        let source = Ipv4::narrowed(F::widened(segment.network.source));
        route::<Ipv4>(context, source, Ipv4::of_record(&backend.address))
    }
}

/// The headers as the backend must see them, but for the frame's own.
#[inline(always)]
fn rewrite_to_backend<F: Path<K>, const K: usize>(
    packet: &impl Writable,
    segment: &Segment<F>,
    tables: &Tables,
    towards: Towards,
    (backend, mode): (&Backend, u8),
) -> Result<(), Outcome> {
    if mode == Mode::Dsr as u8 {
        return Ok(());
    }
    let destination = Some(F::of_record(&backend.address));
    let port = u16::from_ne_bytes(backend.port);
    if mode == Mode::FullNat as u8 {
        let own = F::of_record(&tables.outer(towards.id)?.source);
        let own_port = towards.port.to_be();
        let source = F::delta(segment.network.source, own);
        F::route(packet, Some(own), destination, backend.network_delta.and(source))?;
        let delta = backend
            .transport_delta
            .and(source)
            .and(Delta::of_word(segment.transport.source_port, own_port));
        return rewrite::transport(packet, segment, own_port, port, delta);
    }
    F::route(packet, None, destination, backend.network_delta)?;
    rewrite::transport(packet, segment, 0, port, backend.transport_delta)
}

/// The client that a backend's packet is for.
pub struct Client<A> {
    pub address: A,
    pub port: u16,
    /// Whether it is not the packet's destination (`full-nat`).
    pub is_hidden: bool,
}

/// A packet from a backend's endpoint: the answer to a client, or nothing of ours.
#[inline(always)]
fn from_backend<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    first: Membership,
    ordinary: Option<Front>,
) -> Result<Verdict, Outcome> {
    let membership = if first.next == 0 {
        first
    } else {
        Membership::unpack(F::sibling(context.ctx, tables.copy(), first.pack()))
    };
    let (client, vip_port) = client_of(segment, tables, membership).ok_or_else(|| tables.no_connection())?;
    let key = F::key(client.address, client.port, membership.service, vip_port);
    if let Some(entry) = F::find(&key)
        && is_answer(segment, membership, &client, entry.1)
    {
        let hop = known_hop(entry.1.hop());
        if ordinary.is_some() && !(hop.is_known() && segment.network.length as u32 <= tables.smallest_mtu()) {
            return Err(go_on(context, F::OTHER_STAGE));
        }
        explain::note(Decision::FromBackend, membership.pack(), entry.1.0);
        if segment.transport.flags.accepts() && entry.1.state().looks_over() {
            // The client talks to the backend directly, from a port whose balanced connection is over.
            entry.0.remove(entry.1);
            return Err(Outcome::NoConnection);
        }
        is_forwardable(segment)?;
        let backend = tables.backend(membership.backend).ok_or(Outcome::Impossible)?;
        if !F::is(segment.network.source, &backend.address) {
            return Err(Outcome::NotOurs);
        }
        let seen = (Sender::Backend, segment.transport.flags);
        connection_table::note::<F, K>(key, entry.1, (tables, backend, backend.mode), seen, entry.1.hop());
        let id = membership.backend;
        let way = (entry.1.hop(), hop);
        return to_client(context, segment, tables, (id, backend), &client, way, ordinary);
    }
    explain::note(Decision::FromBackend, membership.pack(), 0);
    Err(go_on(context, F::UNTRACKED_STAGE))
}

/// Whether an entry says that a packet of a backend belongs to it.
#[inline(always)]
fn is_answer<F: Path<K>, const K: usize>(
    segment: &Segment<F>,
    membership: Membership,
    client: &Client<F::Address>,
    value: Value,
) -> bool {
    let own_port = u16::from_be(segment.transport.destination_port);
    value.backend() == membership.backend && (!client.is_hidden || value.port() == own_port)
}

/// Of the services that share an endpoint, the one whose connection a packet from there belongs to, packed; the first one if
/// it is none's.
#[inline(always)]
pub fn sibling<F: Path<K>, const K: usize>(context: *mut xdp_md, copy: u32, first: u64) -> u64 {
    let context = XdpContext::new(context);
    let Ok(segment) = parse::<F>(&Packet::of(&context)) else {
        return first;
    };
    let Ok(tables) = Tables::of(copy) else {
        return first;
    };
    let mut packed = first;
    for _ in 0..MAX_SIBLINGS {
        if packed == 0 {
            break;
        }
        let membership = Membership::unpack(packed);
        if let Some((client, vip_port)) = client_of(&segment, &tables, membership) {
            let key = F::key(client.address, client.port, membership.service, vip_port);
            let found = F::find(&key);
            if found.is_some_and(|(_, value)| is_answer(&segment, membership, &client, value)) {
                return packed;
            }
        }
        packed = tables.next_membership(membership).map_or(0, NonZeroU64::get);
    }
    first
}

/// Whose connection a backend's packet would be by way of one of its services, and the VIP's port as the key has it.
#[inline(always)]
fn client_of<F: Path<K>, const K: usize>(
    segment: &Segment<F>,
    tables: &Tables,
    candidate: Membership,
) -> Option<(Client<F::Address>, u16)> {
    // A service of several ports has them in common with its backends.
    let vip_port = if candidate.is(Membership::WIDE) {
        segment.transport.source_port
    } else {
        0
    };
    if candidate.is(Membership::FULL_NAT) {
        let outer: &Outer = tables.outer(candidate.backend).ok()?;
        let owner = own_ports::owner(outer, segment)?;
        let client = Client {
            address: owner.address,
            port: owner.port,
            is_hidden: true,
        };
        return Some((client, vip_port));
    }
    let client = Client {
        address: segment.network.destination,
        port: segment.transport.destination_port,
        is_hidden: false,
    };
    Some((client, vip_port))
}

/// Sends a backend's packet back the way that the client's last one came.
#[inline(always)]
fn to_client<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    (id, backend): (u16, &Backend),
    client: &Client<F::Address>,
    (number, hop): (u16, Hop),
    ordinary: Option<Front>,
) -> Result<Verdict, Outcome> {
    let route = if ordinary.is_some() {
        Route::known(hop.answer().to_words(), hop.interface_index())
    } else {
        let mut route = way_back::<F>(context, hop, F::of_record(&backend.vip), client.address);
        if segment.network.length as u32 > tables.smallest_mtu() {
            route = mtu::fitting::<F, K>(context, route, 0, Otherwise::ANYTHING)?;
        }
        if segment.is_fragment() {
            fragment::note_to_client::<F, K>(context, id, number, client.address);
        }
        route
    };
    let packet = ordinary.map_or_else(|| Packet::of(context), |front| front.packet());
    counters::to_client(id, packet.length());
    if let Some(front) = ordinary {
        rewrite_to_client(&front, segment, backend, client)?;
        rewrite::ethernet(&front, route.ethernet)?;
        return Ok(Verdict::leaves(context, Outcome::ToClient, route.interface_index));
    }
    rewrite_to_client(&packet, segment, backend, client)?;
    leave(context, route, Outcome::ToClient, Outcome::ToClientByKernel)
}

/// The way to a client: by the hop, or where that is unknown, as the routing table says.
#[inline(always)]
pub fn way_back<F: Family>(context: &XdpContext, hop: Hop, vip: F::Address, client: F::Address) -> Route {
    if hop.is_known() {
        Route::known(hop.answer().to_words(), hop.interface_index())
    } else {
        route::<F>(context, vip, client)
    }
}

/// The headers as the client must see them, but for the frame's own.
#[inline(always)]
pub fn rewrite_to_client<F: Path<K>, const K: usize>(
    packet: &impl Writable,
    segment: &Segment<F>,
    backend: &Backend,
    client: &Client<F::Address>,
) -> Result<(), Outcome> {
    let vip = Some(F::of_record(&backend.vip));
    let vip_port = u16::from_ne_bytes(backend.vip_port);
    let (network, transport) = (backend.network_delta.inverse(), backend.transport_delta.inverse());
    if client.is_hidden {
        let moved = F::delta(segment.network.destination, client.address);
        F::route(packet, vip, Some(client.address), network.and(moved))?;
        let port = Delta::of_word(segment.transport.destination_port, client.port);
        return rewrite::transport(
            packet,
            segment,
            vip_port,
            client.port,
            transport.and(moved).and(port),
        );
    }
    F::route(packet, vip, None, network)?;
    rewrite::transport(packet, segment, vip_port, 0, transport)
}

/// Sends a rewritten packet where the routing table says, if need be by the kernel.
#[inline(always)]
pub fn leave(
    context: &XdpContext,
    route: Route,
    outcome: Outcome,
    by_kernel: Outcome,
) -> Result<Verdict, Outcome> {
    if route.how != How::Known {
        return Err(by_kernel);
    }
    rewrite::ethernet(&Packet::of(context), route.ethernet)?;
    Ok(Verdict::leaves(context, outcome, route.interface_index))
}
