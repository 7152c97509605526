//! The lab's application server: what stands behind nginx on `web1` and `web2` (`cargo xtask lab-app`, hidden).
//!
//! It answers with its own name and the client's address as nginx told it, so that whoever asks sees which server a
//! connection reached and that the client's address arrived. Everything it sends can be checked: see [`Pattern`]. Beside
//! HTTP it serves [`transfer`]s, which do not go through nginx.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use oxhttp::Server;
use oxhttp::model::{Body, Method, Request, Response, StatusCode};
use serde_json::json;

use crate::transfer;

/// The longest body that `/bytes/N` sends: 1 GiB.
pub const MOST_BYTES: u64 = 1 << 30;

/// `lab-app`: the application server of one web server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server's name, part of every answer.
    #[arg(long)]
    name: String,
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address and port of a transfer service, TCP and UDP; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT")]
    transfer: Vec<SocketAddr>,
}

/// Serves until it is killed.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    transfer::serve(&args.name, &args.transfer)?;
    let app = App {
        name: args.name,
        requests: AtomicU64::new(0),
        health: AtomicU64::new(0),
        manner: AtomicU8::new(HealthManner::Honest as u8),
    };
    let server = Server::new(move |request| app.answer(request).unwrap_or_else(failed)).bind(args.listen);
    let listening = server
        .spawn()
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    listening.join()?;
    Ok(ExitCode::SUCCESS)
}

/// What the server knows about itself.
struct App {
    name: String,
    /// Requests but for `/health` and `/stats`.
    requests: AtomicU64,
    health: AtomicU64,
    /// A [`HealthManner`].
    manner: AtomicU8,
}

/// How `/health` answers, from `/health/NAME` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HealthManner {
    /// 200, at once.
    Honest,
    /// 200, after a second, which is longer than a probe of the lab waits.
    Slow,
    /// 200 and 503 in turn.
    Fickle,
}

/// Longer than a probe of the lab waits ([`HealthManner::Slow`]).
const SLOW: Duration = Duration::from_secs(1);

impl HealthManner {
    const ALL: [Self; 3] = [Self::Honest, Self::Slow, Self::Fickle];

    /// As it is written in the path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Slow => "slow",
            Self::Fickle => "fickle",
        }
    }
}

impl App {
    /// The answer to the probe of this number.
    fn health(&self, number: u64) -> Response<Body> {
        let manner = self.manner.load(Ordering::Relaxed);
        if manner == HealthManner::Slow as u8 {
            thread::sleep(SLOW);
        }
        let mut response = Response::new(Body::from("ok\n"));
        if manner == HealthManner::Fickle as u8 && number.is_multiple_of(2) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }

