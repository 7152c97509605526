//! Next hops: by which interface and to which MAC address a backend's packets leave, as the kernel would send them.

mod resolver;
mod watch;

pub use resolver::{NextHop, Resolution, Resolver};
pub use watch::Watch;

/// Why next hops cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// No netlink socket.
    #[error(
        "cannot open a netlink socket: {0}; `lbd` needs the address family AF_NETLINK (systemd: RestrictAddressFamilies)"
    )]
    Open(#[source] std::io::Error),
    /// The kernel refused a request.
    #[error("the kernel does not tell {what}: {source}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel did not answer, or not in a form that is understood.
    #[error("the kernel did not tell routes and neighbours within {0:?}; the next hops stay as they are")]
    Silent(std::time::Duration),
}

#[cfg(test)]
mod tests;
