//! The links that hold the attached program, pinned by interface.

use std::path::PathBuf;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp};

use super::{PinError, Pins, make_directory, names, not_pinned, remove_all, unusable};

pub(super) const DIRECTORY: &str = "links";

/// A pinned link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    /// The interface's name.
    pub(crate) interface: String,
    /// Whether the driver runs the program.
    pub(crate) native: bool,
}

/// What came of giving a link another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// From one packet to the next.
    Yes,
    /// The interface that it was for is gone; one that has its name now is another one.
    Dead,
}

impl Link {
    fn kind(&self) -> &'static str {
        if self.native { "native" } else { "generic" }
    }
}

impl Pins {
    /// The links that there are.
    pub(crate) fn links(&self) -> Result<Vec<Link>, PinError> {
        let mut links = Vec::new();
        for native in [true, false] {
            let kind = Link {
                interface: String::new(),
                native,
            };
            for name in names(&self.directory.join(DIRECTORY).join(kind.kind()))? {
                links.push(Link {
                    interface: decoded(&name),
                    native,
                });
            }
        }
        Ok(links)
    }

    fn link_path(&self, link: &Link) -> PathBuf {
        self.directory
            .join(DIRECTORY)
            .join(link.kind())
            .join(encoded(&link.interface))
    }

    /// Gives a link another program.
    pub(crate) fn replace(&self, link: &Link, program: &mut Xdp) -> Result<Replaced, PinError> {
        let path = self.link_path(link);
        let broken = |reason: String| unusable(&path, reason);
        let pinned = PinnedLink::from_pin(&path).map_err(|error| broken(format!("not a link: {error}")))?;
        let known = XdpLink::try_from(FdLink::from(pinned))
            .map_err(|error| broken(format!("not the link of an XDP program: {error}")))?;
        match program.attach_to_link(known) {
            // The handle goes, the pin stays.
            Ok(id) => drop(program.take_link(id)),
            Err(error) if is_dead(&error) => return Ok(Replaced::Dead),
            Err(error) => return Err(broken(format!("cannot give it the new program: {error}"))),
        }
        Ok(Replaced::Yes)
    }

    /// Keeps a link for as long as it is pinned.
    pub(crate) fn keep(&self, link: &Link, held: XdpLink) -> Result<(), PinError> {
        let path = self.link_path(link);
        if let Some(directory) = path.parent() {
            make_directory(directory)?;
        }
        let held = FdLink::try_from(held).map_err(|_| {
            let reason = "this kernel attaches XDP programs without links (Linux 5.9), so that they cannot outlive lbd";
            unusable(&path, reason)
        })?;
        held.pin(&path)
            .map(drop)
            .map_err(|error| not_pinned(&path, &error))
    }

    /// Lets go of a link: unless somebody holds it, the program is detached.
    pub(crate) fn remove_link(&self, link: &Link) -> Result<(), PinError> {
        remove_all(&self.link_path(link))
    }
}

/// `BPF_LINK_UPDATE` of a link whose interface is gone: ENOLINK.
fn is_dead(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOLINK),
        _ => false,
    }
}

/// Names with dots are not for us to give in a bpf filesystem.
fn encoded(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

fn decoded(name: &str) -> String {
    name.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive() {
        for name in ["eth0", "eth0.100", "a%2Eb", "%", "..%25"] {
            let encoded = encoded(name);
            assert!(!encoded.contains('.'), "{encoded}");
            assert_eq!(decoded(&encoded), name);
        }
    }
}
