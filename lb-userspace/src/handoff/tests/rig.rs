//! Real web servers (nginx with its own files), an application behind them, a client, and a drainer that takes notes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::types::{AppliedServer, SiteApplied};
use crate::config::{Site, SiteScripts, SiteServer, TlsVersion};
use crate::handoff::Hands;
use crate::handoff::apply::{Limits, apply};
use crate::handoff::drain::{DrainOutcome, Drainer};
use crate::handoff::verify;

pub(super) const NAME: &str = "www.foobar.com";

/// A port that nobody listens on, below those that the kernel gives to clients.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) + (std::process::id() % 97) as u16 * 100;
        let port = 20_000 + offset % 10_000;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// An application that answers with the head of the request.
pub(super) async fn application() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()))
        .await
        .expect("bind");
    let address = listener.local_addr().expect("address");
    let app = axum::Router::new().fallback(async |request: axum::extract::Request| {
        let lines: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        format!("{} {}\n{}\n", request.method(), request.uri(), lines.join("\n"))
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A certificate and its key on disk.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    pub(super) fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("directory"));
        files.renew();
        files
    }

    /// A new pair in the same files.
    pub(super) fn renew(&self) {
        let pair = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("certificate");
        std::fs::write(self.certificate(), pair.cert.pem()).expect("write");
        std::fs::write(self.key(), pair.signing_key.serialize_pem()).expect("write");
    }

    /// A new pair that has been valid in these years.
    pub(super) fn renew_for(&self, years: (i32, i32)) {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new([NAME.to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.self_signed(&key).expect("certificate");
        std::fs::write(self.certificate(), certificate.pem()).expect("write");
        std::fs::write(self.key(), key.serialize_pem()).expect("write");
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.0.path().join("site.pem")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.0.path().join("site.key")
    }
}

/// A web server: an nginx that includes what the hand-off puts in its directory. Its paths need quoting.
pub(super) struct Web {
    root: tempfile::TempDir,
    child: Option<Child>,
    pub(super) server: SiteServer,
}

impl Web {
    /// A web server with a port for HTTPS.
    pub(super) fn new(name: &str, https_port: u16) -> Self {
        let root = tempfile::Builder::new()
            .prefix("lb's web ")
            .tempdir()
            .expect("directory");
        let path = root.path().to_str().expect("UTF-8").to_owned();
        let quoted = format!("'{}'", path.replace('\'', r"'\''"));
        let server = SiteServer {
            name: name.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, https_port)),
            via: vec!["sh".to_owned(), "-c".to_owned()],
            directory: format!("{path}/lb"),
            nginx: format!("nginx -p {quoted} -c {quoted}/nginx.conf -e stderr"),
            scripts: SiteScripts::default(),
        };
        let mut web = Self {
            root,
            child: None,
            server,
        };
        web.configure("");
        web.start();
        web
    }

    /// Writes nginx.conf with more text in `http {}`.
    pub(super) fn configure(&self, more: &str) {
        let root = self.root.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|module| format!("{module}_temp_path \"{root}/temp\";"))
            .concat();
        let text = format!(
            "daemon off; pid \"{root}/nginx.pid\"; error_log \"{root}/error.log\"; events {{}}\n\
             http {{ access_log off; keepalive_requests 1000000; {temporary} include \"{root}/lb/current/site.conf*\"; {more} }}\n"
        );
        std::fs::write(self.root.path().join("nginx.conf"), text).expect("write");
    }

    /// Starts nginx, and waits until it takes signals.
    pub(super) fn start(&mut self) {
        let pid_file = self.root.path().join("nginx.pid");
        let _ = std::fs::remove_file(&pid_file);
        let child = Command::new("sh")
            .args(["-c", &format!("exec {}", self.server.nginx)])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("nginx is installed");
        self.child = Some(child);
        for _ in 0..100 {
            if std::fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nginx does not start: {}", self.error_log());
    }

    /// Stops nginx.
    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }

    pub(super) fn error_log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("error.log")).unwrap_or_default()
    }

    pub(super) fn directory(&self) -> &Path {
        Path::new(&self.server.directory)
    }

    /// Where a link leads: `releases/ID`.
    pub(super) fn link(&self, name: &str) -> Option<String> {
        let target = std::fs::read_link(self.directory().join(name)).ok()?;
        Some(target.to_str().expect("UTF-8").to_owned())
    }

    pub(super) fn releases(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.directory().join("releases")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| {
                format!(
                    "releases/{}",
                    entry.expect("entry").file_name().to_str().expect("UTF-8")
                )
            })
            .collect();
        names.sort();
        names
    }

    /// The fingerprint of the certificate that is served.
    pub(super) async fn served(&self) -> Option<String> {
        verify::leaf(self.server.address, NAME)
            .await
            .map(crate::handoff::certificate::fingerprint)
            .ok()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A site on these web servers, which share the HTTPS port's number with nobody.
pub(super) fn site(files: &Files, webs: &[&Web], application: SocketAddr) -> Site {
    let https_port = webs.first().expect("a web server").server.address.port();
    Site {
        server_names: vec![NAME.to_owned()],
        certificate: files.certificate(),
        key: files.key(),
        upstream: vec![application],
        http_port: None,
        https_port: NonZeroU16::new(https_port).expect("port"),
        redirect_http: true,
        hsts: None,
        tls_versions: vec![TlsVersion::V1_2, TlsVersion::V1_3],
        keepalive_time: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(65),
        drain_timeout: Duration::from_secs(5),
        servers: webs.iter().map(|web| web.server.clone()).collect(),
    }
}

/// Hands over with limits that suit a test.
pub(super) async fn hand_over(site: &Site, drainer: &impl Drainer) -> SiteApplied {
    let limits = Limits {
        step: Duration::from_secs(10),
        verify: Duration::from_secs(2),
    };
    apply(site, drainer, &Hands::Own, limits).await
}

/// The steps, failed ones with a `!`.
pub(super) fn steps(server: &AppliedServer) -> String {
    let steps: Vec<_> = server
        .steps
        .iter()
        .map(|step| format!("{}{}", step.step, if step.ok { "" } else { "!" }))
        .collect();
    steps.join(" ")
}

/// What a step said.
pub(super) fn detail<'a>(server: &'a AppliedServer, step: &str) -> &'a str {
    &server
        .steps
        .iter()
        .find(|done| done.step == step)
        .expect("the step was done")
        .detail
}

