//! A TCP connection is accepted.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Deadline, Failed, in_words};

pub(super) async fn probe(address: SocketAddr, deadline: &Deadline) -> Result<String, Failed> {
    connect(address, deadline).await?;
    Ok("connected".to_owned())
}

/// The first step of every probe.
pub(super) async fn connect(address: SocketAddr, deadline: &Deadline) -> Result<TcpStream, Failed> {
    deadline
        .during("connecting", TcpStream::connect(address))
        .await?
        .map_err(|error| {
            let reason = in_words(&error);
            if for_want_of_resources(&error) {
                Failed::Here(reason)
            } else {
                Failed::Backend(reason)
            }
        })
}

/// Whether this host, not the backend, is to blame: no file descriptor, no memory, no free local port.
fn for_want_of_resources(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::config::Probe;

    #[tokio::test]
    async fn an_accepting_backend_succeeds() {
        let backend = serve(Answer::Hang).await;
        let reason = run(&Probe::Tcp, backend.address, LONG).await.expect("success");
        assert!(
            reason.starts_with("connected in ") && reason.ends_with(" ms"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn a_refusing_backend_fails_at_once() {
        assert_eq!(
            run(&Probe::Tcp, refusing().await, LONG).await,
            Err("connection refused".to_owned())
        );
    }

    #[tokio::test]
    async fn a_full_backlog_times_out() {
        let (_listener, _filling, address) = full_backlog().await;
        assert_eq!(
            run(&Probe::Tcp, address, SHORT).await,
            Err("timed out after 300ms (connecting)".to_owned())
        );
    }

    #[test]
    fn lack_of_descriptors_is_no_ones_fault_but_ours() {
        assert!(for_want_of_resources(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!for_want_of_resources(&io::Error::from_raw_os_error(
            libc::ECONNREFUSED
        )));
    }
}
