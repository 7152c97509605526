//! The two words of an entry: what it is looked up by, and what is known about it.

use crate::tcp_state::State;
use crate::tick::{Tick, slack};

/// Width of a backend id; ids are 1 to 8,191, 0 means none.
pub const BACKEND_BITS: u32 = 13;
/// Width of a return hop's number; 0 means unknown.
pub const HOP_BITS: u32 = 11;

/// Where the fields of a value lie, and by what its key is sealed. The state is always the lowest eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    backend: u32,
    hop: u32,
    deadline: u32,
    port: u32,
    seal: u64,
}

/// That of the ABI versions 3 and 4.
pub const PACKING_3: Packing = Packing {
    backend: 8,
    hop: 21,
    deadline: 32,
    port: 48,
    seal: 0xd6e8_feb8_6659_fd93,
};

/// The present one.
#[cfg(not(feature = "other-layout"))]
pub const PACKING: Packing = PACKING_3;
/// Another one, for tests of upgrades.
#[cfg(feature = "other-layout")]
pub const PACKING: Packing = Packing {
    port: 8,
    deadline: 24,
    hop: 40,
    backend: 51,
    seal: 0xa3b1_9535_4a39_b70f,
};

const BACKEND_MASK: u64 = (1 << BACKEND_BITS) - 1;
const HOP_MASK: u64 = (1 << HOP_BITS) - 1;

impl Packing {
    /// The bits that never change while a way belongs to one connection.
    const fn immutable(&self) -> u64 {
        BACKEND_MASK << self.backend | 0xffff << self.port
    }

    /// What a value of this packing is in the present one.
    pub fn unpack(&self, value: u64) -> Value {
        let field = |shift: u32| value >> shift;
        let deadline = Tick(field(self.deadline) as u16);
        let (backend, hop) = (field(self.backend) & BACKEND_MASK, field(self.hop) & HOP_MASK);
        Value::new(State::stored(value as u8), backend as u16, hop as u16, deadline)
            .with_port(field(self.port) as u16)
    }

    /// What a key beside a value of this packing is stored XORed with.
    #[inline(always)]
    pub const fn seal(&self, value: u64) -> u64 {
        (value & self.immutable()).wrapping_mul(self.seal)
    }
}

/// The second word of an entry: state (8 bits), backend (13), return hop (11), deadline (16), port for full-nat (16), as
/// [`PACKING`] says.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(pub u64);

impl Value {
    /// A way without an entry.
    pub const EMPTY: Self = Self(0);
    /// A way that a CPU is writing: nobody else touches it.
    pub const BUSY: Self = Self(1);

    /// An entry's value.
    #[inline(always)]
    pub fn new(state: State, backend: u16, hop: u16, deadline: Tick) -> Self {
        Self(
            state as u64
                | (u64::from(backend) & BACKEND_MASK) << PACKING.backend
                | (u64::from(hop) & HOP_MASK) << PACKING.hop
                | u64::from(deadline.0) << PACKING.deadline,
        )
    }

    /// Whether there is an entry, in whatever state.
    #[inline(always)]
    pub fn is_entry(self) -> bool {
        self.0 & 0xff > 1
    }

    /// The state's bits; see [`State::from_bits`].
    #[inline(always)]
    pub fn state_bits(self) -> u8 {
        self.0 as u8
    }

    /// The state; an unknown one, which only a newer program could have written, counts as closed.
    #[inline(always)]
    pub fn state(self) -> State {
        State::stored(self.state_bits())
    }

    /// The backend that has the connection.
    #[inline(always)]
    pub fn backend(self) -> u16 {
        (self.0 >> PACKING.backend & BACKEND_MASK) as u16
    }

    /// The hop that the client's last packet came from.
    #[inline(always)]
    pub fn hop(self) -> u16 {
        (self.0 >> PACKING.hop & HOP_MASK) as u16
    }

    /// The balancer's own port towards the backend, of a `full-nat` connection, in the machine's order.
    #[inline(always)]
    pub fn port(self) -> u16 {
        (self.0 >> PACKING.port) as u16
    }

    /// The same with the balancer's own port.
    #[inline(always)]
    pub fn with_port(self, port: u16) -> Self {
        Self(self.0 & !(0xffff << PACKING.port) | u64::from(port) << PACKING.port)
    }

    /// When the entry is forgotten if no more packets come.
    #[inline(always)]
    pub fn deadline(self) -> Tick {
        Tick((self.0 >> PACKING.deadline) as u16)
    }

    /// The same connection in another state, seen through another hop, or more recently.
    #[inline(always)]
    pub fn with(self, state: State, hop: u16, deadline: Tick) -> Self {
        Self(self.0 & PACKING.immutable() | Self::new(state, 0, hop, deadline).0)
    }

