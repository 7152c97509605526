//! The client: what it asks, and what came of it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use serde::Serialize;

use super::request::Request;
use super::{LONGEST_HEAD, Protocol};
use crate::app::{Pattern, compare};

pub use super::client_udp::Datagrams;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The server that answered; of several datagrams, all of them.
    pub server: String,
    /// Where it saw the request come from.
    pub peer: SocketAddr,
    /// Bytes that arrived and were right.
    pub bytes: u64,
    /// Datagrams that had to be sent again.
    pub resent: u64,
    /// From the first packet to the last.
    pub elapsed: Duration,
}

/// A whole transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// From the server
    Get,
    /// To the server
    Put,
}

/// Transfers `bytes` on a connection of its own, or from a socket of its own in datagrams of [`Datagrams::BLOCK`] bytes.
///
/// # Errors
/// When they do not all arrive as they were sent.
pub fn transfer(
    protocol: Protocol,
    direction: Direction,
    to: SocketAddr,
    bytes: u64,
) -> anyhow::Result<Report> {
    match protocol {
        Protocol::Tcp => {
            let mut connection = Connection::open(to)?;
            match direction {
                Direction::Get => connection.get(bytes),
                Direction::Put => connection.put(bytes),
            }
        }
        Protocol::Udp => Datagrams::open(to)?.transfer(direction, bytes, Datagrams::BLOCK),
    }
}

/// A TCP connection to the server.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

/// Nothing may take longer, if not [`Connection::set_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When it does not within 60 s, or is refused.
    pub fn open(to: SocketAddr) -> anyhow::Result<Self> {
        Self::over(TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("cannot connect to {to}"))?)
    }

    /// Connects from this address and port, even if the port was in use until just now.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open_from(from: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let socket = bound(from, SockType::Stream)?;
        socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
            .with_context(|| format!("cannot connect to {to} from {from}"))?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        let mut connection = Self(BufReader::with_capacity(1 << 16, stream));
        connection.set_patience(PATIENCE)?;
        Ok(connection)
    }

    /// How long an answer may take, or a piece of one.
    ///
    /// # Errors
    /// When it is zero.
    pub fn set_patience(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.0.get_ref().set_read_timeout(Some(patience))?;
        Ok(self.0.get_ref().set_write_timeout(Some(patience))?)
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// A few bytes there and back.
    ///
    /// # Errors
    /// When the answer is another one than it should be, or does not come.
    pub fn ping(&mut self, sequence: u64) -> anyhow::Result<Report> {
        let started = Instant::now();
        self.ask(Request::Ping { sequence })?;
        let answer = self.head(sequence)?;
        ensure!(answer.verdict.is_empty(), "the answer is {answer:?}");
        Ok(answer.report(0, started))
    }

    /// `bytes` from the server.
    ///
    /// # Errors
    /// When they do not all arrive as they were sent.
    pub fn get(&mut self, bytes: u64) -> anyhow::Result<Report> {
        let started = Instant::now();
        self.ask(Request::Get { length: bytes })?;
        let answer = self.head(bytes)?;
        let (length, same) = compare(&mut self.0.by_ref().take(bytes))
            .with_context(|| format!("the answer of {} broke off", answer.server))?;
        ensure!(
            length == bytes && same,
            "{length} of {bytes} bytes came from {}, as sent: {same}",
            answer.server
        );
        Ok(answer.report(bytes, started))
    }

    /// `bytes` to the server.
    ///
    /// # Errors
    /// When they do not all arrive as they were sent.
    pub fn put(&mut self, bytes: u64) -> anyhow::Result<Report> {
        let started = Instant::now();
        self.ask(Request::Put { length: bytes })?;
        io::copy(&mut Pattern::new().take(bytes), self.0.get_mut()).context("the upload broke off")?;
        let answer = self.head(bytes)?;
        ensure!(
            answer.verdict == "same",
            "{} found the {bytes} bytes that it got {:?}",
            answer.server,
            answer.verdict
        );
        Ok(answer.report(bytes, started))
    }

    fn ask(&mut self, request: Request) -> anyhow::Result<()> {
        self.0
            .get_mut()
            .write_all(request.to_string().as_bytes())
            .context("cannot send the request")
    }

    fn head(&mut self, number: u64) -> anyhow::Result<Head> {
        let mut line = String::new();
        let count = self
            .0
            .by_ref()
            .take(LONGEST_HEAD as u64)
            .read_line(&mut line)
            .context("no answer")?;
        ensure!(count > 0, "the connection was closed instead of an answer");
        Head::read(&line, number)
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) server: String,
    pub(super) peer: SocketAddr,
    pub(super) verdict: String,
}

impl Head {
    /// That of the answer to the request with this number.
    pub(super) fn read(line: &str, number: u64) -> anyhow::Result<Self> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (&[server, peer, found], verdict) = words.split_first_chunk().with_context(|| format!("the answer is {line:?}"))?;
        let verdict = match *verdict {
            [] => "",
            [verdict] => verdict,
            _ => bail!("the answer is {line:?}"),
        };
        ensure!(
            found.parse() == Ok(number),
            "the answer is {line:?}, where the number should be {number}"
        );
        Ok(Self {
            server: server.to_owned(),
            peer: peer.parse().with_context(|| format!("the answer is {line:?}"))?,
            verdict: verdict.to_owned(),
        })
    }

    fn report(self, bytes: u64, started: Instant) -> Report {
        Report {
            server: self.server,
            peer: self.peer,
            bytes,
            resent: 0,
            elapsed: started.elapsed(),
        }
    }
}

/// A UDP socket of this address and port.
pub(super) fn udp_from(from: SocketAddr) -> anyhow::Result<UdpSocket> {
    Ok(bound(from, SockType::Datagram)?.into())
}

fn bound(from: SocketAddr, kind: SockType) -> anyhow::Result<OwnedFd> {
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("cannot make a socket")?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))
        .with_context(|| format!("cannot have {from}"))?;
    Ok(socket)
}
