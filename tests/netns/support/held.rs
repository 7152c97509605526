//! Thousands of connections that are open at once, each to the web servers' transfer service through the balancer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use xtask::lab::{Lab, Node};
use xtask::transfer::client::Connection;

/// Threads that open and use connections at a time: with a long way to the servers, one alone would take hours.
const THREADS: usize = 100;

/// Connections that stay open until this is dropped.
pub(crate) struct Held(Vec<One>);

struct One {
    connection: Connection,
    /// The server that answered first.
    server: String,
}

impl Held {
    /// Opens so many, each with a request that is answered.
    pub(crate) fn open(lab: &Lab, to: SocketAddr, count: usize) -> Result<Self> {
        // As many open files as this process may have.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let open = |number: usize| {
            let mut connection = Connection::open(to)?;
            let server = connection.ping(number as u64)?.server;
            Ok(One { connection, server })
        };
        lab.namespace(Node::Client).run(|| {
            let numbers: Vec<usize> = (0..count).collect();
            let size = count.div_ceil(THREADS).max(1);
            let open = &open;
            let opened = in_threads(numbers.chunks(size), |numbers| {
                numbers
                    .iter()
                    .map(|&number| open(number))
                    .collect::<Result<Vec<_>>>()
            })?;
            Ok(Self(opened.into_iter().flatten().collect()))
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many each server has.
    pub(crate) fn split(&self) -> BTreeMap<&str, usize> {
        let mut split = BTreeMap::new();
        for one in &self.0 {
            *split.entry(one.server.as_str()).or_default() += 1;
        }
        split
    }

    /// Each must still carry a request to the server that it had from the first, and an answer back.
    pub(crate) fn check(&mut self) -> Result<()> {
        let size = self.0.len().div_ceil(THREADS).max(1);
        in_threads(self.0.chunks_mut(size), |part| {
            for One { connection, server } in part {
                let from = connection.stream().local_addr()?;
                let answer = connection.ping(u64::from(from.port()));
                let answer = answer.with_context(|| format!("the connection from {from} to {server}"))?;
                ensure!(
                    answer.server == *server,
                    "{from} was connected to {server}, now {answer:?}"
                );
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Works on all parts at a time, in the namespace of the caller.
fn in_threads<P: Send, T: Send>(
    parts: impl Iterator<Item = P>,
    work: impl Fn(P) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect()
    })
}
