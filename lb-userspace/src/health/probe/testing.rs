//! Real backends on loopback, of every character.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::HandshakeKind;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::{Outcome, Probe};
use crate::config;
use crate::task::OwnedTask;

/// Longer than any probe that is meant to succeed takes, however busy the machine.
pub(in crate::health) const LONG: Duration = Duration::from_secs(20);
/// For probes that are meant to time out.
pub(in crate::health) const SHORT: Duration = Duration::from_millis(300);

pub(in crate::health) async fn run(
    probe: &config::Probe,
    address: SocketAddr,
    timeout: Duration,
) -> Result<String, String> {
    run_with_ca(probe, &Ok(Vec::new()), address, timeout).await
}

pub(in crate::health) async fn run_with_ca(
    probe: &config::Probe,
    ca: &Result<Vec<u8>, String>,
    address: SocketAddr,
    timeout: Duration,
) -> Result<String, String> {
    match Probe::new(probe, ca).run(address, timeout).await {
        Outcome::Success(reason) => Ok(reason),
        Outcome::Failure(reason) => Err(reason),
        Outcome::Unable(reason) => panic!("the test itself lacks something: {reason}"),
    }
}

/// What a backend does once it has read the beginning of a request.
#[derive(Debug, Clone)]
pub(in crate::health) enum Answer {
    /// Sends these and closes.
    Bytes(Vec<u8>),
    /// 200 and a body without end.
    Endless,
    /// Sends this, then a byte every 20 ms.
    Drip(&'static str),
    /// Nothing, ever.
    Hang,
    /// Closes.
    Close,
    /// Closes with a RST.
    Reset,
}

impl Answer {
    pub(in crate::health) fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// A listening backend; gone when dropped, with all its connections.
pub(in crate::health) struct Backend {
    pub(in crate::health) address: SocketAddr,
    /// What it does from the next connection on.
    pub(in crate::health) answer: Arc<Mutex<Answer>>,
    /// The beginnings of requests, after TLS.
    pub(in crate::health) requests: UnboundedReceiver<String>,
    /// Bytes of an endless answer that were taken, once the connection has ended.
    pub(in crate::health) sent: UnboundedReceiver<usize>,
    /// The SNI of each handshake.
    pub(in crate::health) server_names: UnboundedReceiver<String>,
    /// Handshakes that resumed a session.
    pub(in crate::health) resumed: Arc<AtomicUsize>,
    _task: OwnedTask,
}

#[derive(Clone)]
struct Reports {
    requests: UnboundedSender<String>,
    sent: UnboundedSender<usize>,
    server_names: UnboundedSender<String>,
    resumed: Arc<AtomicUsize>,
}

pub(in crate::health) async fn serve(answer: Answer) -> Backend {
    listen(answer, None).await
}

pub(in crate::health) async fn serve_tls(answer: Answer, certificate: &Issued) -> Backend {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.certificate.der().clone()],
            PrivatePkcs8KeyDer::from(certificate.key.serialize_der()).into(),
        )
        .expect("certificate");
    listen(answer, Some(TlsAcceptor::from(Arc::new(config)))).await
}

async fn listen(answer: Answer, tls: Option<TlsAcceptor>) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let answer = Arc::new(Mutex::new(answer));
    let (requests_to, requests) = unbounded_channel();
    let (sent_to, sent) = unbounded_channel();
    let (names_to, server_names) = unbounded_channel();
    let resumed = Arc::new(AtomicUsize::new(0));
    let reports = Reports {
        requests: requests_to,
        sent: sent_to,
        server_names: names_to,
        resumed: resumed.clone(),
    };
    let next = answer.clone();
    let task = OwnedTask::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = next.lock().expect("lock").clone();
            connections.push(OwnedTask::spawn(accept(
                stream,
                tls.clone(),
                answer,
                reports.clone(),
            )));
        }
    });
    Backend {
        address,
        answer,
        requests,
        sent,
        server_names,
        resumed,
        _task: task,
    }
}

async fn accept(stream: TcpStream, tls: Option<TlsAcceptor>, answer: Answer, reports: Reports) {
    if matches!(answer, Answer::Reset) {
        stream.set_zero_linger().expect("SO_LINGER");
    }
    let Some(tls) = tls else {
        return converse(stream, answer, &reports).await;
    };
    // A client that does not like the certificate ends the handshake.
    if let Ok(stream) = tls.accept(stream).await {
        let connection = stream.get_ref().1;
        let _ = reports
            .server_names
            .send(connection.server_name().unwrap_or_default().to_owned());
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            reports.resumed.fetch_add(1, Ordering::Relaxed);
        }
        converse(stream, answer, &reports).await;
    }
}

/// The client may go at any time: errors mean only that it has.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer, reports: &Reports) {
    let mut request = vec![0; 4096];
    let Ok(length @ 1..) = stream.read(&mut request).await else {
        return;
    };
    let _ = reports
        .requests
        .send(String::from_utf8_lossy(&request[..length]).into_owned());
    match answer {
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Answer::Endless => {
            let mut sent = 0;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {
                sent += 65536;
            }
            let _ = reports.sent.send(sent);
        }
        Answer::Drip(beginning) => {
            let _ = stream.write_all(beginning.as_bytes()).await;
            while stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        }
        Answer::Hang => std::future::pending().await,
        Answer::Close | Answer::Reset => {}
    }
}

/// An address that refuses connections: bound, so that nobody else gets it, but not listening.
pub(in crate::health) async fn refusing() -> SocketAddr {
    let socket = Box::leak(Box::new(TcpSocket::new_v4().expect("socket")));
    socket
        .bind("127.0.0.1:0".parse().expect("address"))
        .expect("bind");
    socket.local_addr().expect("address")
}

/// An address whose accept queue is full: SYNs get no answer.
pub(in crate::health) async fn full_backlog() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket
        .bind("127.0.0.1:0".parse().expect("address"))
        .expect("bind");
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("address");
    let mut filling = Vec::new();
    while let Ok(stream) = timeout(SHORT, TcpStream::connect(address)).await {
        filling.push(stream.expect("connect"));
    }
    (listener, filling, address)
}

/// A certificate authority.
pub(in crate::health) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(in crate::health) struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(in crate::health) fn new() -> Self {
        Self::named("Foobar")
    }

    pub(in crate::health) fn named(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate");
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    pub(in crate::health) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// For `name`, from the first day of the first year to the first day of the last.
    pub(in crate::health) fn issue(&self, name: &str, years: Range<i32>) -> Issued {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate");
        Issued { certificate, key }
    }
}
