//! What goes between `lbd` and the site worker.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::SiteServer;
use crate::handoff::certificate::hex;
use crate::handoff::scripts::{Step, script};

/// One line of JSON from `lbd`; the answer is one, too: a `Result<(), String>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) step: Step,
    /// A server of the site by its name.
    pub(super) server: String,
    /// As `Release::id` has it.
    pub(super) release: String,
    /// SHA-256 of the command that `lbd` means.
    command: String,
    pub(super) limit: Duration,
}

impl Order {
    pub(super) fn new(step: Step, server: &SiteServer, release: &str, limit: Duration) -> Self {
        Self {
            step,
            server: server.name.clone(),
            release: release.to_owned(),
            command: digest(step, server, release),
            limit,
        }
    }

    /// Whether this server's configuration comes to the command that is meant.
    pub(super) fn means(&self, server: &SiteServer) -> bool {
        self.command == digest(self.step, server, &self.release)
    }
}

fn digest(step: Step, server: &SiteServer, release: &str) -> String {
    let mut hash = Sha256::new();
    for word in server.via.iter().chain([&script(step, server, release)]) {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    hex(&hash.finalize())
}

/// A value as a line.
pub(super) fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The two ends that connections are passed over: one message each.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Passes a connection to the other end.
pub(super) fn pass(over: &OwnedFd, connection: &impl AsRawFd) -> io::Result<()> {
    let descriptors = [connection.as_raw_fd()];
    // A message of no bytes would look like the end.
    sendmsg::<()>(
        over.as_raw_fd(),
        &[IoSlice::new(b"+")],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// Takes the next connection; `None`: the other end is closed.
pub(super) fn take(from: &impl AsFd) -> io::Result<Option<OwnedFd>> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!([i32; 1]));
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(
        from.as_fd().as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    if message.bytes == 0 {
        return Ok(None);
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made it for this message, and nobody else has it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*descriptor) }));
        }
    }
    Err(io::Error::other("a message without a connection"))
}
