//! What validation asks of the machine, behind a trait so that it is tested without root and without the interfaces.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nameindex;
use nix::sys::socket::SockaddrStorage;

/// What validation asks of the machine.
pub trait Host {
    /// The names of the network interfaces.
    ///
    /// # Errors
    /// The kernel would not list them.
    fn interfaces(&self) -> io::Result<Vec<String>>;

    /// The addresses of this machine, each with the length of its prefix.
    ///
    /// # Errors
    /// The kernel would not list them.
    fn addresses(&self) -> io::Result<Vec<(IpAddr, u32)>>;

    /// The number of the group of this name, if there is one.
    ///
    /// # Errors
    /// The system's list of groups cannot be read.
    fn group(&self, name: &str) -> io::Result<Option<u32>>;

    /// The whole of a file.
    ///
    /// # Errors
    /// It is missing, unreadable, or no file that a configuration would name.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;
}

/// The machine that this runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisHost;

impl ThisHost {
    /// Configuration, certificates and keys are far smaller; a device or the wrong file might never end.
    const LARGEST_FILE: u64 = 4 << 20;
}

impl Host for ThisHost {
    fn interfaces(&self) -> io::Result<Vec<String>> {
        let names = if_nameindex()?;
        Ok(names
            .iter()
            .map(|interface| interface.name().to_string_lossy().into_owned())
            .collect())
    }

    fn addresses(&self) -> io::Result<Vec<(IpAddr, u32)>> {
        let addresses = getifaddrs()?.filter_map(|interface| {
            let address = ip(&interface.address?)?;
            let ones = match ip(&interface.netmask?)? {
                IpAddr::V4(mask) => mask.to_bits().count_ones(),
                IpAddr::V6(mask) => mask.to_bits().count_ones(),
            };
            Some((address, ones))
        });
        Ok(addresses.collect())
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        if name.contains('\0') {
            return Ok(None);
        }
        Ok(nix::unistd::Group::from_name(name)?.map(|group| group.gid.as_raw()))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?
            .take(Self::LARGEST_FILE + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > Self::LARGEST_FILE {
            return Err(io::Error::other("it is larger than 4 MiB"));
        }
        Ok(bytes)
    }
}

/// The address, if it is one of IP.
fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    }
}

/// An I/O error as an operator reads it, without the number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn this_host_has_the_group_of_root_and_none_of_a_made_up_name() {
        assert_eq!(ThisHost.group("root").unwrap(), Some(0));
        assert_eq!(ThisHost.group("no such group").unwrap(), None);
        assert_eq!(ThisHost.group("ro\0ot").unwrap(), None);
    }

    #[test]
    fn this_host_has_its_loopback_address() {
        let addresses = ThisHost.addresses().unwrap();
        assert!(
            addresses.contains(&(Ipv4Addr::LOCALHOST.into(), 8)),
            "{addresses:?}"
        );
    }
}
