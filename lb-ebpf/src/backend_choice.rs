//! Which backend a connection goes to that has none yet: a slot of its service.

use core::num::{NonZeroU32, NonZeroU64};

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{Backend, BackendState, Choice, MAX_SIBLINGS, Membership, Mode, Service};
use lb_common::explain::{Decision, Way};
use lb_common::family::Family;
use lb_common::hash::{scale_high, scale_low};
use lb_common::outcome::Outcome;
use lb_common::word::Word as _;

use crate::connection_table::Table;
use crate::maps::{BACKEND_STATES, SELECTION_SEED, SERVICE_STATES, element};
use crate::packet::Packet;
use crate::parse::{Segment, parse};
use crate::pipeline::Path;
use crate::service_lookup::Tables;
use crate::word::SharedWord;
use crate::{explain, global};

/// How often another slot is tried when one cannot be had.
const CHOICES: u32 = 4;

/// A range of slots in the pool: at least one.
#[derive(Clone, Copy)]
pub struct Slots {
    first: u32,
    count: NonZeroU32,
}

/// How a choice is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// As the service says.
    Service,
    /// By hashing, whatever the service says: always the same for the same client, for packets whose choice cannot be
    /// remembered.
    Hash,
}

impl Slots {
    /// Those of now. `None`: no backend can take a connection.
    #[inline(always)]
    pub fn of(service: &Service) -> Option<Self> {
        Some(Self {
            first: service.first_slot,
            count: NonZeroU32::new(service.slots)?,
        })
    }

    /// Those before the last change.
    #[inline(always)]
    pub fn before(service: &Service) -> Option<Self> {
        Some(Self {
            first: service.previous_slot,
            count: NonZeroU32::new(service.previous_slots)?,
        })
    }

    #[inline(always)]
    fn at(self, tables: &Tables, slot: u32) -> Result<u16, Outcome> {
        tables.slot(self.first + slot)
    }

    /// The slot that a hash gives.
    #[inline(always)]
    pub fn by_hash(self, tables: &Tables, hash: u64) -> Result<u16, Outcome> {
        self.at(tables, scale_high(hash, self.count.get()))
    }

    /// The next slot in the service's round: exact, whichever CPUs the connections arrive on.
    #[inline(always)]
    fn next(self, number: u16) -> Result<u32, Outcome> {
        Ok((next_in_round(number)? % NonZeroU64::from(self.count)) as u32)
    }

    /// Of the next slot in the round and another one, the one whose backend has fewer connections for its weight.
    #[inline(always)]
    fn less_loaded(self, tables: &Tables, number: u16) -> Result<u32, Outcome> {
        let one = self.next(number)?;
        let step = 1 + scale_low(u64::from(random()), (self.count.get() - 1).max(1));
        let other = (one + step) % self.count;
        let (state, other_state) = (self.state(tables, one)?, self.state(tables, other)?);
        let load = state.load.load() * other_state.weight.load();
        let other_load = other_state.load.load() * state.weight.load();
        Ok(if other_load < load { other } else { one })
    }

    #[inline(always)]
    fn state(self, tables: &Tables, slot: u32) -> Result<&'static BackendState<SharedWord>, Outcome> {
        element(&BACKEND_STATES, u32::from(self.at(tables, slot)?)).ok_or(Outcome::Impossible)
    }

    /// Any slot.
    #[inline(always)]
    fn any(self) -> u32 {
        scale_low(u64::from(random()), self.count.get())
    }
}

#[inline(always)]
fn next_in_round(number: u16) -> Result<u64, Outcome> {
    let state = element(&SERVICE_STATES, u32::from(number)).ok_or(Outcome::Impossible)?;
    Ok(state.cursor.fetch_increment_after(explain::rounds))
}

#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// Whether a service chooses by hashing anyway.
#[inline(always)]
pub fn hashes(service: &Service) -> bool {
    service.choice == Choice::Hash as u32 || service.choice == Choice::Source as u32
}

/// What chooses a client's backend where hashing does: the same on every balancer of a fleet.
#[inline(always)]
pub fn hash_of<F: Family>(service: &Service, segment: &Segment<F>) -> u64 {
    let port = if service.choice == Choice::Source as u32 {
        0
    } else {
        segment.transport.source_port
    };
    hash_client::<F>(segment.network.source, port)
}

/// The same for a client's address and port.
#[inline(always)]
pub fn hash_client<F: Family>(address: F::Address, port: u16) -> u64 {
    let [low, high] = F::widened(address);
    SELECTION_SEED.load().hash(&[low, high, u64::from(port)])
}

