//! What the kernel says of an interface.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The MTU of an interface, in bytes.
///
/// # Errors
/// There is none of this name.
pub fn mtu(interface: &str) -> io::Result<u32> {
    let mut request = Request::of(interface)?;
    // SAFETY: SIOCGIFMTU reads the name and writes the MTU, both within the request (netdevice(7)).
    let mtu = unsafe {
        request.send(libc::SIOCGIFMTU)?;
        request.0.ifr_ifru.ifru_mtu
    };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The MAC address of an interface.
///
/// # Errors
/// There is none of this name.
pub fn mac(interface: &str) -> io::Result<[u8; 6]> {
    let mut request = Request::of(interface)?;
    // SAFETY: SIOCGIFHWADDR reads the name and writes the address, both within the request (netdevice(7)).
    let [a, b, c, d, e, f, ..] = unsafe {
        request.send(libc::SIOCGIFHWADDR)?;
        request.0.ifr_ifru.ifru_hwaddr.sa_data
    };
    Ok([a, b, c, d, e, f].map(|byte| byte as u8))
}

/// Of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFlags {
    /// Somebody has switched it on.
    pub up: bool,
    /// It has a carrier.
    pub running: bool,
    /// It answers ARP.
    pub arp: bool,
}

/// The flags of an interface.
///
/// # Errors
/// There is none of this name.
pub fn link_flags(interface: &str) -> io::Result<LinkFlags> {
    let mut request = Request::of(interface)?;
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags, both within the request (netdevice(7)).
    let flags = unsafe {
        request.send(libc::SIOCGIFFLAGS)?;
        libc::c_int::from(request.0.ifr_ifru.ifru_flags)
    };
    Ok(LinkFlags {
        up: flags & libc::IFF_UP != 0,
        running: flags & libc::IFF_RUNNING != 0,
        arp: flags & libc::IFF_NOARP == 0,
    })
}

/// A request about an interface.
pub(super) struct Request(pub(super) libc::ifreq);

impl Request {
    pub(super) fn of(interface: &str) -> io::Result<Self> {
        // SAFETY: integers and arrays of them; all zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One is for the zero at the end.
        if interface.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *place = byte as libc::c_char;
        }
        Ok(Self(request))
    }

    /// # Safety
    /// The command must touch nothing but the request and what its pointers lead to.
    pub(super) unsafe fn send(&mut self, command: libc::Ioctl) -> io::Result<()> {
        let any = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        // SAFETY: as the caller says.
        if unsafe { libc::ioctl(any.as_raw_fd(), command, &raw mut self.0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::testing::{in_namespace, sh};

    #[test]
    fn flags_are_those_of_the_link() {
        in_namespace(async |_| {
            sh("ip link add h0 type veth peer name h1; ip link set h1 up; ip link set h1 arp off");
            let (h0, h1) = (link_flags("h0").unwrap(), link_flags("h1").unwrap());
            assert_eq!((h0.up, h0.arp), (false, true));
            assert_eq!((h1.up, h1.running, h1.arp), (true, false, false));
            sh("ip link set h0 up");
            // The kernel says so a moment later.
            let began = Instant::now();
            while !link_flags("h1").unwrap().running {
                assert!(began.elapsed() < Duration::from_secs(10), "h1 has no carrier");
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }

    #[test]
    fn a_mac_address_is_the_one_that_was_given() {
        in_namespace(async |_| {
            sh("ip link add h0 address 02:00:00:00:fe:01 type veth peer name h1");
            assert_eq!(mac("h0").unwrap(), [2, 0, 0, 0, 0xfe, 1]);
            assert!(mac("h7").is_err());
        });
    }

    #[test]
    fn the_loopback_device_has_an_mtu() {
        assert!(mtu("lo").unwrap() >= 1280);
        assert_eq!(
            mtu("nosuchinterface").unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
        assert!(mtu("a name that is longer than any").is_err());
    }
}
