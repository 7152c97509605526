//! Route, neighbour and source MAC address of each backend, asked of the kernel.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::NeighbourError;
use crate::netlink::{Connection, to_io};

/// The kernel answers within microseconds; longer means an answer that could not be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a backend's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface they leave by.
    pub interface_index: u32,
    /// That interface's address.
    pub source_mac: [u8; 6],
    /// The backend's, or its gateway's.
    pub destination_mac: [u8; 6],
}

/// What is known of the way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Everything.
    Resolved {
        /// Where its packets go.
        hop: NextHop,
        /// Whether the MAC address is its own: no router is in between.
        on_link: bool,
    },
    /// The host has no route, or one that forbids (unreachable, prohibit, blackhole, broadcast).
    NoRoute,
    /// The MAC address is not known. On Ethernet the kernel has been asked to find it out: a watch tells when it has.
    NoNeighbour {
        /// The interface that the route leaves by.
        interface_index: u32,
    },
    /// The address is this host's own.
    Local,
}

/// Resolves addresses to next hops.
#[derive(Debug)]
pub struct Resolver {
    _private: (),
}

impl Resolver {
    /// Makes sure that the kernel can be asked.
    ///
    /// # Errors
    /// There is no netlink.
    pub async fn new() -> Result<Self, NeighbourError> {
        Connection::open().map_err(NeighbourError::Open)?;
        Ok(Self { _private: () })
    }

    /// Resolves each address as things stand; it does not wait for neighbours. Where the neighbour is unknown or has
    /// long not been heard of, the kernel is asked to find it (needs `CAP_NET_ADMIN`); no packet goes to the backend
    /// but ARP or neighbour discovery.
    ///
    /// # Errors
    /// The kernel does not answer. Nothing is known then of any address.
    pub async fn resolve(&self, addresses: &[IpAddr]) -> Result<HashMap<IpAddr, Resolution>, NeighbourError> {
        let connection = Connection::open().map_err(NeighbourError::Open)?;
        let resolving = resolve(&connection.handle, addresses);
        tokio::time::timeout(PATIENCE, resolving)
            .await
            .map_err(|_| NeighbourError::Silent(PATIENCE))?
    }
}

async fn resolve(
    handle: &Handle,
    addresses: &[IpAddr],
) -> Result<HashMap<IpAddr, Resolution>, NeighbourError> {
    let neighbours = Neighbours::read(handle).await?;
    let mut links = HashMap::new();
    let mut resolutions = HashMap::new();
    for &address in addresses {
        let resolution = match route(handle, address).await? {
            Route::None => Resolution::NoRoute,
            Route::Local => Resolution::Local,
            Route::Via { interface_index, hop } => {
                let source = match links.get(&interface_index) {
                    Some(&known) => known,
                    None => ethernet_address(handle, interface_index).await?,
                };
                links.insert(interface_index, source);
                match source {
                    Some(source_mac) => {
                        let way = (interface_index, source_mac);
                        neighbours.next_hop(handle, way, hop, hop == address).await
                    }
                    None => Resolution::NoNeighbour { interface_index },
                }
            }
        };
        resolutions.insert(address, resolution);
    }
    Ok(resolutions)
}

/// A route, as far as it matters here.
enum Route {
    None,
    Local,
    /// `hop` is the gateway, or the address itself where it is on the link.
    Via {
        interface_index: u32,
        hop: IpAddr,
    },
}

async fn route(handle: &Handle, address: IpAddr) -> Result<Route, NeighbourError> {
    let request = match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .build(),
    };
    match pin!(handle.route().get(request).execute())
        .try_next()
        .await
        .map_err(to_io)
    {
        Ok(Some(message)) => Ok(read_route(&message, address)),
        Ok(None) => Ok(Route::None),
        Err(error) if means_no_route(&error) => Ok(Route::None),
        Err(source) => Err(NeighbourError::Refused {
            what: "a route",
            source,
        }),
    }
}

/// No route, or one of the kinds unreachable, prohibit and blackhole, in this order.
fn means_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
    )
}

fn read_route(message: &RouteMessage, address: IpAddr) -> Route {
    match message.header.kind {
        RouteType::Local => return Route::Local,
        RouteType::Unicast => {}
        _ => return Route::None,
    }
    let mut interface = None;
    let mut hop = address;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway))
            | RouteAttribute::Via(RouteVia::Inet(gateway)) => hop = IpAddr::V4(*gateway),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway))
            | RouteAttribute::Via(RouteVia::Inet6(gateway)) => hop = IpAddr::V6(*gateway),
            _ => {}
        }
    }
    interface.map_or(Route::None, |interface_index| Route::Via { interface_index, hop })
}

/// `None`: the interface is no Ethernet (a tunnel), or has just gone.
async fn ethernet_address(handle: &Handle, index: u32) -> Result<Option<[u8; 6]>, NeighbourError> {
    let request = handle.link().get().match_index(index);
    match pin!(request.execute()).try_next().await.map_err(to_io) {
        Ok(Some(link)) if link.header.link_layer_type == LinkLayerType::Ether => {
            Ok(link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
                _ => None,
            }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(source) => Err(NeighbourError::Refused {
            what: "an interface",
            source,
        }),
    }
}

/// The kernel's neighbour table.
struct Neighbours(HashMap<Key, Entry>);

/// Interface and address.
type Key = (u32, IpAddr);
/// State and MAC address.
type Entry = (NeighbourState, Option<[u8; 6]>);

impl Neighbours {
    async fn read(handle: &Handle) -> Result<Self, NeighbourError> {
        let mut table = HashMap::new();
        let mut dump = pin!(handle.neighbours().get().execute());
        while let Some(message) = dump.next().await {
            let message = message.map_err(to_io);
            let message = message.map_err(|source| NeighbourError::Refused {
                what: "its neighbours",
                source,
            })?;
            table.extend(read_neighbour(&message));
        }
        Ok(Self(table))
    }

    async fn next_hop(
        &self,
        handle: &Handle,
        (interface, source_mac): (u32, [u8; 6]),
        hop: IpAddr,
        on_link: bool,
    ) -> Resolution {
        use NeighbourState::{Delay, Incomplete, Permanent, Probe, Reachable, Stale};
        let (state, mac) = self.0.get(&(interface, hop)).copied().unwrap_or_default();
        // A stale neighbour may have got another MAC address since: packets that pass by XDP would never make the
        // kernel look. An incomplete one is being looked for already.
        if !matches!(state, Reachable | Delay | Probe | Permanent | Incomplete) {
            provoke(handle, interface, hop).await;
        }
        match (state, mac) {
            (Reachable | Stale | Delay | Probe | Permanent, Some(destination_mac)) => {
                let hop = NextHop {
                    interface_index: interface,
                    source_mac,
                    destination_mac,
                };
                Resolution::Resolved { hop, on_link }
            }
            _ => Resolution::NoNeighbour {
                interface_index: interface,
            },
        }
    }
}

fn read_neighbour(message: &NeighbourMessage) -> Option<(Key, Entry)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), (message.header.state, mac)))
}

/// Makes the kernel look for a neighbour, as if it had a packet for it (`NTF_USE`).
async fn provoke(handle: &Handle, interface: u32, hop: IpAddr) {
    let request = handle
        .neighbours()
        .add(interface, hop)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if let Err(error) = request.execute().await {
        tracing::debug!(%hop, interface, %error, "cannot make the kernel look for a neighbour");
    }
}
