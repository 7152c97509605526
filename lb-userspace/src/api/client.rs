//! The client of the API, as typed as the server: what `lbctl` is made of.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::explain::{Answer, Question};
use super::trace::{TraceRequest, Traced};
use super::types::{
    AddBackend, Applied, ApplyRequest, Backend, ChangeBackend, Changed, Confirmed, ConnectionFilter,
    Connections, Counters, Error, PlanRequest, Reloaded, RolledBack, Service, SiteApplied, SiteRender,
    SiteStatus, Status,
};
use crate::plan::Plan;

/// From connecting to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a hand-off, which drains web servers one by one: each may take the site's drain timeout, up to an hour.
/// Every step has a limit of its own in the daemon, so this is only for one that is stuck.
const SITE_PATIENCE: Duration = Duration::from_hours(24);

/// The same where a second instance of the kernel program may have to be loaded first: that takes a second of a processor, and the
/// daemon may be given little of one.
const LOAD_PATIENCE: Duration = Duration::from_mins(1);

/// Until the next attempt when the daemon's backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error(
        "lbd is not running (no answer on {}): start it as root with \
         \"lbd --config /etc/lb/lb.toml\"",
        socket.display()
    )]
    NotRunning {
        /// The daemon's socket.
        socket: PathBuf,
    },
    /// This user may not talk to the daemon.
    #[error("no permission to talk to lbd on {}: run this as {who}", socket.display())]
    Denied {
        /// The daemon's socket.
        socket: PathBuf,
        /// Who may: `root`, `root or a member of group "lb"`.
        who: String,
    },
    /// The daemon took the request, or did not even accept it, and is silent.
    #[error(
        "lbd does not answer (waited {} on {}): look into its log",
        humantime::format_duration(*.waited),
        socket.display()
    )]
    Silent {
        /// The daemon's socket.
        socket: PathBuf,
        /// For how long.
        waited: Duration,
    },
    /// The connection broke, or what came is not an answer of `lbd`.
    #[error("cannot understand the answer on {}: {problem}; is it lbd, and of this version?", socket.display())]
    Broken {
        /// The daemon's socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The daemon refused, and says why.
    #[error("{message}")]
    Refused {
        /// The HTTP status, which tells the kinds of refusal apart.
        status: StatusCode,
        /// What is wrong, what is allowed, what to do.
        message: String,
    },
}

/// Calls the daemon that listens on a Unix socket; a connection for each call.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Every call fails in the same ways: see [`ClientError`].
#[expect(clippy::missing_errors_doc, reason = "documented once for all of them")]
impl Client {
    /// A client of the daemon that listens on `socket`; connects when something is asked.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Everything at a glance.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Every service with its backends.
    pub async fn services(&self) -> Result<Vec<Service>, ClientError> {
        self.get("/v1/services").await
    }

    /// One service with its backends.
    pub async fn service(&self, name: &str) -> Result<Service, ClientError> {
        self.get(&format!(
            "/v1/services/{}",
            utf8_percent_encode(name, NON_ALPHANUMERIC)
        ))
        .await
    }

    /// Every backend of every service.
    pub async fn backends(&self) -> Result<Vec<Backend>, ClientError> {
        self.get("/v1/backends").await
    }

    /// Adds a backend until it is removed.
    pub async fn add_backend(&self, request: &AddBackend) -> Result<Changed, ClientError> {
        self.post("/v1/backends", request, PATIENCE).await
    }

    /// Changes a backend.
    pub async fn change_backend(&self, request: &ChangeBackend) -> Result<Changed, ClientError> {
        self.post("/v1/backends/change", request, PATIENCE).await
    }

    /// Connections in the table.
    pub async fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, ClientError> {
        let query = serde_urlencoded::to_string(filter).map_err(|error| self.broken(error))?;
        self.get(&format!("/v1/connections?{query}")).await
    }

    /// Packets by decision.
    pub async fn counters(&self) -> Result<Counters, ClientError> {
        self.get("/v1/counters").await
    }

    /// What would become of a packet, and why.
    pub async fn why(&self, question: &Question) -> Result<Answer, ClientError> {
        let query = serde_urlencoded::to_string(question).map_err(|error| self.broken(error))?;
        let path = format!("/v1/why?{query}");
        self.ask(Method::GET, &path, Bytes::new(), LOAD_PATIENCE).await
    }

    /// What is decided about packets that come.
    pub async fn trace(&self, request: &TraceRequest) -> Result<Traced, ClientError> {
        self.post("/v1/trace", request, LOAD_PATIENCE).await
    }

    /// Reads the configuration file again and applies it whole, or not at all.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.post("/v1/reload", &(), PATIENCE).await
    }

    /// What a configuration would change.
    pub async fn plan(&self, request: &PlanRequest) -> Result<Plan, ClientError> {
        self.post("/v1/plan", request, PATIENCE).await
    }

    /// Replaces the configuration file and puts it in force.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Applied, ClientError> {
        self.post("/v1/apply", request, PATIENCE).await
    }

    /// Keeps the applied configuration that waits for it.
    pub async fn confirm(&self) -> Result<Confirmed, ClientError> {
        self.post("/v1/confirm", &(), PATIENCE).await
    }

    /// Takes the applied configuration back that waits to be confirmed.
    pub async fn rollback(&self) -> Result<RolledBack, ClientError> {
        self.post("/v1/rollback", &(), PATIENCE).await
    }

    /// The nginx configuration of each web server.
    pub async fn site_render(&self) -> Result<SiteRender, ClientError> {
        self.get("/v1/site/render").await
    }

    /// Hands the site to the web servers; waits up to a day.
    pub async fn site_apply(&self) -> Result<SiteApplied, ClientError> {
        self.post("/v1/site/apply", &(), SITE_PATIENCE).await
    }

    /// What the web servers serve.
    pub async fn site_status(&self) -> Result<SiteStatus, ClientError> {
        self.get("/v1/site/status").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new(), PATIENCE).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| self.broken(error))?;
        self.ask(Method::POST, path, body.into(), patience).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lbd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let (status, body) =
            timeout(patience, self.exchange(request))
                .await
                .map_err(|_| ClientError::Silent {
                    socket: self.socket.clone(),
                    waited: patience,
                })??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.broken(error));
        }
        match serde_json::from_slice(&body) {
            Ok(Error { error: message }) => Err(ClientError::Refused { status, message }),
            Err(_) => Err(self.broken(format!("HTTP {status} without a reason"))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        let connection = async {
            // What goes wrong with it, the exchange learns as well.
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = exchange => answer.map_err(|error| self.broken(error)),
            answer = connection => answer,
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        loop {
            let error = match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => sleep(BACKLOG_PAUSE).await,
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return Err(ClientError::NotRunning {
                        socket: self.socket.clone(),
                    });
                }
                io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::Denied {
                        socket: self.socket.clone(),
                        who: who_may(&self.socket),
                    });
                }
                _ => return Err(self.broken(error)),
            }
        }
    }

    fn broken(&self, problem: impl ToString) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            problem: problem.to_string(),
        }
    }
}

/// Who may open the socket: its mode is 0660.
fn who_may(socket: &Path) -> String {
    use nix::unistd::{Gid, Group};
    use std::os::unix::fs::MetadataExt;

    let gid = std::fs::metadata(socket)
        .ok()
        .map(|metadata| Gid::from_raw(metadata.gid()));
    match gid.and_then(|gid| Group::from_gid(gid).ok().flatten()) {
        Some(group) if group.gid.as_raw() != 0 => format!("root or a member of group {:?}", group.name),
        _ => "root".to_owned(),
    }
}
