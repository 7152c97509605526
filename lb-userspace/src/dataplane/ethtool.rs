//! What an interface's driver says of itself: ethtool's ioctls (linux/ethtool.h).

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;

use super::interface::Request;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXFHINDIR: u32 = 0x38;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// Of ETHTOOL_GFLAGS.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// Whether an interface takes VLAN tags off before the program sees a frame (`ethtool -k`: rx-vlan-offload).
///
/// # Errors
/// There is none of this name, or it does not tell.
pub fn strips_vlan_tags(interface: &str) -> io::Result<bool> {
    Ok(flags(interface)? & ETH_FLAG_RXVLAN != 0)
}

/// Whether an interface merges packets before the program sees them (`ethtool -k`: large-receive-offload).
///
/// # Errors
/// There is none of this name, or it does not tell.
pub fn merges_packets(interface: &str) -> io::Result<bool> {
    Ok(flags(interface)? & ETH_FLAG_LRO != 0)
}

fn flags(interface: &str) -> io::Result<u32> {
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
    // SAFETY: the kernel writes one word after the command.
    unsafe { ask(interface, &mut value)? };
    Ok(value.data)
}

/// The name of an interface's driver.
///
/// # Errors
/// There is none of this name, or it does not tell.
pub fn driver(interface: &str) -> io::Result<String> {
    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct Info {
        command: u32,
        driver: [u8; 32],
        others: [u8; 140],
        counts: [u32; 5],
    }
    let mut info = Info {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        others: [0; 140],
        counts: [0; 5],
    };
    // SAFETY: the structure is the kernel's.
    unsafe { ask(interface, &mut info)? };
    let name = CStr::from_bytes_until_nul(&info.driver).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Receive queues of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveQueues {
    /// In use.
    pub now: u32,
    /// As many as there could be.
    pub most: u32,
    /// Whether they also send, so that `ethtool -L` calls them `combined`.
    pub combined: bool,
}

/// How many receive queues an interface has (`ethtool -l`).
///
/// # Errors
/// There is none of this name, or it does not tell.
pub fn receive_queues(interface: &str) -> io::Result<ReceiveQueues> {
    /// `struct ethtool_channels`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        most_receiving: u32,
        most_sending: u32,
        most_other: u32,
        most_combined: u32,
        receiving: u32,
        sending: u32,
        other: u32,
        combined: u32,
    }
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    // SAFETY: the structure is the kernel's.
    unsafe { ask(interface, &mut channels)? };
    let combined = channels.most_combined > 0;
    Ok(ReceiveQueues {
        now: channels.receiving + channels.combined,
        most: if combined {
            channels.most_combined
        } else {
            channels.most_receiving
        },
        combined,
    })
}

/// How many receive queues get packets that are spread by their hash (RSS; `ethtool -x`).
///
/// # Errors
/// There is no interface of this name, or it has no such table.
pub fn queues_in_use(interface: &str) -> io::Result<usize> {
    /// More than any card has.
    const MOST: usize = 4096;
    /// `struct ethtool_rxfh_indir` with its array.
    #[repr(C)]
    struct Table {
        command: u32,
        size: u32,
        queues: [u32; MOST],
    }
    let mut table = Box::new(Table {
        command: ETHTOOL_GRXFHINDIR,
        size: 0,
        queues: [0; MOST],
    });
    // SAFETY: with a size of 0 the kernel writes the size alone.
    unsafe { ask(interface, &mut *table)? };
    let size = table.size as usize;
    if size == 0 || size > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel writes as many words as `size` says, which the array has, or refuses another size.
    unsafe { ask(interface, &mut *table)? };
    let used: BTreeSet<_> = table.queues.iter().take(size).collect();
    Ok(used.len())
}

/// # Safety
/// `value` must begin with a command for which the kernel reads and writes no more than the value.
unsafe fn ask<T>(interface: &str, value: &mut T) -> io::Result<()> {
    let mut request = Request::of(interface)?;
    request.0.ifr_ifru.ifru_data = (&raw mut *value).cast();
    // SAFETY: SIOCETHTOOL reads the name; the value outlives the call, and the rest is as the caller says.
    unsafe { request.send(libc::SIOCETHTOOL) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, sh};

    fn has_ethtool() -> bool {
        let there = std::process::Command::new("ethtool")
            .arg("--version")
            .output()
            .is_ok();
        if !there {
            println!("skipped: there is no ethtool");
        }
        there
    }

    #[test]
    fn tags_are_taken_off_where_ethtool_says_so() {
        if !has_ethtool() {
            return;
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
    fn a_driver_tells_its_name_and_its_queues() {
        if !has_ethtool() {
            return;
        }
        in_namespace(async |_| {
            sh("ip link add h0 numrxqueues 3 numtxqueues 3 type veth peer name h1");
            assert_eq!(driver("h0").unwrap(), "veth");
            assert!(!merges_packets("h0").unwrap());
            for now in [2, 1] {
                sh(&format!("ethtool -L h0 rx {now} tx 1"));
                let combined = false;
                assert_eq!(
                    receive_queues("h0").unwrap(),
                    ReceiveQueues {
                        now,
                        most: 3,
                        combined
                    }
                );
            }
            assert!(queues_in_use("h0").is_err(), "veth has no such table");
            assert!(driver("h7").is_err());
            assert!(receive_queues("h7").is_err());
        });
    }
}
