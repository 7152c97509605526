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

/// The error number that the kernel answered with (`libc::EEXIST`, …); `None`: the failure was another.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}
