//! The client's datagrams: requests that are repeated until each has its answer.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::client::{Direction, Head, Report, udp_from};
use super::request::Datagram;
use super::server_udp::{LONGEST, ROOM};
use crate::app::Pattern;

/// A socket that talks to one server address.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    /// Without a single answer for so long, it is given up.
    patience: Duration,
}

/// Requests that wait for their answers at a time.
const WINDOW: usize = 128;
/// Before the round trip is known.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// The least that a request waits before it is repeated.
const LEAST_WAIT: Duration = Duration::from_millis(10);

impl Datagrams {
    /// Payload of a datagram that fits a packet of 1,500 bytes, whatever the address family.
    pub const BLOCK: usize = 1400;

    /// A new socket, from a port that the kernel chooses.
    ///
    /// # Errors
    /// When there is no route.
    pub fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let any: SocketAddr = if to.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        Self::open_from(any, to)
    }

    /// A socket with this address and port.
    ///
    /// # Errors
    /// When it cannot be had, or there is no route.
    pub fn open_from(from: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let socket = udp_from(from)?;
        socket
            .connect(to)
            .with_context(|| format!("cannot send to {to}"))?;
        // Without the right to it there is less room, and more is sent twice.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &ROOM);
        Ok(Self {
            socket,
            patience: Duration::from_secs(10),
        })
    }

    /// How long there may be no answer to anything. Default 10 s.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The socket itself.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// One datagram with `length` bytes there and back, once.
    ///
    /// # Errors
    /// When it does not come back within the patience, or not as it was sent.
    pub fn ping(&mut self, sequence: u64, length: usize) -> anyhow::Result<Report> {
        let mut payload = vec![0; length];
        Pattern::at(sequence).read_exact(&mut payload)?;
        let started = Instant::now();
        self.send(Datagram::Ping { sequence }, &payload)?;
        let mut buffer = vec![0; LONGEST];
        self.socket.set_read_timeout(Some(self.patience))?;
        let count = self.socket.recv(&mut buffer).context("no answer")?;
        let (head, echoed) = split(&buffer[..count])?;
        let head = Head::read(head, sequence)?;
        ensure!(
            echoed == payload,
            "{} of {length} bytes came back from {}, or others",
            echoed.len(),
            head.server
        );
        Ok(Report {
            server: head.server,
            peer: head.peer,
            bytes: length as u64,
            resent: 0,
            elapsed: started.elapsed(),
        })
    }

    /// `bytes` in datagrams of `block` bytes each and a head, each repeated until it is answered. All answers must come
    /// from the same server, which must always see the same peer.
    ///
    /// # Errors
    /// When nothing is answered for longer than the patience, or anything is answered wrong.
    pub fn transfer(&mut self, direction: Direction, bytes: u64, block: usize) -> anyhow::Result<Report> {
        ensure!(
            (1..=LONGEST - super::LONGEST_HEAD).contains(&block),
            "a datagram cannot carry {block} bytes; 1 to {} are possible",
            LONGEST - super::LONGEST_HEAD
        );
        let mut transfer = Transfer {
            direction,
            bytes,
            block,
            waiting: BTreeMap::new(),
            round_trip: None,
            resent: 0,
            from: None,
        };
        let started = Instant::now();
        transfer.run(self)?;
        let (server, peer) = transfer.from.context("there was nothing to transfer")?;
        Ok(Report {
            server,
            peer,
            bytes,
            resent: transfer.resent,
            elapsed: started.elapsed(),
        })
    }

    fn send(&self, request: Datagram, payload: &[u8]) -> anyhow::Result<()> {
        let datagram = [request.to_string().as_bytes(), payload].concat();
        match self.socket.send(&datagram) {
            Ok(_) => Ok(()),
            // Lost, like others on the way: it will be repeated.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_of_the_way(&error) => Ok(()),
            Err(error) => Err(error).context("cannot send"),
        }
    }
}

/// Whether it says that a datagram was lost: there was no room for it, or an earlier one was too long, as an ICMP error has
/// told meanwhile.
fn is_of_the_way(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE))
}

/// A transfer that is going on.
struct Transfer {
    direction: Direction,
    bytes: u64,
    block: usize,
    /// By their numbers: the requests that have no answer.
    waiting: BTreeMap<u64, Waiting>,
    /// A moving average, of those that needed no repetition.
    round_trip: Option<Duration>,
    resent: u64,
    from: Option<(String, SocketAddr)>,
}

#[derive(Clone, Copy)]
struct Waiting {
    sent: Instant,
    repeated: bool,
}

