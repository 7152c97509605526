//! `[site]`, validated: what is handed to nginx on the web servers.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ports, Protocol};

/// The TLS-terminating site on the web servers, handed to nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// `server_name`s, at least one.
    pub server_names: Vec<String>,
    /// PEM file with the certificate chain, leaf first; existed and parsed when the file was read.
    pub certificate: PathBuf,
    /// PEM file with the private key; matched the certificate when the file was read.
    pub key: PathBuf,
    /// Application servers that nginx passes requests to, at least one, as seen from the web server.
    pub upstream: Vec<SocketAddr>,
    /// Port for HTTP; `None`: nginx does not listen for it. Default 80.
    pub http_port: Option<NonZeroU16>,
    /// Port for HTTPS. Default 443.
    pub https_port: NonZeroU16,
    /// Whether HTTP answers with a redirect to HTTPS (else it serves the site). Default true.
    pub redirect_http: bool,
    /// `max-age` of Strict-Transport-Security, whole seconds; `None`: no header. Default none.
    pub hsts: Option<Duration>,
    /// Default TLS 1.2 and 1.3.
    pub tls_versions: Vec<TlsVersion>,
    /// A busy keep-alive connection is closed after the response that follows this time, so that a drain gets done.
    /// Default 60 s.
    pub keepalive_time: Duration,
    /// An idle keep-alive connection is closed after this. Default 65 s.
    pub keepalive_timeout: Duration,
    /// How long a hand-off waits for a drained server's connections to end before it reloads nginx all the same
    /// (nginx reloads gracefully). Default 90 s.
    pub drain_timeout: Duration,
    /// The web servers, at least one.
    pub servers: Vec<SiteServer>,
}

impl Site {
    /// Whether the web servers' nginx serves connections of this kind: those to the VIP's ports `ports`, which a backend gets
    /// on `port` (`None`: on the VIP's).
    #[must_use]
    pub fn serves(&self, protocol: Protocol, ports: &Ports, port: Option<NonZeroU16>) -> bool {
        let is_one = |listened_on: NonZeroU16| match (port, ports) {
            (Some(port), _) => port == listened_on,
            (None, Ports::One(port)) => *port == listened_on,
            (None, Ports::Range(range)) => range.contains(&listened_on.get()),
        };
        protocol == Protocol::Tcp && (is_one(self.https_port) || self.http_port.is_some_and(is_one))
    }
}

/// A TLS version that nginx may offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// A web server and how to reach it: every step is a shell script that is appended as the last argument to `via`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteServer {
    /// Unique; a backend of the same name, in any service that nginx [serves](Site::serves), is drained during the hand-off.
    pub name: String,
    /// Where the new certificate is verified over a real TLS handshake: address and HTTPS port as the balancer reaches
    /// them.
    pub address: SocketAddr,
    /// The command before the script: `["sh", "-c"]` (local, the default), `["ssh", "root@web1"]`, …
    pub via: Vec<String>,
    /// Absolute directory on the web server that the hand-off owns. Default `/etc/nginx/lb`.
    pub directory: String,
    /// The nginx command with what it needs to find the running instance. Default `nginx`.
    pub nginx: String,
    /// Scripts that replace the ready-made ones.
    pub scripts: SiteScripts,
}

/// Scripts that replace the ready-made ones, step by step; `None`: the ready-made one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteScripts {
    /// Unpack the bundle (a tar archive on standard input) beside the running configuration.
    pub stage: Option<String>,
    /// Check the staged configuration without touching the running one.
    pub test: Option<String>,
    /// Make the staged configuration the current one, atomically, remembering the previous one.
    pub swap: Option<String>,
    /// Make nginx read the current configuration.
    pub reload: Option<String>,
    /// Make the previous configuration the current one again and reload it.
    pub restore: Option<String>,
}

/// A site whose nginx listens on the usual ports.
#[cfg(test)]
pub fn test_site() -> Site {
    Site {
        server_names: vec!["www.foobar.com".to_owned()],
        certificate: PathBuf::from("site.pem"),
        key: PathBuf::from("site.key"),
        upstream: Vec::new(),
        http_port: NonZeroU16::new(80),
        https_port: NonZeroU16::new(443).unwrap(),
        redirect_http: true,
        hsts: None,
        tls_versions: vec![TlsVersion::V1_3],
        keepalive_time: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(65),
        drain_timeout: Duration::from_secs(90),
        servers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_serves_what_reaches_its_ports() {
        let port = |port| NonZeroU16::new(port).unwrap();
        let one = |number| Ports::One(port(number));
        let cases = [
            (Protocol::Tcp, one(443), Some(port(443)), true),
            (Protocol::Tcp, one(80), Some(port(80)), true),
            (Protocol::Tcp, one(8443), Some(port(443)), true),
            (Protocol::Tcp, one(443), Some(port(8443)), false),
            (Protocol::Tcp, one(3306), Some(port(3306)), false),
            (Protocol::Udp, one(443), Some(port(443)), false),
            (Protocol::Tcp, Ports::Range(100..=500), None, true),
            (Protocol::Tcp, Ports::Range(500..=600), None, false),
        ];
        for (protocol, ports, to, expected) in cases {
            assert_eq!(
                test_site().serves(protocol, &ports, to),
                expected,
                "{protocol:?} {ports:?} {to:?}"
            );
        }
        let https_only = Site {
            http_port: None,
            ..test_site()
        };
        assert!(!https_only.serves(Protocol::Tcp, &one(80), Some(port(80))));
    }
}
