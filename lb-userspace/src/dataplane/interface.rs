//! What the kernel says of an interface.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Of ETHTOOL_GFLAGS (linux/ethtool.h).
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

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

/// Whether an interface takes VLAN tags off before the program sees a frame (`ethtool -k`: rx-vlan-offload).
///
/// # Errors
/// There is none of this name, or it does not tell.
pub fn strips_vlan_tags(interface: &str) -> io::Result<bool> {
    /// `struct ethtool_value`.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    let mut request = Request::of(interface)?;
    request.0.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads the name; ETHTOOL_GFLAGS reads the command and writes the data of a value that outlives it.
    unsafe { request.send(libc::SIOCETHTOOL)? };
    Ok(value.data & ETH_FLAG_RXVLAN != 0)
}

/// A request about an interface.
struct Request(libc::ifreq);

impl Request {
    fn of(interface: &str) -> io::Result<Self> {
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
    unsafe fn send(&mut self, command: libc::Ioctl) -> io::Result<()> {
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
    use super::*;
    use crate::testing::{in_namespace, sh};

    #[test]
    fn tags_are_taken_off_where_ethtool_says_so() {
        if std::process::Command::new("ethtool")
            .arg("--version")
            .output()
            .is_err()
        {
            return println!("skipped: there is no ethtool");
        }
        in_namespace(async |_| {
            sh("ip link add h0 type veth peer name h1");
            for (word, is) in [("off", false), ("on", true)] {
                sh(&format!("ethtool -K h0 rxvlan {word}"));
                assert_eq!(strips_vlan_tags("h0").unwrap(), is);
            }
            assert!(strips_vlan_tags("h7").is_err());
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
