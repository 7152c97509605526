//! What the per-packet benchmark's runner tells its kernel program.

/// The frame that each repeat begins with, and which clients take turns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Its bytes 14 to 77: from the IP header on.
    pub packet: [u64; WORDS],
    /// Its first twelve bytes.
    pub addresses: [u32; 3],
    /// How many clients there are, a power of two, less one. A client's number is added to the address's last bytes.
    pub mask: u32,
    /// The number of the next client.
    pub next: u32,
    /// The word of `packet` that has the last bytes of the client's address.
    pub client_word: u32,
    /// Where in that word they begin, in bits.
    pub client_shift: u32,
    /// Zero.
    pub reserved: u32,
}

/// The offset of an IPv4 packet's source address in a frame.
pub const SOURCE: u32 = 26;
/// The offset of its destination address.
pub const DESTINATION: u32 = 30;
/// The offset of the last four bytes of an IPv6 packet's source address.
pub const SOURCE_IPV6: u32 = 34;
/// The offset of the last four bytes of its destination address.
pub const DESTINATION_IPV6: u32 = 50;
/// The length of the frame; a plan restores all of it but the two bytes that say IPv4 or IPv6.
pub const LENGTH: usize = HEADER + WORDS * 8;
/// Words of a plan's packet.
pub const WORDS: usize = 8;
/// Bytes of an Ethernet header.
const HEADER: usize = 14;

impl Plan {
    /// A plan for a frame of [`LENGTH`] bytes: `clients` (a power of two) take turns, the first one first; `client_at` is one
    /// of the offsets above.
    #[cfg(not(target_arch = "bpf"))]
    pub fn new(frame: &[u8; LENGTH], client_at: u32, clients: u32) -> Self {
        let client = client_at - HEADER as u32;
        let mut plan = Self {
            packet: [0; WORDS],
            addresses: [0; 3],
            mask: clients - 1,
            next: 0,
            client_word: client / 8,
            client_shift: client % 8 * 8,
            reserved: 0,
        };
        let (addresses, _) = frame.as_chunks::<4>();
        for (word, bytes) in plan.addresses.iter_mut().zip(addresses) {
            *word = u32::from_ne_bytes(*bytes);
        }
        let (packet, _) = frame[HEADER..].as_chunks::<8>();
        for (word, bytes) in plan.packet.iter_mut().zip(packet) {
            *word = u64::from_ne_bytes(*bytes);
        }
        plan
    }

    /// The frame's type, as in the frame: that of IPv6 if the packet is one, else that of IPv4.
    #[cfg(not(target_arch = "bpf"))]
    pub fn ether_type(&self) -> [u8; 2] {
        let [version, ..] = self.packet[0].to_ne_bytes();
        if version >> 4 == 6 {
            [0x86, 0xdd]
        } else {
            [0x08, 0]
        }
    }
}

const _: () = assert!(size_of::<Plan>() == 96);
