//! What the per-packet benchmark's runner tells its kernel program.

/// The frame that each repeat begins with, and which clients take turns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Its bytes 14 to 61: from the IP header on.
    pub packet: [u64; 6],
    /// Its first twelve bytes.
    pub addresses: [u32; 3],
    /// How many clients there are, a power of two, less one. A client's number is added to the address's last bytes.
    pub mask: u32,
    /// The number of the next client.
    pub next: u32,
    /// Where in the frame the client's address lies: [`SOURCE`] or [`DESTINATION`].
    pub client_at: u32,
}

/// The offset of an IPv4 packet's source address in a frame.
pub const SOURCE: u32 = 26;
/// The offset of its destination address.
pub const DESTINATION: u32 = 30;
/// The length of the frame; a plan restores all of it but the two bytes that say IPv4.
pub const LENGTH: usize = 62;

impl Plan {
    /// A plan for an IPv4 frame of [`LENGTH`] bytes: `clients` (a power of two) take turns, the first one first.
    #[cfg(not(target_arch = "bpf"))]
    pub fn new(frame: &[u8; LENGTH], client_at: u32, clients: u32) -> Self {
        let mut plan = Self {
            packet: [0; 6],
            addresses: [0; 3],
            mask: clients - 1,
            next: 0,
            client_at,
        };
        let (addresses, _) = frame.as_chunks::<4>();
        for (word, bytes) in plan.addresses.iter_mut().zip(addresses) {
            *word = u32::from_ne_bytes(*bytes);
        }
        let (packet, _) = frame[14..].as_chunks::<8>();
        for (word, bytes) in plan.packet.iter_mut().zip(packet) {
            *word = u64::from_ne_bytes(*bytes);
        }
        plan
    }
}

const _: () = assert!(size_of::<Plan>() == 72);
