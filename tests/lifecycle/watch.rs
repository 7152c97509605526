//! A site in use: connections of every kind, each of which is looked after until the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use xtask::lab::{Lab, Node, TRANSFER_PORT, VIP, VIP6};
use xtask::transfer::client::{Connection, Datagrams, Direction};

use crate::support::held::Held;

/// Connections that stay open and are used only before and after.
const IDLE: usize = 60;
/// How long an answer may take before it counts as failed: a lost SYN is sent again after one second, then after two more.
const PATIENCE: Duration = Duration::from_secs(8);
/// What a download fetches at a time; its connection is the same from the beginning to the end.
const PIECE: u64 = 60_000;

/// The site in use, from the beginning to [`Watch::end`].
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    downloads: Vec<JoinHandle<Seen>>,
    requests: Vec<JoinHandle<Seen>>,
    idle: Vec<Held>,
}

/// What became of one kind of connections.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How many: downloads, requests, connections.
    pub(crate) count: u64,
    /// What went wrong.
    pub(crate) failures: Vec<String>,
    /// The longest that anything took.
    pub(crate) slowest: Duration,
}

/// What became of all.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Connections that carried data all the time; every byte was compared.
    pub(crate) downloads: Seen,
    /// Connections, and datagrams, each for one request.
    pub(crate) requests: Seen,
    /// Connections that were silent meanwhile, and used at the end.
    pub(crate) idle: Seen,
}

fn destinations() -> [SocketAddr; 2] {
    [(VIP, TRANSFER_PORT).into(), (VIP6, TRANSFER_PORT).into()]
}

impl Watch {
    /// Begins; everything has been answered once when this returns.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut watch = Self {
            stop: stop.clone(),
            downloads: Vec::new(),
            requests: Vec::new(),
            idle: Vec::new(),
        };
        for to in destinations() {
            watch.idle.push(Held::open(lab, to, IDLE / 2)?);
            for _ in 0..2 {
                let stop = stop.clone();
                watch.downloads.push(in_client(lab, move || download(to, &stop)));
            }
            let (for_tcp, for_udp) = (stop.clone(), stop.clone());
            watch.requests.push(in_client(lab, move || {
                again_and_again(&for_tcp, |number| {
                    let mut connection = Connection::open(to)?;
                    connection.set_patience(PATIENCE)?;
                    connection.ping(number).map(drop)
                })
            }));
            watch.requests.push(in_client(lab, move || {
                again_and_again(&for_udp, |number| {
                    let mut socket = Datagrams::open(to)?;
                    socket.set_patience(PATIENCE);
                    // A question and an answer; what is lost is sent again, as by anybody who speaks UDP. (More of them in a row may
                    // be answered by two servers: datagrams do not stay with a backend that has failed.)
                    socket.transfer(Direction::Get, 50 + number % 50, 100).map(drop)
                })
            }));
        }
        // A fault must find it in the middle.
        thread::sleep(Duration::from_millis(200));
        Ok(watch)
    }

    /// Ends it: what became of everything.
    pub(crate) fn end(self) -> Result<Verdict> {
        thread::sleep(Duration::from_millis(200));
        self.stop.store(true, Relaxed);
        let mut idle = Seen::default();
        for mut held in self.idle {
            idle.count += held.len() as u64;
            let started = Instant::now();
            if let Err(error) = held.check() {
                idle.failures.push(format!("{error:#}"));
            }
            idle.slowest = idle.slowest.max(started.elapsed());
        }
        Ok(Verdict {
            downloads: joined(self.downloads)?,
            requests: joined(self.requests)?,
            idle,
        })
    }
}

impl Verdict {
    /// Whether nothing went wrong at all.
    pub(crate) fn failures(&self) -> Vec<String> {
        let kinds = [
            ("download", &self.downloads),
            ("request", &self.requests),
            ("idle", &self.idle),
        ];
        kinds
            .into_iter()
            .flat_map(|(kind, seen)| seen.failures.iter().map(move |why| format!("{kind}: {why}")))
            .collect()
    }
}

fn in_client(lab: &Lab, work: impl FnOnce() -> Seen + Send + 'static) -> JoinHandle<Seen> {
    let namespace = lab.namespace(Node::Client);
    thread::spawn(move || {
        namespace.run(|| Ok(work())).unwrap_or_else(|error| Seen {
            failures: vec![format!("cannot enter the client's namespace: {error:#}")],
            ..Seen::default()
        })
    })
}

fn joined(threads: Vec<JoinHandle<Seen>>) -> Result<Seen> {
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().map_err(|_| anyhow!("a client panicked"))?;
        all.count += seen.count;
        all.failures.extend(seen.failures);
        all.slowest = all.slowest.max(seen.slowest);
    }
    Ok(all)
}

/// One connection, and piece after piece over it.
fn download(to: SocketAddr, stop: &AtomicBool) -> Seen {
    let mut seen = Seen {
        count: 1,
        ..Seen::default()
    };
    let mut fetch = || -> Result<()> {
        let mut connection = Connection::open(to)?;
        connection.set_patience(PATIENCE)?;
        while !stop.load(Relaxed) {
            let started = Instant::now();
            connection.get(PIECE)?;
            seen.slowest = seen.slowest.max(started.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    if let Err(error) = fetch() {
        seen.failures.push(format!("from {to}: {error:#}"));
    }
    seen
}

fn again_and_again(stop: &AtomicBool, mut request: impl FnMut(u64) -> Result<()>) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Relaxed) {
        let started = Instant::now();
        seen.count += 1;
        if let Err(error) = request(seen.count) {
            seen.failures.push(format!("{error:#}"));
        }
        seen.slowest = seen.slowest.max(started.elapsed());
        thread::sleep(Duration::from_millis(3));
    }
    seen
}
