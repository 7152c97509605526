//! What a web server serves, learnt by real TLS handshakes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::certificate::fingerprint;
use crate::config::{Site, SiteServer};

/// Connecting and shaking hands take no longer, or nothing answers.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Between two looks at a server.
const PAUSE: Duration = Duration::from_millis(100);
/// So many looks in a row must find the same. On a reload nginx starts the new workers 100 ms before it tells the old ones
/// to stop accepting (1.22, `ngx_master_process_cycle`); whoever connects in between gets the one or the other.
const SETTLED: u32 = 5;

/// What a web server serves under the site's name.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    /// The leaf certificate's fingerprint, or why there is none.
    pub(super) certificate: Result<String, String>,
    /// Whether the release that was asked for is in force.
    pub(super) release: bool,
}

impl Serving {
    /// One look at the server.
    pub(super) async fn observe(site: &Site, server: &SiteServer, release_name: &str) -> Self {
        let name = sni(site);
        let (site, release) = tokio::join!(leaf(server.address, &name), leaf(server.address, release_name));
        Self {
            certificate: site.map(fingerprint),
            release: release.is_ok(),
        }
    }

    /// Looks until it serves what it should, and nothing else any more (`Ok`), or until `limit` has passed: the last look.
    pub(super) async fn wait_for(
        wanted: &Self,
        site: &Site,
        server: &SiteServer,
        release_name: &str,
        limit: Duration,
    ) -> Result<Self, Self> {
        let until = Instant::now() + limit;
        let mut in_a_row = 0;
        loop {
            let now = Self::observe(site, server, release_name).await;
            in_a_row = if now.same(wanted) { in_a_row + 1 } else { 0 };
            if in_a_row == SETTLED {
                return Ok(now);
            }
            if Instant::now() + PAUSE > until {
                return Err(now);
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether this is the same to clients; why there is no certificate does not matter.
    fn same(&self, other: &Self) -> bool {
        self.certificate.as_ref().ok() == other.certificate.as_ref().ok() && self.release == other.release
    }
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.certificate {
            Ok(fingerprint) => write!(f, "it serves the certificate {fingerprint}"),
            Err(reason) => write!(f, "it serves no certificate: {reason}"),
        }
    }
}

/// The name that is asked for: the site's first; for a wildcard, one that it covers.
pub(super) fn sni(site: &Site) -> String {
    let name = site.server_names.first().map_or("", String::as_str);
    name.strip_prefix("*.")
        .map_or_else(|| name.to_owned(), |domain| format!("www.{domain}"))
}

/// The leaf certificate that the server shows for this name. Its signature over the handshake is checked, so the server
/// has the key; who issued it and until when it is valid is not: it is compared with a wanted one.
pub(super) async fn leaf(address: SocketAddr, name: &str) -> Result<CertificateDer<'static>, String> {
    let handshake = async {
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|error| format!("{name:?}: {error}"))?;
        let connector = TlsConnector::from(Arc::new(client_config().map_err(|error| error.to_string())?));
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        let stream = connector
            .connect(server_name, stream)
            .await
            .map_err(|error| format!("{address}, TLS handshake for {name}: {error}"))?;
        let (_, connection) = stream.get_ref();
        let leaf = connection.peer_certificates().and_then(<[_]>::first).cloned();
        leaf.ok_or_else(|| format!("{address} showed no certificate for {name}"))
    };
    timeout(HANDSHAKE, handshake).await.unwrap_or_else(|_| {
        Err(format!(
            "{address} does not answer within {} s",
            HANDSHAKE.as_secs()
        ))
    })
}

pub(super) fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let verifier = AnyIssuer(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // A resumed session shows no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Accepts every certificate whose key signed the handshake.
#[derive(Debug)]
struct AnyIssuer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyIssuer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