    fn answer(&self, request: &mut Request<Body>) -> anyhow::Result<Response<Body>> {
        match request.uri().path() {
            "/health" => {
                return Ok(self.health(self.health.fetch_add(1, Ordering::Relaxed)));
            }
            "/stats" => {
                let requests = self.requests.load(Ordering::Relaxed);
                let health = self.health.load(Ordering::Relaxed);
                return as_json(
                    StatusCode::OK,
                    &json!({ "server": self.name, "requests": requests, "health": health }),
                );
            }
            path => {
                let manner = path.strip_prefix("/health/").and_then(|name| {
                    let mut all = HealthManner::ALL.into_iter();
                    all.find(|manner| manner.name() == name)
                });
                if let Some(manner) = manner {
                    self.manner.store(manner as u8, Ordering::Relaxed);
                    return Ok(Response::new(Body::from("ok\n")));
                }
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(length) = request.uri().path().strip_prefix("/bytes/") {
            return match bytes_body(length, request.uri().query()) {
                Ok(body) => Ok(Response::builder().header("X-Server", &self.name).body(body)?),
                Err(reason) => as_json(StatusCode::BAD_REQUEST, &json!({ "error": reason })),
            };
        }
        let client = request
            .headers()
            .get("X-Real-IP")
            .and_then(|value| value.to_str().ok());
        let mut answer = json!({ "server": self.name, "client": client });
        if request.method() == Method::POST || request.method() == Method::PUT {
            let (length, as_pattern) = compare(request.body_mut())?;
            answer["length"] = json!(length);
            answer["pattern"] = json!(as_pattern);
        }
        as_json(StatusCode::OK, &answer)
    }
}

fn failed(error: anyhow::Error) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{error:#}\n")));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn as_json(status: StatusCode, body: &serde_json::Value) -> anyhow::Result<Response<Body>> {
    let response = Response::builder()
        .status(status)
        .header("Content-Type", "application/json");
    Ok(response.body(Body::from(format!("{body}\n")))?)
}

/// The body of `/bytes/N[?rate=BYTES_PER_SECOND]`, or what is wrong with the request.
fn bytes_body(length: &str, query: Option<&str>) -> Result<Body, &'static str> {
    let length = match length.parse::<u64>() {
        Ok(length) if length <= MOST_BYTES => length,
        _ => return Err("the path is /bytes/N with N from 0 to 1073741824"),
    };
    let body = Pattern::new().take(length);
    let Some(query) = query else {
        return Ok(Body::from_read(body));
    };
    match query.strip_prefix("rate=").and_then(|rate| rate.parse().ok()) {
        Some(rate) if rate > 0 => Ok(Body::from_read(Throttled::new(body, rate))),
        _ => Err("the query is rate=BYTES_PER_SECOND, at least 1"),
    }
}

/// Reads to the end: the length, and whether all of it is the [`Pattern`].
pub fn compare(reader: &mut dyn Read) -> io::Result<(u64, bool)> {
    let (mut found, mut expected) = ([0_u8; 16384], [0_u8; 16384]);
    let (mut length, mut same, mut pattern) = (0, true, Pattern::new());
    loop {
        let count = match reader.read(&mut found) {
            Ok(0) => return Ok((length, same)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        pattern.read_exact(&mut expected[..count])?;
        same &= found[..count] == expected[..count];
        length += count as u64;
    }
}

/// An endless stream of bytes that never repeats and that both sides can make: what `/bytes/N` sends, and what a POST's
/// body is compared with. Byte `i` is byte `i % 8`, in little-endian order, of `(i / 8) * 0x9e3779b97f4a7c15`.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    position: u64,
}

impl Pattern {
    /// From its first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// From byte `position`, counted from 0.
    pub fn at(position: u64) -> Self {
        Self { position }
    }
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let word = (self.position / 8)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes();
            let from = (self.position % 8) as usize;
            let count = (8 - from).min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&word[from..from + count]);
            filled += count;
            self.position += count as u64;
        }
        Ok(filled)
    }
}

/// Lets at most `rate` bytes a second through, in pieces of a twentieth of a second. What the client sees is lumpier: the
/// server and nginx gather some 16 KiB each before they send.
struct Throttled<R> {
    inner: R,
    rate: u64,
    started: Instant,
    sent: u64,
}

impl<R: Read> Throttled<R> {
    fn new(inner: R, rate: u64) -> Self {
        Self {
            inner,
            rate,
            started: Instant::now(),
            sent: 0,
        }
    }
}

impl<R: Read> Read for Throttled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
        thread::sleep(due.saturating_sub(self.started.elapsed()));
        let piece = usize::try_from((self.rate / 20).max(1))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.inner.read(&mut buffer[..piece])?;
        self.sent += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_does_not_depend_on_how_it_is_read() {
        let mut whole = vec![0; 4000];
        Pattern::new().read_exact(&mut whole).unwrap();
        let (mut pieces, mut pattern) = (Vec::new(), Pattern::new());
        for size in [1, 7, 8, 9, 1023, 2952] {
            let mut piece = vec![0; size];
            pattern.read_exact(&mut piece).unwrap();
            pieces.extend(piece);
        }
        assert_eq!(whole, pieces);
        assert_eq!(&whole[8..16], &0x9e37_79b9_7f4a_7c15_u64.to_le_bytes());
        let mut end = vec![0; 1001];
        Pattern::at(2999).read_exact(&mut end).unwrap();
        assert_eq!(&whole[2999..], end);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut body = vec![0; 100_000];
        Pattern::new().read_exact(&mut body).unwrap();
        assert_eq!(compare(&mut body.as_slice()).unwrap(), (100_000, true));
        body[77_777] ^= 1;
        assert_eq!(compare(&mut body.as_slice()).unwrap(), (100_000, false));
    }

    #[test]
    fn a_rate_is_kept() {
        let started = Instant::now();
        let mut body = Vec::new();
        Throttled::new(Pattern::new().take(2000), 10_000)
            .read_to_end(&mut body)
            .unwrap();
        assert_eq!(body.len(), 2000);
        assert!(
            started.elapsed() >= Duration::from_millis(150),
            "{:?}",
            started.elapsed()
        );
    }
}
