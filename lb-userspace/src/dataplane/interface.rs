//! What the kernel says of an interface.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The MTU of an interface, in bytes.
///
/// # Errors
/// There is none of this name.
pub fn mtu(interface: &str) -> io::Result<u32> {
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: integers and arrays of them; all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    if interface.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU reads the name and writes the MTU, both within the request (netdevice(7)).
    let mtu = unsafe {
        if libc::ioctl(any.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_mtu
    };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_has_one() {
        assert!(mtu("lo").unwrap() >= 1280);
        assert_eq!(
            mtu("nosuchinterface").unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
        assert!(mtu("a name that is longer than any").is_err());
    }
}
