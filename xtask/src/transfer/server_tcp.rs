//! The server's TCP connections. Thousands of them may be open without a word: these wait together, in one thread. One that
//! wants bytes gets a thread of its own.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::LONGEST_HEAD;
use super::request::Request;
use crate::app::{Pattern, compare};

/// A client that takes or gives nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections that nothing is asked on, and what new ones come from.
pub(super) struct Waiting {
    name: Arc<str>,
    epoll: Epoll,
    listeners: HashMap<u64, TcpListener>,
    connections: HashMap<u64, Connection>,
}

/// An open connection, and the part of a line that has arrived.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    received: Vec<u8>,
}

/// What becomes of a connection after something has arrived.
enum Next {
    Wait,
    Close,
    /// It wants more than a line.
    Serve(Request),
}

impl Waiting {
    pub(super) fn on(name: Arc<str>, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut waiting = Self {
            name,
            epoll,
            listeners: HashMap::new(),
            connections: HashMap::new(),
        };
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let key = waiting.watch(&listener)?;
            waiting.listeners.insert(key, listener);
        }
        Ok(waiting)
    }

    fn watch(&self, socket: &(impl AsFd + AsRawFd)) -> io::Result<u64> {
        let key = socket.as_raw_fd().unsigned_abs().into();
        self.epoll
            .add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        Ok(key)
    }

    /// For ever, or until the kernel has no more to give.
    pub(super) fn serve(&mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                let key = event.data();
                if self.listeners.contains_key(&key) {
                    self.accept(key);
                } else {
                    self.read(key);
                }
            }
        }
    }

    fn accept(&mut self, listener: u64) {
        while let Some(Ok((stream, peer))) = self.listeners.get(&listener).map(TcpListener::accept) {
            let is_ready = stream
                .set_write_timeout(Some(PATIENCE))
                .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
                .and_then(|()| stream.set_nodelay(true));
            if let (Ok(()), Ok(key)) = (is_ready, self.watch(&stream)) {
                let received = Vec::new();
                let connection = Connection {
                    stream,
                    peer,
                    received,
                };
                self.connections.insert(key, connection);
            }
        }
    }

    fn read(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let next = connection.read(&self.name);
        if matches!(next, Next::Wait) {
            return;
        }
        let Some(connection) = self.connections.remove(&key) else {
            return;
        };
        // Whatever may be wrong with it, it is not waited for any more.
        let _ = self.epoll.delete(&connection.stream);
        if let Next::Serve(request) = next {
            let name = Arc::clone(&self.name);
            thread::spawn(move || connection.serve(&name, request));
        }
    }
}

impl Connection {
    /// Reads what is there, and answers what can be answered in a line.
    fn read(&mut self, name: &str) -> Next {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) | Err(_) => return Next::Close,
            Ok(count) => self.received.extend_from_slice(&piece[..count]),
        }
        while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let request = str::from_utf8(&line).unwrap_or_default().parse();
            match request {
                Ok(Request::Ping { sequence }) => {
                    if head(&mut self.stream, name, self.peer, sequence, "").is_err() {
                        return Next::Close;
                    }
                }
                Ok(request) => return Next::Serve(request),
                Err(_) => return Next::Close,
            }
        }
        if self.received.len() > LONGEST_HEAD {
            return Next::Close;
        }
        Next::Wait
    }

    /// Serves it to its end, beginning with this request.
    fn serve(self, name: &str, first: Request) {
        let Self {
            stream,
            peer,
            received,
        } = self;
        let mut reader = BufReader::with_capacity(1 << 16, Cursor::new(received).chain(&stream));
        let mut next = Some(first);
        while let Some(request) = next {
            if answer(name, peer, request, &mut reader, &mut &stream).is_err() {
                return;
            }
            let mut line = String::new();
            next = match reader.by_ref().take(LONGEST_HEAD as u64).read_line(&mut line) {
                Ok(_) => line.parse().ok(),
                Err(_) => None,
            };
        }
    }
}

fn answer(
    name: &str,
    peer: SocketAddr,
    request: Request,
    reader: &mut dyn Read,
    writer: &mut dyn Write,
) -> io::Result<()> {
    match request {
        Request::Ping { sequence } => head(writer, name, peer, sequence, ""),
        Request::Get { length } => {
            head(writer, name, peer, length, "")?;
            let mut piece = vec![0; 1 << 16];
            let mut pattern = Pattern::new().take(length);
            loop {
                match pattern.read(&mut piece)? {
                    0 => return Ok(()),
                    count => writer.write_all(&piece[..count])?,
                }
            }
        }
        Request::Put { length } => {
            let (received, same) = compare(&mut reader.take(length))?;
            if received < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head(
                writer,
                name,
                peer,
                length,
                if same { " same" } else { " different" },
            )
        }
    }
}

/// The head of an answer, in one write, so that it is one segment.
fn head(writer: &mut dyn Write, name: &str, peer: SocketAddr, number: u64, verdict: &str) -> io::Result<()> {
    writer.write_all(format!("{name} {peer} {number}{verdict}\n").as_bytes())
}