/// A backend for a packet's connection: another one if the first cannot be had, since the client is the backend itself, or
/// its port already talks to that endpoint through another service, or it is the one to `avoid` (0: none).
#[inline(always)]
pub fn choose<F: Path<K>, const K: usize>(
    context: &XdpContext,
    segment: &Segment<F>,
    tables: &Tables,
    number: u16,
    by: By,
    avoid: u16,
) -> Result<u16, Outcome> {
    let service = tables.service(number)?;
    let by_hash = by == By::Hash || hashes(service);
    let mut hash = if by_hash { hash_of(service, segment) } else { 0 };
    let mut why_not = Outcome::Impossible;
    for _ in 0..CHOICES {
        let id = global::pick(tables.copy(), number, u32::from(by_hash), hash) as u16;
        if id == 0 {
            return Err(Outcome::Impossible);
        }
        hash = hash.rotate_left(21);
        if id == avoid {
            why_not = pass_over(id, Outcome::PortsExhausted);
            continue;
        }
        let backend = tables.backend(id).ok_or(Outcome::Impossible)?;
        if backend.mode == Mode::Nat as u8 {
            if F::of_record(&backend.address) == segment.network.source {
                why_not = pass_over(id, Outcome::HairpinToSelf);
                continue;
            }
            if backend.flags & Backend::SHARED != 0
                && F::collides(context.ctx, tables.copy(), number, id) != 0
            {
                why_not = pass_over(id, Outcome::SharedEndpointCollision);
                continue;
            }
        }
        return Ok(id);
    }
    Err(why_not)
}

/// Why a backend cannot be had.
#[inline(always)]
fn pass_over(id: u16, why: Outcome) -> Outcome {
    explain::note(Decision::PassedOver, u64::from(id), why as u64);
    why
}

/// The id in a slot of a service; 0 if there is none. `by_hash`: 1 if the hash chooses, 0 if the service's own way does.
#[inline(always)]
pub fn pick(copy: u32, number: u16, by_hash: u32, hash: u64) -> u64 {
    let Ok(tables) = Tables::of(copy) else { return 0 };
    pick_from(&tables, number, by_hash != 0, hash).map_or(0, u64::from)
}

#[inline(always)]
fn pick_from(tables: &Tables, number: u16, by_hash: bool, hash: u64) -> Result<u16, Outcome> {
    let service = tables.service(number)?;
    let slots = Slots::of(service).ok_or(Outcome::Impossible)?;
    let (slot, way) = if by_hash {
        (scale_high(hash, slots.count.get()), Way::Hash)
    } else if service.choice == Choice::Least as u32 {
        (slots.less_loaded(tables, number)?, Way::Least)
    } else if service.choice == Choice::Random as u32 {
        (slots.any(), Way::Chance)
    } else {
        (slots.next(number)?, Way::Round)
    };
    let id = slots.at(tables, slot)?;
    let count = u64::from(slots.count.get());
    explain::note(
        Decision::Slot,
        u64::from(slot) | count << 32,
        u64::from(id) | (way as u64) << 16,
    );
    Ok(id)
}

/// Whether the client already talks, from the same port, to the same endpoint by way of another service that shares it (1).
/// Its answers could not be told apart. Only connections to shared endpoints pay for it.
#[inline(always)]
pub fn collides<F: Path<K>, const K: usize>(context: *mut xdp_md, copy: u32, number: u16, id: u16) -> u64 {
    let context = XdpContext::new(context);
    let Ok(segment) = parse::<F>(&Packet::of(&context)) else {
        return 0;
    };
    let Ok(tables) = Tables::of(copy) else { return 0 };
    let Some(record) = tables.backend(id) else {
        return 0;
    };
    let own = segment.transport.destination_port;
    let (port, vip_port) = match u16::from_ne_bytes(record.port) {
        0 => (own, own),
        port => (port, 0),
    };
    let address = F::of_record(&record.address);
    let mut membership = tables
        .membership::<F>(address, port, segment.network.protocol)
        .map_or(0, NonZeroU64::get);
    for _ in 0..MAX_SIBLINGS {
        if membership == 0 {
            return 0;
        }
        let sibling = Membership::unpack(membership);
        // The answers of a `full-nat` service go to the balancer's own ports.
        let is_alike = sibling.service != number && !sibling.is(Membership::FULL_NAT);
        if is_alike && has_connection::<F, K>(sibling, &segment, vip_port) {
            return 1;
        }
        membership = tables.next_membership(sibling).map_or(0, NonZeroU64::get);
    }
    0
}

#[inline(always)]
fn has_connection<F: Table<K>, const K: usize>(
    sibling: Membership,
    segment: &Segment<F>,
    vip_port: u16,
) -> bool {
    let key = F::key(
        segment.network.source,
        segment.transport.source_port,
        sibling.service,
        vip_port,
    );
    let found = F::find(&key);
    found.is_some_and(|(_, value)| value.backend() == sibling.backend)
}