    /// Whether a packet from the middle of an established connection leaves the value as it is: it came through the same hop,
    /// and at least `timeout` is left, but no more than that and its [`slack`].
    #[inline(always)]
    pub fn stays_as_it_is(self, hop: u16, now: Tick, timeout: u16) -> bool {
        const COMPARED: u64 = 0xff | HOP_MASK << PACKING.hop;
        let beyond = self.deadline().0.wrapping_sub(now.after(timeout).0);
        (self.0 ^ Self::new(State::Established, 0, hop, Tick(0)).0) & COMPARED == 0
            && beyond <= slack(timeout)
    }

    /// What the key is stored XORed with. A reader that sees the key of one entry and the value of another computes a
    /// key that is nobody's, so that the pair can be read without barriers, which BPF did not have before 6.13.
    #[inline(always)]
    pub fn seal(self) -> u64 {
        PACKING.seal(self.0)
    }
}

/// The key of an IPv4 connection: client address (as in the packet), client port (as in the packet), service number.
#[inline(always)]
pub fn ipv4_key(client: u32, client_port: u16, service: u16) -> [u64; 1] {
    [u64::from(client) | u64::from(client_port) << 32 | u64::from(service) << 48]
}

/// What [`ipv4_key`] packed: address and port as in the packet, service number.
pub fn ipv4_key_parts(key: [u64; 1]) -> ([u8; 4], u16, u16) {
    let [word] = key;
    (
        (word as u32).to_ne_bytes(),
        u16::from_be((word >> 32) as u16),
        (word >> 48) as u16,
    )
}

/// The key of any other connection: client address (IPv4 as in RFC 4291 section 2.5.5.2), client port, service number, and
/// for services of several ports the VIP's port, else 0; addresses and ports as in the packet.
///
/// Each word depends on the one before, so that a reader who gets some words of one key and some of another, while a way
/// is being written, has a key that is nobody's even if both connections have the same backend, and so the same seal.
#[inline(always)]
pub fn wide_key(client: [u64; 2], client_port: u16, service: u16, vip_port: u16) -> [u64; 3] {
    let [low, high] = client;
    chain([
        low,
        high,
        u64::from(client_port) | u64::from(service) << 16 | u64::from(vip_port) << 32,
    ])
}

/// What [`wide_key`] packed: address, client port (in the machine's order), service number, VIP's port (likewise).
pub fn wide_key_parts(key: [u64; 3]) -> ([u8; 16], u16, u16, u16) {
    let [a, b, c] = key;
    let b = b ^ spread(a);
    let c = c ^ spread(b);
    let mut address = [0; 16];
    address[..8].copy_from_slice(&a.to_ne_bytes());
    address[8..].copy_from_slice(&b.to_ne_bytes());
    (
        address,
        u16::from_be(c as u16),
        (c >> 16) as u16,
        u16::from_be((c >> 32) as u16),
    )
}

#[inline(always)]
fn chain([a, b, c]: [u64; 3]) -> [u64; 3] {
    [a, b ^ spread(a), c ^ spread(b)]
}

