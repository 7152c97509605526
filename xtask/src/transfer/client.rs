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
const PATIENCE: Duration = Duration::from_secs(180);

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When it does not within 60 s, or is refused.
    pub fn open(to: SocketAddr) -> anyhow::Result<Self> {
        Self::over(
            TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("cannot connect to {to}"))?,
        )
    }

    /// Connects from this address and port, which may have been in use until just now: for another connection to the same
    /// server only if that was [`reset`](Self::reset), or closed by the server first.
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
        let mut connection = Self(BufReader::with_capacity(4096, stream));
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

    /// Ends it with a RST.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn reset(self) -> anyhow::Result<()> {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        Ok(socket::setsockopt(self.stream(), sockopt::Linger, &at_once)?)
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
        let (&[server, peer, found], verdict) = words
            .split_first_chunk()
            .with_context(|| format!("the answer is {line:?}"))?;
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
    let socket =
        socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("cannot make a socket")?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))
        .with_context(|| format!("cannot have {from}"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::transfer::serve;

    /// A server on a port of the loopback interface that was free a moment ago.
    fn server() -> SocketAddr {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        serve("web1", &[address]).unwrap();
        address
    }

    /// A datagram relay that loses every third datagram, and answers what it is told to.
    fn lossy_relay(to: SocketAddr, spoil: fn(&mut Vec<u8>)) -> SocketAddr {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = near.local_addr().unwrap();
        thread::spawn(move || {
            let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = vec![0; 65_536];
            for number in 0_u64.. {
                let (length, client) = near.recv_from(&mut buffer).unwrap();
                if number % 3 == 2 {
                    continue;
                }
                far.send_to(&buffer[..length], to).unwrap();
                let length = far.recv(&mut buffer).unwrap();
                let mut answer = buffer[..length].to_vec();
                spoil(&mut answer);
                near.send_to(&answer, client).unwrap();
            }
        });
        address
    }

    #[test]
    fn bytes_go_both_ways_by_both_protocols() {
        let to = server();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for direction in [Direction::Get, Direction::Put] {
                let report = transfer(protocol, direction, to, 1_000_001).unwrap();
                assert_eq!((report.server.as_str(), report.bytes), ("web1", 1_000_001));
                assert_eq!(report.peer.ip(), to.ip());
            }
        }
    }

    #[test]
    fn a_connection_serves_many_requests() {
        let mut connection = Connection::open(server()).unwrap();
        for sequence in 0..3 {
            let report = connection.ping(sequence).unwrap();
            assert_eq!(report.peer, connection.stream().local_addr().unwrap());
        }
        connection.put(70_000).unwrap();
        connection.ping(3).unwrap();
        connection.get(70_000).unwrap();
        connection.stream().write_all(b"nonsense\n").unwrap();
        assert!(connection.ping(4).is_err());
    }

    #[test]
    fn a_port_can_be_used_again_at_once() {
        let to = server();
        let mut first = Connection::open_from((Ipv4Addr::LOCALHOST, 0).into(), to).unwrap();
        let from = first.ping(0).unwrap().peer;
        first.reset().unwrap();
        let mut second = Connection::open_from(from, to).unwrap();
        assert_eq!(second.ping(0).unwrap().peer, from);
    }

    #[test]
    fn datagrams_that_are_lost_are_sent_again() {
        let relay = lossy_relay(server(), |_| ());
        let report = transfer(Protocol::Udp, Direction::Put, relay, 50_000).unwrap();
        // 36 datagrams, of which a third is lost, and of those again.
        assert!((17..=40).contains(&report.resent), "{report:?}");
    }

    #[test]
    fn what_is_damaged_is_noticed() {
        let server = server();
        let damaged = lossy_relay(server, |answer| {
            if let Some(last) = answer.last_mut() {
                *last ^= 1;
            }
        });
        let error = transfer(Protocol::Udp, Direction::Get, damaged, 5_000).unwrap_err();
        assert!(error.to_string().contains("other bytes"), "{error:#}");
        let of_another = lossy_relay(server, |answer| answer[3] = answer[answer.len() - 1]);
        let error = transfer(Protocol::Udp, Direction::Get, of_another, 500_000).unwrap_err();
        assert!(format!("{error:#}").contains("answer"), "{error:#}");
    }
}