impl Transfer {
    fn run(&mut self, datagrams: &Datagrams) -> anyhow::Result<()> {
        let blocks = self.bytes.div_ceil(self.block as u64);
        let mut buffer = vec![0; LONGEST];
        let (mut next, mut heard) = (0, Instant::now());
        while next < blocks || !self.waiting.is_empty() {
            while next < blocks && self.waiting.len() < WINDOW {
                self.send(datagrams, next, false)?;
                next += 1;
            }
            self.repeat(datagrams)?;
            // Short, so that what is due is repeated in time.
            datagrams
                .socket
                .set_read_timeout(Some(self.wait().min(Duration::from_millis(5))))?;
            match datagrams.socket.recv(&mut buffer) {
                Ok(count) => {
                    self.answered(&buffer[..count])?;
                    heard = Instant::now();
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) || is_of_the_way(&error) => {}
                Err(error) => return Err(error).context("the transfer broke off"),
            }
            if heard.elapsed() > datagrams.patience {
                bail!(
                    "no answer for {} s, {} of {blocks} datagrams were answered before",
                    datagrams.patience.as_secs_f32(),
                    next - self.waiting.len() as u64
                );
            }
        }
        Ok(())
    }

    /// How long to wait for an answer.
    fn wait(&self) -> Duration {
        self.round_trip
            .map_or(FIRST_WAIT, |round_trip| (round_trip * 3).max(LEAST_WAIT))
    }

    fn length_of(&self, number: u64) -> usize {
        let left = self.bytes - number * self.block as u64;
        usize::try_from(left).unwrap_or(usize::MAX).min(self.block)
    }

    fn send(&mut self, datagrams: &Datagrams, number: u64, repeated: bool) -> anyhow::Result<()> {
        let (sequence, offset, length) = (number, number * self.block as u64, self.length_of(number));
        match self.direction {
            Direction::Get => datagrams.send(
                Datagram::Get {
                    sequence,
                    offset,
                    length,
                },
                &[],
            )?,
            Direction::Put => {
                let mut payload = vec![0; length];
                Pattern::at(offset).read_exact(&mut payload)?;
                datagrams.send(Datagram::Put { sequence, offset }, &payload)?;
            }
        }
        let sent = Instant::now();
        self.waiting.insert(number, Waiting { sent, repeated });
        Ok(())
    }

    /// Sends again what has waited long enough.
    fn repeat(&mut self, datagrams: &Datagrams) -> anyhow::Result<()> {
        let (now, wait) = (Instant::now(), self.wait());
        let due: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| now.duration_since(waiting.sent) > wait)
            .map(|(&number, _)| number)
            .collect();
        for number in due {
            self.send(datagrams, number, true)?;
            self.resent += 1;
        }
        Ok(())
    }

    fn answered(&mut self, datagram: &[u8]) -> anyhow::Result<()> {
        let (line, payload) = split(datagram)?;
        let number = line.split_ascii_whitespace().nth(2);
        let number = number.and_then(|number| number.parse().ok());
        let number = number.with_context(|| format!("the answer is {line:?}"))?;
        let head = Head::read(line, number)?;
        let from = (head.server, head.peer);
        match &self.from {
            Some(before) => ensure!(*before == from, "{before:?} answered before, now {from:?}"),
            None => self.from = Some(from),
        }
        let Some(waiting) = self.waiting.remove(&number) else {
            // Sent twice, and both have arrived.
            return Ok(());
        };
        if !waiting.repeated {
            let sample = waiting.sent.elapsed();
            self.round_trip = Some(
                self.round_trip
                    .map_or(sample, |average| (average * 7 + sample) / 8),
            );
        }
        match self.direction {
            Direction::Put => ensure!(head.verdict == "same", "datagram {number}: {line:?}"),
            Direction::Get => {
                let mut wanted = vec![0; self.length_of(number)];
                Pattern::at(number * self.block as u64).read_exact(&mut wanted)?;
                ensure!(
                    wanted == payload,
                    "datagram {number} carries other bytes than were sent"
                );
            }
        }
        Ok(())
    }
}

/// A datagram's line and what is behind it.
fn split(datagram: &[u8]) -> anyhow::Result<(&str, &[u8])> {
    let end = datagram.iter().position(|&byte| byte == b'\n');
    let end = end.context("the answer has no head")?;
    let head = str::from_utf8(&datagram[..end]).context("the answer has no head")?;
    Ok((head, &datagram[end + 1..]))
}
