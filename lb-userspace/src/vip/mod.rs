//! The VIP as an address of this host: put on an interface, taken off again, announced to the neighbourhood.
//!
//! Addresses that `lbd` adds are marked (`IFA_PROTO`, kernel 5.18), so that one left behind by a killed daemon is known
//! again, and one that somebody else put there is never taken away.

mod announce;

use std::io;
use std::net::IpAddr;
use std::pin::pin;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol};

pub use announce::{Announcer, announce};

use crate::netlink::{Connection, to_io};

/// Marks addresses as `lbd`'s. The kernel uses 1 to 3 itself; `ip -d address` shows `proto 76`.
const OURS: AddressProtocol = AddressProtocol::Other(76);

/// What came of adding a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It was not there; now it is.
    Now,
    /// `lbd` had added it before and not taken it away: killed, or stopped so that traffic goes on.
    Before,
    /// Somebody else had put it there.
    Foreign,
}

impl Added {
    /// Whether it may be taken away again.
    pub fn is_ours(self) -> bool {
        self != Self::Foreign
    }
}

/// Why a VIP could not be put on an interface, taken off or announced.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// There is no such interface.
    #[error(
        "VIP {vip}: there is no interface {interface:?} on this host; `ip link` lists those that there are"
    )]
    NoInterface {
        /// The VIP.
        vip: IpAddr,
        /// The name.
        interface: String,
    },
    /// The interface does not speak Ethernet.
    #[error("VIP {vip}: interface {interface} has no MAC address, nothing can be announced on it")]
    NoMac {
        /// The VIP.
        vip: IpAddr,
        /// The name.
        interface: String,
    },
    /// The system refused.
    #[error("VIP {vip} on {interface}: {doing} failed: {source}")]
    Failed {
        /// The VIP.
        vip: IpAddr,
        /// The interface.
        interface: String,
        /// What was tried, and what it needs.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Adds `vip` (as a /32 or /128) to `interface`, unless it is there already, with whatever prefix.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub async fn add(vip: IpAddr, interface: &str) -> Result<Added, VipError> {
    let place = Place::open(vip, interface)?;
    if let Some(present) = place.find().await? {
        return Ok(if is_marked(&present) {
            Added::Before
        } else {
            Added::Foreign
        });
    }
    let prefix = if vip.is_ipv4() { 32 } else { 128 };
    let mut request = place.netlink.handle.address().add(place.index, vip, prefix);
    let message = request.message_mut();
    message.attributes.push(AddressAttribute::Protocol(OURS));
    if vip.is_ipv6() {
        // Duplicate address detection would keep it from answering for a second.
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    match request.execute().await.map_err(to_io) {
        Ok(()) => Ok(Added::Now),
        // Somebody was faster.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(Added::Foreign),
        Err(error) => Err(place.failed("adding the address (needs CAP_NET_ADMIN)", error)),
    }
}

/// Takes `vip` off `interface` if `lbd` (this run or an earlier one) has put it there; says whether it did.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub async fn remove(vip: IpAddr, interface: &str) -> Result<bool, VipError> {
    let place = Place::open(vip, interface)?;
    let Some(present) = place.find().await?.filter(is_marked) else {
        return Ok(false);
    };
    let removed = place.netlink.handle.address().del(present).execute().await;
    match removed.map_err(to_io) {
        Ok(()) => Ok(true),
        // Somebody was faster.
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
        Err(error) => Err(place.failed("removing the address (needs CAP_NET_ADMIN)", error)),
    }
}

/// A VIP, an interface, and the way to ask the kernel about them.
struct Place<'a> {
    vip: IpAddr,
    interface: &'a str,
    index: u32,
    netlink: Connection,
}

impl<'a> Place<'a> {
    fn open(vip: IpAddr, interface: &'a str) -> Result<Self, VipError> {
        let index = index_of(vip, interface)?;
        let failed = |error| failed(vip, interface, "opening a netlink socket", error);
        let netlink = Connection::open().map_err(failed)?;
        Ok(Self {
            vip,
            interface,
            index,
            netlink,
        })
    }

    /// The VIP among the interface's addresses; one with `lbd`'s mark before others.
    async fn find(&self) -> Result<Option<AddressMessage>, VipError> {
        let addresses = self.netlink.handle.address();
        let request = addresses
            .get()
            .set_link_index_filter(self.index)
            .set_address_filter(self.vip)
            .execute();
        let listed: Result<Vec<_>, _> = pin!(request).try_collect().await;
        let present = listed.map_err(|error| self.failed("listing addresses", to_io(error)))?;
        Ok(present.into_iter().max_by_key(is_marked))
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> VipError {
        failed(self.vip, self.interface, doing, error)
    }
}

fn index_of(vip: IpAddr, interface: &str) -> Result<u32, VipError> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| VipError::NoInterface {
        vip,
        interface: interface.to_owned(),
    })
}

fn failed(vip: IpAddr, interface: &str, doing: &'static str, source: io::Error) -> VipError {
    VipError::Failed {
        vip,
        interface: interface.to_owned(),
        doing,
        source,
    }
}

fn is_marked(address: &AddressMessage) -> bool {
    address.attributes.contains(&AddressAttribute::Protocol(OURS))
}

#[cfg(test)]
mod tests;