#[inline(always)]
fn spread(word: u64) -> u64 {
    word.wrapping_mul(0xa076_1d64_78bd_642f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tcp_state::STATES;

    proptest! {
        #[test]
        fn fields_do_not_overlap(
            s in 0usize..8,
            backend in 0u16..8192,
            hop in 0u16..2048,
            deadline: u16,
            port: u16,
        ) {
            let value = Value::new(STATES[s], backend, hop, Tick(deadline));
            prop_assert_eq!(value.port(), 0);
            let value = value.with_port(!port).with_port(port);
            prop_assert_eq!(value.port(), port);
            prop_assert_eq!(value.state(), STATES[s]);
            prop_assert_eq!(value.backend(), backend);
            prop_assert_eq!(value.hop(), hop);
            prop_assert_eq!(value.deadline(), Tick(deadline));
            prop_assert!(value.is_entry());
            let changed = value.with(STATES[7 - s], 2047 - hop, Tick(!deadline));
            prop_assert_eq!(changed.backend(), backend);
            prop_assert_eq!(changed.port(), port);
            prop_assert_eq!(changed.seal(), value.seal());
            prop_assert_eq!(changed.hop(), 2047 - hop);
            prop_assert_eq!(changed.state(), STATES[7 - s]);
            prop_assert_eq!(changed.deadline(), Tick(!deadline));
        }

        /// From the packet that set the deadline on, packets change nothing until the slack is used up.
        #[test]
        fn established_connections_are_noted_now_and_then(
            backend in 1u16..8192,
            hop in 0u16..2048,
            seen: u16,
            timeout in 1u16..=crate::tick::MAX_TIMEOUT,
            later: u16,
        ) {
            let deadline = Tick(seen).after(timeout + slack(timeout));
            let value = Value::new(State::Established, backend, hop, deadline);
            let now = Tick(seen).after(later);
            prop_assert_eq!(value.stays_as_it_is(hop, now, timeout), later <= slack(timeout));
            prop_assert!(value.stays_as_it_is(hop, Tick(seen), timeout));
            prop_assert!(!value.stays_as_it_is(hop ^ 1, Tick(seen), timeout));
            prop_assert!(!value.with(State::ClientFin, hop, deadline).stays_as_it_is(hop, Tick(seen), timeout));
            // A timeout that has become shorter holds from the next packet on.
            let shorter = timeout - timeout / 8;
            prop_assert_eq!(value.stays_as_it_is(hop, Tick(seen), shorter), timeout + slack(timeout) - shorter <= slack(shorter));
        }

        /// What is only cut off would be taken for another field.
        #[test]
        fn too_large_numbers_spoil_no_other_field(backend: u16, hop: u16, deadline: u16) {
            let value = Value::new(State::Established, backend, hop, Tick(deadline));
            prop_assert_eq!(value.state(), State::Established);
            prop_assert_eq!(value.backend(), backend & 0x1fff);
            prop_assert_eq!(value.hop(), hop & 0x7ff);
            prop_assert_eq!(value.deadline(), Tick(deadline));
            prop_assert_eq!(value.port(), 0);
        }

        /// Another backend, or another own port, is another seal: a key of one is not found by a value of the other.
        #[test]
        fn seals_differ_by_what_never_changes(one: (u16, u16), other: (u16, u16)) {
            let value = |(backend, port): (u16, u16)| {
                Value::new(State::Established, backend & 0x1fff, 1, Tick(0)).with_port(port)
            };
            let (one, other) = (value(one), value(other));
            prop_assert_eq!(
                one.seal() == other.seal(),
                (one.backend(), one.port()) == (other.backend(), other.port())
            );
        }

        #[test]
        fn keys_round_trip(address: [u8; 4], port: u16, service: u16) {
            let key = ipv4_key(u32::from_ne_bytes(address), port.to_be(), service);
            prop_assert_eq!(ipv4_key_parts(key), (address, port, service));
        }
    }

    proptest! {
        /// State, backend, hop, deadline and port of ABI version 3, whatever the present packing is.
        #[test]
        fn values_of_version_3_are_understood(
            s in 0usize..8,
            backend in 0u64..8192,
            hop in 0u64..2048,
            deadline: u16,
            port: u16,
        ) {
            let old = STATES[s] as u64
                | backend << 8
                | hop << 21
                | u64::from(deadline) << 32
                | u64::from(port) << 48;
            let value = PACKING_3.unpack(old);
            prop_assert_eq!(value.state(), STATES[s]);
            prop_assert_eq!(u64::from(value.backend()), backend);
            prop_assert_eq!(u64::from(value.hop()), hop);
            prop_assert_eq!(value.deadline(), Tick(deadline));
            prop_assert_eq!(value.port(), port);
            prop_assert_eq!(PACKING.unpack(value.0), value);
            let immutable = backend << 8 | u64::from(port) << 48;
            prop_assert_eq!(PACKING_3.seal(old), immutable.wrapping_mul(0xd6e8_feb8_6659_fd93));
        }
    }

    proptest! {
        #[test]
        fn wide_keys_round_trip_and_mixtures_are_nobodys(
            one: ([u8; 16], u16, u16, u16),
            other: ([u8; 16], u16, u16, u16),
        ) {
            let key = |(address, port, service, vip_port): ([u8; 16], u16, u16, u16)| {
                wide_key(crate::abi::address(&address), port.to_be(), service, vip_port.to_be())
            };
            prop_assert_eq!(wide_key_parts(key(one)), one);
            // The same client's two connections, as far as they differ.
            let other = (one.0, other.1, other.2, other.3);
            let stranger = (other.0.map(|byte| !byte), other.1, other.2, other.3);
            let [a, b, _] = key(stranger);
            let [_, _, c] = key(one);
            if stranger != one {
                let mixed = wide_key_parts([a, b, c]);
                prop_assert_ne!((mixed.1, mixed.2, mixed.3), (one.1, one.2, one.3));
            }
            prop_assert_eq!(wide_key_parts(key(other)), other);
        }
    }

    #[test]
    fn empty_and_busy_are_no_entries() {
        assert!(!Value::EMPTY.is_entry());
        assert!(!Value::BUSY.is_entry());
    }
}
