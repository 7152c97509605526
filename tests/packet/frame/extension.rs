//! IPv6 extension headers (RFC 8200 section 4).

use etherparse::{IpAuthHeader, IpFragOffset, IpNumber, Ipv6FragmentHeader, Ipv6RawExtHeader, ip_number};

/// An extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// With so many units of 8 bytes beyond the first, all options that do nothing.
    HopByHop(u8),
    /// Likewise.
    DestinationOptions(u8),
    /// To pass so many more nodes, whose addresses it does not say.
    Routing(u8),
    /// With so many words of 32 bits of a check value.
    Authentication(u8),
    /// Of a packet that is all of its datagram (RFC 6946).
    AtomicFragment,
    /// Of a part of a datagram.
    Fragment {
        /// In bytes.
        offset: usize,
        more: bool,
        identification: u32,
    },
    /// Of a kind that nobody looks through.
    Unknown,
}

/// An option that fills a header of one unit (PadN, RFC 8200 section 4.2).
const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];

impl Extension {
    /// What announces it.
    fn number(self) -> IpNumber {
        match self {
            Self::HopByHop(_) => ip_number::IPV6_HEADER_HOP_BY_HOP,
            Self::DestinationOptions(_) => ip_number::IPV6_DESTINATION_OPTIONS,
            Self::Routing(_) => ip_number::IPV6_ROUTE_HEADER,
            Self::Authentication(_) => ip_number::AUTHENTICATION_HEADER,
            Self::AtomicFragment | Self::Fragment { .. } => ip_number::IPV6_FRAGMENTATION_HEADER,
            Self::Unknown => ip_number::SHIM6,
        }
    }

    /// These headers in a row, in front of what `last` announces, and what announces the first of them.
    pub fn chain(these: &[Self], last: IpNumber) -> (IpNumber, Vec<u8>) {
        let mut bytes = Vec::new();
        for (position, extension) in these.iter().enumerate() {
            let next = these.get(position + 1).map_or(last, |next| next.number());
            bytes.extend(extension.bytes(next));
        }
        (these.first().map_or(last, |first| first.number()), bytes)
    }

    fn bytes(self, next: IpNumber) -> Vec<u8> {
        let raw = |payload: &[u8]| {
            let header = Ipv6RawExtHeader::new_raw(next, payload).expect("a multiple of 8, less 2");
            header.to_bytes().to_vec()
        };
        let fragment = |offset: usize, more, identification| {
            let offset = IpFragOffset::try_new((offset / 8) as u16).expect("13 bits");
            Ipv6FragmentHeader::new(next, offset, more, identification)
                .to_bytes()
                .to_vec()
        };
        match self {
            Self::HopByHop(units) | Self::DestinationOptions(units) => {
                let mut payload = PADDING.to_vec();
                // Pad1: a byte of its own.
                payload.resize(6 + usize::from(units) * 8, 0);
                raw(&payload)
            }
            // RFC 6554's type 3; what follows belongs to it.
            Self::Routing(segments_left) => raw(&[3, segments_left, 0, 0, 0, 0]),
            Self::Authentication(words) => {
                let value = vec![0xa5; usize::from(words) * 4];
                let header = IpAuthHeader::new(next, 0x1234, 7, &value).expect("not too long");
                header.to_bytes().to_vec()
            }
            Self::AtomicFragment => fragment(0, false, 0x1357_9bdf),
            Self::Fragment {
                offset,
                more,
                identification,
            } => fragment(offset, more, identification),
            Self::Unknown => raw(&[0; 6]),
        }
    }
}
