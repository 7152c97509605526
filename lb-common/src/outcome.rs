//! Every decision that the program can come to about a packet. The variant is the index of its counter, and names the
//! one XDP action that follows from it.

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Up to the kernel.
    Pass,
    /// Gone.
    Drop,
    /// Out of the interface that it came in by.
    Transmit,
    /// Out of the interface that the verdict names.
    Redirect,
}

impl Action {
    /// The name in listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Transmit => "transmit",
            Self::Redirect => "redirect",
        }
    }
}

macro_rules! outcomes {
    ($( $(#[doc = $meaning:literal])+ $variant:ident = $name:literal => $action:ident, )*) => {
        /// What became of a packet, and why.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $( $(#[doc = $meaning])+ $variant, )*
        }

        /// Every outcome, in the order of the counters.
        pub const OUTCOMES: &[Outcome] = &[$(Outcome::$variant,)*];

        impl Outcome {
            /// The outcome with a counter's index.
            #[inline(always)]
            pub fn from_index(index: u32) -> Option<Self> {
                match index {
                    $( index if index == Self::$variant as u32 => Some(Self::$variant), )*
                    _ => None,
                }
            }

            /// What is done with the packet.
            #[inline(always)]
            pub fn action(self) -> Action {
                match self {
                    $( Self::$variant => Action::$action, )*
                }
            }

            /// The name in listings and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )*
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $( Self::$variant => concat!($($meaning),+).trim_ascii(), )*
                }
            }
        }
    };
}

outcomes! {
    /// A client's packet went to its backend.
    ToBackend = "to_backend" => Redirect,
    /// A backend's packet went to its client.
    ToClient = "to_client" => Redirect,
    /// A client's packet was rewritten; the kernel finds the next hop, which was not known yet, or cuts it into fragments.
    ToBackendByKernel = "to_backend_by_kernel" => Pass,
    /// A backend's packet was rewritten; the kernel finds the way back to the client, or cuts it into fragments.
    ToClientByKernel = "to_client_by_kernel" => Pass,
    /// A new connection went to a backend without an entry, since the table had no room; hashing keeps its packets together.
    ToBackendUntracked = "to_backend_untracked" => Redirect,
    /// A backend's packet without an entry went to a client of a service that has untracked connections.
    ToClientUntracked = "to_client_untracked" => Redirect,
    /// A packet from the middle of an unknown connection went where hashing says; it may be the wrong backend.
    ToBackendAtRisk = "to_backend_at_risk" => Redirect,
    /// A packet of a stateless service went where hashing says.
    ToBackendStateless = "to_backend_stateless" => Redirect,
    /// A backend's packet of a stateless service went to its client.
    ToClientStateless = "to_client_stateless" => Redirect,
    /// A later fragment of a datagram went to the backend that the first one went to.
    FragmentToBackend = "fragment_to_backend" => Redirect,
    /// A later fragment of a datagram went to the client that the first one went to.
    FragmentToClient = "fragment_to_client" => Redirect,
    /// An ICMP error about a packet to a client went to the backend that had sent the packet.
    IcmpToBackend = "icmp_to_backend" => Redirect,
    /// An ICMP error about a packet to a backend went to the client that had sent the packet.
    IcmpToClient = "icmp_to_client" => Redirect,
    /// An echo request to a VIP was answered.
    EchoAnswered = "echo_answered" => Transmit,
    /// Neither from a client to a service nor from a backend's service port.
    NotOurs = "not_ours" => Pass,
    /// Neither IPv4 nor IPv6: ARP and whatever else.
    NotIp = "not_ip" => Pass,
    /// A VLAN tag: the kernel takes it off and hands the frame to the VLAN's own interface.
    VlanTagged = "vlan_tagged" => Pass,
    /// Neither TCP nor UDP nor ICMP.
    OtherProtocol = "other_protocol" => Pass,
    /// Sent to a link-layer multicast or broadcast address.
    Multicast = "multicast" => Pass,
    /// From a backend's service port, but of no balanced connection: a health probe's answer, or direct access.
    NoConnection = "no_connection" => Pass,
    /// An IPv4 or IPv6 header that contradicts itself or the frame; the kernel drops it.
    MalformedIp = "malformed_ip" => Pass,
    /// A TCP, UDP or ICMP header that contradicts itself or the packet; the kernel drops it.
    MalformedTransport = "malformed_transport" => Pass,
    /// More IPv6 extension headers than are looked through, some in a place where they are not looked for, or a routing
    /// header with a way still to go.
    ExtensionHeaders = "extension_headers" => Pass,
    /// A later fragment of a datagram whose first one was not ours, or has not been seen.
    FragmentOfNobody = "fragment_of_nobody" => Pass,
    /// A later fragment of a datagram to a VIP whose first one has not been seen: it has no ports.
    FragmentUnmatched = "fragment_unmatched" => Drop,
    /// An ICMP message that is no error about a balanced connection.
    IcmpNotOurs = "icmp_not_ours" => Pass,
    /// The time to live (or hop limit) of a packet to be forwarded was over.
    TimeToLiveOver = "time_to_live_over" => Drop,
    /// Answered with an ICMP message: too big for the way on, or for it with the tunnel's header.
    TooBig = "too_big" => Transmit,
    /// Dropped: too big for the way on; not answered, since answers are limited in rate or the packet may not be answered.
    TooBigUnanswered = "too_big_unanswered" => Drop,
    /// Answered with a RST or an ICMP port unreachable: no backend of the service can take connections.
    RefusedNoBackend = "refused_no_backend" => Transmit,
    /// Dropped: no backend of the service can take connections, and it is not to answer.
    DroppedNoBackend = "dropped_no_backend" => Drop,
    /// Answered with a RST or an ICMP port unreachable: the connection's backend is down and the service says
    /// `on_down = "reset"`.
    ResetBackendDown = "reset_backend_down" => Transmit,
    /// A RST, or a packet that may not be answered, for which there is neither connection nor backend.
    RstForNobody = "rst_for_nobody" => Drop,
    /// The client already has a connection to every backend that could be chosen, by another service that shares them.
    SharedEndpointCollision = "shared_endpoint_collision" => Drop,
    /// A backend connects to its own service, and there is no other backend that could take it.
    HairpinToSelf = "hairpin_to_self" => Drop,
    /// All ports that a `full-nat` service has towards the backend are taken.
    PortsExhausted = "ports_exhausted" => Drop,
    /// A new `full-nat` connection for which the connection table has no room.
    TableFull = "table_full" => Drop,
    /// Answered with a RST: from the middle of an unknown `full-nat` connection, whose ports are not known any more.
    FullNatUnknown = "full_nat_unknown" => Transmit,
    /// The neighbour that a packet had to be sent to is not known yet, and the kernel cannot send it in our stead.
    NeighbourUnknown = "neighbour_unknown" => Drop,
    /// Not in the table, while the daemon is still bringing connections over from an older one: the sender sends it again.
    Migrating = "migrating" => Drop,
    /// A lookup failed that cannot fail; the packet is dropped since nothing certain is known of it.
    Impossible = "impossible" => Drop,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = OUTCOMES.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indexes_in_order() {
        assert_eq!(Outcome::from_index(Outcome::COUNT as u32), None);
        let mut names: Vec<_> = OUTCOMES.iter().map(|o| o.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::COUNT);
        for (index, outcome) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
            assert_eq!(Outcome::from_index(index as u32), Some(*outcome));
            assert!(outcome.meaning().ends_with('.'), "{}", outcome.meaning());
        }
    }
}
