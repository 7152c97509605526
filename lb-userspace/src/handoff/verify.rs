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
/// Between two looks at a server that does not serve yet what it should.
const PAUSE: Duration = Duration::from_millis(100);

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
        let certificate = leaf(server.address, &sni(site)).await.map(fingerprint);
        let release = leaf(server.address, release_name).await.is_ok();
        Self { certificate, release }
    }

    /// Looks until it serves what it should (`Ok`), or until `limit` has passed: the last look.
    pub(super) async fn wait_for(
        wanted: &Self,
        site: &Site,
        server: &SiteServer,
        release_name: &str,
        limit: Duration,
    ) -> Result<Self, Self> {
        let until = Instant::now() + limit;
        loop {
            let now = Self::observe(site, server, release_name).await;
            if now.certificate.as_ref().ok() == wanted.certificate.as_ref().ok()
                && now.release == wanted.release
            {
                return Ok(now);
            }
            if Instant::now() + PAUSE > until {
                return Err(now);
            }
            sleep(PAUSE).await;
        }
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
