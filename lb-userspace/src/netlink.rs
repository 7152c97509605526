//! The door to rtnetlink, shared by what reads and changes the host's network.

use std::io;

use rtnetlink::Handle;

use crate::task::OwnedTask;

/// A netlink socket and the task that serves it. Opened for each batch of requests: that costs some 50 µs and leaves
/// nothing that could break in the background.
pub(crate) struct Connection {
    pub(crate) handle: Handle,
    _task: OwnedTask,
}

impl Connection {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            _task: OwnedTask::spawn(connection),
        })
    }
}

/// A refusal with the kernel's error number (`libc::EEXIST`, …) where there is one.
pub(crate) fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
