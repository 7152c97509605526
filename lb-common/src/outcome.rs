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
    /// A client's packet was rewritten; the kernel finds the next hop, which was not known yet.
    ToBackendByKernel = "to_backend_by_kernel" => Pass,
    /// A backend's packet was rewritten; the kernel finds the way back to the client.
    ToClientByKernel = "to_client_by_kernel" => Pass,
    /// A new connection went to a backend without an entry, since the table had no room; hashing keeps its packets together.
    ToBackendUntracked = "to_backend_untracked" => Redirect,
    /// A backend's packet without an entry went to a client of a service that has untracked connections.
    ToClientUntracked = "to_client_untracked" => Redirect,
    /// A packet from the middle of an unknown connection went where hashing says; it may be the wrong backend.
    ToBackendAtRisk = "to_backend_at_risk" => Redirect,
    /// Neither from a client to a service nor from a backend's service port.
    NotOurs = "not_ours" => Pass,
    /// No IPv4: ARP, IPv6, a VLAN tag and whatever else.
    NotIpv4 = "not_ipv4" => Pass,
    /// IPv4, but not TCP.
    NotTcp = "not_tcp" => Pass,
    /// Sent to a link-layer multicast or broadcast address.
    Multicast = "multicast" => Pass,
    /// From a backend's service port, but of no balanced connection: a health probe's answer, or direct access.
    NoConnection = "no_connection" => Pass,
    /// An IPv4 header that contradicts itself or the frame; the kernel drops it.
    MalformedIpv4 = "malformed_ipv4" => Pass,
    /// A TCP header that contradicts itself or the packet; the kernel drops it.
    MalformedTcp = "malformed_tcp" => Pass,
    /// A later IPv4 fragment: no ports, so nobody's.
    LaterFragment = "later_fragment" => Pass,
    /// A first IPv4 fragment of a balanced connection; its rest could not be told apart.
    FragmentOfService = "fragment_of_service" => Drop,
    /// The time to live of a packet to be forwarded was over.
    TimeToLiveOver = "time_to_live_over" => Drop,
    /// Answered with a RST: no backend of the service can take connections.
    RefusedNoBackend = "refused_no_backend" => Transmit,
    /// Answered with a RST: the connection's backend is down and the service says `on_down = "reset"`.
    ResetBackendDown = "reset_backend_down" => Transmit,
    /// A RST for which there is neither connection nor backend.
    RstForNobody = "rst_for_nobody" => Drop,
    /// The client already has a connection to every backend that could be chosen, by another service that shares them.
    SharedEndpointCollision = "shared_endpoint_collision" => Drop,
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
