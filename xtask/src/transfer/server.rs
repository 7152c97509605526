//! The server: sockets and the threads that serve them.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{server_tcp, server_udp};

/// Listens at these addresses, TCP and UDP, and serves in the background for as long as the process lives.
///
/// # Errors
/// When an address cannot be had.
pub fn serve(name: &str, addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let name: Arc<str> = name.into();
    allow_many_connections().context("cannot raise the limit of open files")?;
    let mut listeners = Vec::new();
    for &address in addresses {
        let cannot = || format!("cannot listen on {address}");
        listeners.push(TcpListener::bind(address).with_context(cannot)?);
        let socket = UdpSocket::bind(address).with_context(cannot)?;
        let name = Arc::clone(&name);
        thread::spawn(move || server_udp::serve(&name, &socket));
    }
    let mut waiting = server_tcp::Waiting::on(name, listeners).context("cannot wait for connections")?;
    thread::spawn(move || waiting.serve());
    Ok(())
}

/// As many open files as an ordinary process may have.
fn allow_many_connections() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
