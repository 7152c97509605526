//! What this process may do, as little as it can work with: capabilities(7), given up for good before it has a second
//! thread.
//!
//! `lbd` stays the user that it was started as. As root without capabilities it reads and writes what is root's, such as its
//! state directory, a private key, and pins in bpffs, by being their owner and in no other way.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What `lbd` keeps, and what for.
pub const DAEMON: [(Capability, &str); 4] = [
    (
        Capability::CAP_BPF,
        "to load the kernel program and to make, open and read its maps",
    ),
    (
        Capability::CAP_NET_ADMIN,
        "to attach the program, to put VIPs on interfaces, and to have neighbours looked for",
    ),
    (
        Capability::CAP_PERFMON,
        "to load the program, whose reading of packets the kernel's verifier grants to nobody else",
    ),
    (
        Capability::CAP_NET_RAW,
        "to announce VIPs to the neighbours (ARP, neighbour discovery)",
    ),
];

/// What the site worker keeps of what `lbd` was started with. Whatever it runs has it, too.
pub const SITE_WORKER: [(Capability, &str); 10] = [
    (
        Capability::CAP_DAC_OVERRIDE,
        "to write web servers' files whoever owns them",
    ),
    (Capability::CAP_CHOWN, "to give files to the web server's user"),
    (Capability::CAP_FOWNER, "to change the modes of such files"),
    (
        Capability::CAP_KILL,
        "to signal a web server that runs as another user",
    ),
    (
        Capability::CAP_SETUID,
        "to become another user (`sudo`, `ssh` by a user's key, a web server's own)",
    ),
    (Capability::CAP_SETGID, "the same for groups"),
    (
        Capability::CAP_NET_BIND_SERVICE,
        "for `nginx -t`, which binds the ports that it is to listen on",
    ),
    (
        Capability::CAP_SYS_ADMIN,
        "for a `via` that enters another namespace (`nsenter`, `ip netns exec`)",
    ),
    (Capability::CAP_SYS_CHROOT, "the same, for mount namespaces"),
    (
        Capability::CAP_SYS_PTRACE,
        "the same, for those of other users' processes",
    ),
];

/// Without these nothing works; the others are missed only by what they are for.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// Why the process's rights are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// It was started with too few.
    #[error(
        "{} missing: start lbd as root, or give it the capabilities CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW \
         (systemd: AmbientCapabilities, CapabilityBoundingSet; containers: --cap-add)",
        are(.0)
    )]
    Missing(Vec<Capability>),
    /// The kernel refused to take some away.
    #[error("cannot give up capabilities: {0}")]
    Kept(String),
}

fn are(missing: &[Capability]) -> String {
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

/// Leaves the calling thread, and those that it starts, with [`DAEMON`], and what they run with no more than that, set-user-ID
/// programs included. To be called before there are other threads, and after all that needs more has been done.
///
/// # Errors
/// What `lbd` needs is not there, or the kernel does not take the rest.
pub fn keep_the_daemons() -> Result<(), PrivilegeError> {
    let present = caps::read(None, CapSet::Permitted).map_err(kept)?;
    let missing: Vec<_> = NEEDED.into_iter().filter(|it| !present.contains(it)).collect();
    if !missing.is_empty() {
        return Err(PrivilegeError::Missing(missing));
    }
    keep(&DAEMON.map(|(capability, _)| capability))?;
    for passed_on in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, passed_on).map_err(kept)?;
    }
    prctl::set_no_new_privs().map_err(kept)
}

/// Leaves the calling thread, those that it starts, and what they run, with [`SITE_WORKER`]. To be called before there are
/// other threads.
///
/// # Errors
/// The kernel does not take the rest.
pub fn keep_the_site_workers() -> Result<(), PrivilegeError> {
    keep(&SITE_WORKER.map(|(capability, _)| capability))
}

/// Gives up everything else, in every set. The bounding set is left alone where changing it is not allowed (without
/// `CAP_SETPCAP`): whoever started this chose it.
fn keep(capabilities: &[Capability]) -> Result<(), PrivilegeError> {
    let wanted: CapsHashSet = capabilities.iter().copied().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(kept)? {
        for other in &caps::read(None, CapSet::Bounding).map_err(kept)? - &wanted {
            caps::drop(None, CapSet::Bounding, other).map_err(kept)?;
        }
    }
    // In this order: what is ambient is inheritable, and what is inheritable or effective is permitted.
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        let present = caps::read(None, set).map_err(kept)?;
        caps::set(None, set, &(&present & &wanted)).map_err(kept)?;
    }
    Ok(())
}