/// A drainer that takes down what it is asked.
#[derive(Clone)]
pub(super) struct Notes {
    pub(super) outcome: Result<DrainOutcome, String>,
    /// How often the other backends are down before that.
    pub(super) others_down: usize,
    /// Connections that never end.
    pub(super) left: u64,
    /// Whether taking a drain back fails.
    pub(super) stuck: bool,
    pub(super) calls: Arc<Mutex<Vec<String>>>,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self {
            outcome: Ok(DrainOutcome::Draining),
            others_down: 0,
            left: 0,
            stuck: false,
            calls: Arc::default(),
        }
    }

    /// How often this was asked for.
    fn drains(&self) -> usize {
        let calls = self.calls.lock().expect("lock");
        calls.iter().filter(|call| call.starts_with("drain ")).count()
    }

    pub(super) fn calls(&self) -> String {
        self.calls.lock().expect("lock").join(", ")
    }

    fn note(&self, call: &str, server: &str) {
        self.calls.lock().expect("lock").push(format!("{call} {server}"));
    }
}

impl Drainer for Notes {
    async fn drain(&self, server: &str) -> Result<DrainOutcome, String> {
        self.note("drain", server);
        if self.drains() <= self.others_down {
            return Ok(DrainOutcome::OthersDown {
                service: "www".to_owned(),
            });
        }
        self.outcome.clone()
    }

    async fn connections(&self, _server: &str) -> Result<u64, String> {
        Ok(self.left)
    }

    async fn undrain(&self, server: &str) -> Result<(), String> {
        self.note("undrain", server);
        if self.stuck {
            Err("stuck".to_owned())
        } else {
            Ok(())
        }
    }

    fn undrain_later(&self, server: &str) {
        self.note("undrain later", server);
    }
}

/// A connection over TLS.
pub(super) async fn connect(address: SocketAddr) -> SendRequest<String> {
    let connector = TlsConnector::from(Arc::new(verify::client_config().expect("TLS")));
    let stream = TcpStream::connect(address).await.expect("connect");
    let stream = connector
        .connect(ServerName::try_from(NAME).expect("name"), stream)
        .await
        .expect("handshake");
    let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    requests
}

/// `GET`, with more headers.
pub(super) fn get(host: &str, headers: &[(&str, &str)]) -> Request<String> {
    let mut request = Request::get("/path?query").header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(String::new()).expect("request")
}

/// The whole body.
pub(super) async fn text(response: Response<Incoming>) -> String {
    use http_body_util::BodyExt;
    let body = response.into_body().collect().await.expect("body").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}
