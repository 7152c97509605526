//! The only place that touches the kernel program and its maps.
//!
//! `snapshot` turns a description of services into the exact contents of one copy of the maps (pure); `Dataplane` loads
//! and attaches the program, publishes snapshots with one flip, and reads what the program wrote.

mod attach;
mod bring_over;
mod clock;
mod connections;
mod counters;
mod ethtool;
mod explainer;
mod interface;
mod layout;
mod load;
mod loader;
mod memory;
mod notes;
mod object;
mod pins;
mod shared_maps;
mod snapshot;
mod takeover;
mod tracer;
mod xdp_features;

pub use aya::programs::ProgramFd;

pub use attach::Attachment;
pub use clock::Clock;
pub use connections::{Connection, ConnectionTable, Glance};
pub use counters::Counters;
pub use ethtool::{ReceiveQueues, driver, merges_packets, queues_in_use, receive_queues, strips_vlan_tags};
pub use explainer::{Blueprint, Explained, Explainer};
pub use interface::{LinkFlags, link_flags, mac, mtu};
pub use load::{LoadOptions, PROGRAM};
pub use loader::Dataplane;
pub use notes::TooLong;
pub use object::{Object, ObjectError};
pub use pins::{PinError, Pins};
pub use snapshot::{BackendEntry, Forwarding, PortLease, ServiceEntry, Snapshot, SnapshotError};
pub use takeover::pinned_notes;
pub use tracer::Tracer;
pub use xdp_features::{XdpFeatures, xdp_features};

/// Why the data path could not be set up, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The object file is not one that this daemon can use.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel refused to load it.
    #[error("the kernel refuses the eBPF program: {0}{hint}", hint = privileges_hint())]
    Load(Box<aya::EbpfError>),
    /// The verifier refused a program, or it could not be run or attached.
    #[error("program {program}: {source}{hint}", hint = privileges_hint())]
    Program {
        /// The program's name in the object.
        program: &'static str,
        /// What the kernel said, with the verifier's log if there is one.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a map or a program.
    #[error(
        "the eBPF object has no {0}: it was not built from this version's lb-ebpf; run `cargo xtask build`"
    )]
    Missing(&'static str),
    /// A map could not be read or mapped.
    #[error("map {map}: {reason}")]
    Map {
        /// The map's name in the object.
        map: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The program could not be attached.
    #[error("interface {interface}: cannot attach the XDP program ({mode}): {reason}")]
    Attach {
        /// The interface's name.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said, and what to do.
        reason: String,
    },
    /// The kernel's tick rate could not be told.
    #[error("cannot learn the kernel's tick rate: {0}")]
    Clock(String),
    /// What is pinned cannot be used, or nothing can be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A snapshot cannot be built.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Whether this kernel takes XDP programs; `None`: it does not tell us.
#[must_use]
pub fn supports_xdp() -> Option<bool> {
    aya::sys::is_program_supported(aya::programs::ProgramType::Xdp).ok()
}

fn privileges_hint() -> &'static str {
    if nix::unistd::geteuid().is_root() {
        ""
    } else {
        "; loading a program needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run lbd as root or by its systemd unit"
    }
}
