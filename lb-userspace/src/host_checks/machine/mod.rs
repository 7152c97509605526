//! What does not change by itself: the kernel, the interfaces' drivers, memory, the clock.

mod judge;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::FsFlags;

use crate::config::{Config, Daemon};
use crate::dataplane::{self, LinkFlags, ReceiveQueues, XdpFeatures};

pub(super) use judge::{about_interfaces, about_machine, seen};

/// What could not be read is `None`, and not judged.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// As `uname -r` has it.
    pub(super) kernel: String,
    /// `net.core.bpf_jit_enable`; only the host's own network namespace has it.
    pub(super) jit: Option<bool>,
    pub(super) takes_xdp: Option<bool>,
    pub(super) bpffs: Option<Bpffs>,
    /// Where that is, or should be: what there is of `pin_directory`.
    pub(super) pins: PathBuf,
    /// Bytes that could be had without swapping.
    pub(super) available: Option<u64>,
    pub(super) processors: u32,
    pub(super) clock: Clock,
    /// The attached interfaces, or those that are to be.
    pub(super) links: Vec<Link>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bpffs {
    Writable,
    ReadOnly,
    /// Nothing, or another file system, is mounted there.
    Missing,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    pub(super) source: Option<String>,
    pub(super) sources: Vec<String>,
    /// Whether a time server keeps it right.
    pub(super) synchronised: Option<bool>,
}

/// How an interface has an XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attached {
    No,
    Native,
    Generic,
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) flags: Option<LinkFlags>,
    pub(super) driver: Option<String>,
    pub(super) features: Option<XdpFeatures>,
    pub(super) attached: Option<Attached>,
    pub(super) mtu: Option<u32>,
    pub(super) merges: Option<bool>,
    pub(super) queues: Option<ReceiveQueues>,
    /// Of these, those that packets are spread over.
    pub(super) spread: Option<usize>,
    /// In force: the larger of its own and that of `all`.
    pub(super) arp_ignore: Option<u8>,
    pub(super) addresses: HashSet<IpAddr>,
}

impl Machine {
    /// In the network namespace of the calling thread; without a configuration, without interfaces.
    pub(super) async fn read(config: Option<&Config>) -> Self {
        let mut links = Vec::new();
        for name in config.iter().flat_map(|config| &config.daemon.interfaces) {
            links.push(Link::read(name).await);
        }
        let pins = present(config.map_or(Path::new(Daemon::PIN_DIRECTORY), |config| {
            &config.daemon.pin_directory
        }));
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            kernel: nix::sys::utsname::uname()
                .map(|names| names.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            jit: super::host::sysctl("core/bpf_jit_enable").map(|value: u8| value != 0),
            takes_xdp: dataplane::supports_xdp(),
            bpffs: bpffs(&pins),
            pins,
            available: available(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            processors: u32::try_from(processors).unwrap_or(u32::MAX),
            clock: Clock::read(),
            links,
        }
    }
}

/// The directory, or the nearest one above it that is there.
fn present(directory: &Path) -> PathBuf {
    let there = directory.ancestors().find(|place| place.exists());
    there.unwrap_or(directory).to_owned()
}

pub(super) fn bpffs(place: &Path) -> Option<Bpffs> {
    let Ok(system) = nix::sys::statfs::statfs(place) else {
        return (!place.exists()).then_some(Bpffs::Missing);
    };
    if system.filesystem_type() != nix::sys::statfs::BPF_FS_MAGIC {
        return Some(Bpffs::Missing);
    }
    let flags = nix::sys::statvfs::statvfs(place).ok()?.flags();
    Some(if flags.contains(FsFlags::ST_RDONLY) {
        Bpffs::ReadOnly
    } else {
        Bpffs::Writable
    })
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

impl Clock {
    fn read() -> Self {
        let read = |name: &str| {
            fs::read_to_string(format!("/sys/devices/system/clocksource/clocksource0/{name}"))
                .map(|text| text.trim().to_owned())
        };
        let sources = read("available_clocksource").unwrap_or_default();
        Self {
            source: read("current_clocksource").ok(),
            sources: sources.split_whitespace().map(str::to_owned).collect(),
            synchronised: is_synchronised(),
        }
    }
}

fn is_synchronised() -> Option<bool> {
    // SAFETY: integers; all zeros ask for nothing to be changed (adjtimex(2)).
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes within the structure.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

impl Link {
    async fn read(name: &str) -> Self {
        let index = nix::net::if_::if_nametoindex(name).ok();
        let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let addresses = addresses
            .filter(|entry| entry.interface_name == name)
            .filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
            });
        let ignores =
            |interface: &str| super::host::sysctl::<u8>(&format!("ipv4/conf/{interface}/arp_ignore"));
        Self {
            flags: dataplane::link_flags(name).ok(),
            driver: dataplane::driver(name).ok(),
            features: index.and_then(|index| dataplane::xdp_features(index).ok()),
            attached: match index {
                Some(index) => attached(index).await,
                None => None,
            },
            mtu: dataplane::mtu(name).ok(),
            merges: dataplane::merges_packets(name).ok(),
            queues: dataplane::receive_queues(name).ok(),
            spread: dataplane::queues_in_use(name).ok(),
            arp_ignore: ignores("all").and_then(|all| Some(all.max(ignores(name)?))),
            addresses: addresses.collect(),
            name: name.to_owned(),
        }
    }
}

/// As the kernel tells of the link.
async fn attached(index: u32) -> Option<Attached> {
    use futures_util::TryStreamExt as _;
    use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};

    let netlink = crate::netlink::Connection::open().ok()?;
    let request = netlink.handle.link().get().match_index(index).execute();
    let link = std::pin::pin!(request).try_next().await.ok()??;
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => xdp.iter().find_map(|it| match it {
            LinkXdp::Attached(how) => Some(*how),
            _ => None,
        }),
        _ => None,
    });
    match xdp {
        None | Some(XdpAttached::None) => Some(Attached::No),
        Some(XdpAttached::Driver | XdpAttached::Hardware) => Some(Attached::Native),
        Some(XdpAttached::SocketBuffer) => Some(Attached::Generic),
        Some(_) => None,
    }
}