fn kept(error: impl ToString) -> PrivilegeError {
    PrivilegeError::Kept(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;
    use crate::dataplane::{Dataplane, LoadOptions, Object};
    use crate::testing::{in_namespace, sh};
    use crate::vip;

    /// Capabilities and `no_new_privs` are a thread's own: tests give them up in threads of their own.
    fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        Some(std::thread::spawn(work).join().unwrap())
    }

    fn read(set: CapSet) -> CapsHashSet {
        caps::read(None, set).unwrap()
    }

    #[test]
    fn the_daemon_keeps_its_own_and_passes_on_no_more() {
        in_thread(|| {
            let before = read(CapSet::Permitted);
            keep_the_daemons().unwrap();
            let wanted: CapsHashSet = DAEMON.map(|(it, _)| it).into();
            assert!(before.len() > wanted.len(), "the test needs more to give up");
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Bounding] {
                assert_eq!(read(set), wanted, "{set:?}");
            }
            assert!(read(CapSet::Ambient).is_empty());
            assert!(read(CapSet::Inheritable).is_empty());
            let child = sh("grep -E 'CapPrm|NoNewPrivs' /proc/self/status");
            let mask: u64 = wanted.iter().map(Capability::bitmask).sum();
            assert_eq!(child, format!("CapPrm:\t{mask:016x}\nNoNewPrivs:\t1\n"));
            assert!(
                caps::set(None, CapSet::Effective, &before).is_err(),
                "it is for good"
            );
        });
    }

    #[test]
    fn the_site_worker_keeps_its_own() {
        in_thread(|| {
            let before = read(CapSet::Permitted);
            keep_the_site_workers().unwrap();
            let wanted: CapsHashSet = SITE_WORKER.map(|(it, _)| it).into();
            assert_eq!(read(CapSet::Permitted), &before & &wanted);
            assert!(!read(CapSet::Bounding).contains(&Capability::CAP_BPF));
            assert!(!read(CapSet::Bounding).contains(&Capability::CAP_NET_ADMIN));
        });
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = in_thread(|| {
            keep(&[Capability::CAP_BPF]).unwrap();
            keep_the_daemons().unwrap_err().to_string()
        });
        if let Some(error) = error {
            let named = "CAP_NET_ADMIN, CAP_PERFMON are missing: start lbd as root";
            assert!(error.starts_with(named), "{error}");
        }
        assert_eq!(are(&[Capability::CAP_BPF]), "CAP_BPF is");
    }

    /// What the daemon does with its rights: load, attach, put a VIP on an interface, announce it.
    async fn work() -> Result<(), String> {
        let options = LoadOptions {
            max_connections: 1024,
            max_wide_connections: 1024,
            full_nat_ports: 0,
            learn_return_hops: true,
            selection_seed: 0,
        };
        let object = Object::embedded().map_err(|error| error.to_string())?;
        let mut dataplane = Dataplane::load(&object, options).map_err(|error| error.to_string())?;
        dataplane.now().map_err(|error| error.to_string())?;
        dataplane
            .attach("h0", XdpMode::Native)
            .map_err(|error| error.to_string())?;
        let address = "203.0.113.10".parse().unwrap();
        vip::add(address, "h0").await.map_err(|error| error.to_string())?;
        vip::announce(address, "h0").map_err(|error| error.to_string())
    }

    const LINK: &str = "ip link add h0 type veth peer name h1; ip link set h0 up; ip link set h1 up";

    /// In this order: aya finds out once what the kernel can do, for the whole process, and takes what it has no right to for
    /// what the kernel cannot do.
    #[test]
    fn what_the_daemon_keeps_is_enough_and_nothing_of_it_can_be_spared() {
        in_namespace(async |_| {
            sh(LINK);
            keep_the_daemons().unwrap();
            work().await.unwrap();
        });
        for (spared, _) in DAEMON {
            in_namespace(async move |_| {
                sh(LINK);
                let rest: Vec<_> = DAEMON
                    .map(|(it, _)| it)
                    .into_iter()
                    .filter(|it| *it != spared)
                    .collect();
                keep(&rest).unwrap();
                assert!(work().await.is_err(), "{spared} is not needed");
            });
        }
    }
}
