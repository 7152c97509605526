//! The same as HTTP, over TLS with a certificate that the given authorities vouch for.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::{Deadline, Failed, http, in_words, tcp};
use crate::config::HttpProbe;

/// Whom to trust and whom to ask for.
pub(in crate::health) struct Tls {
    connector: TlsConnector,
    server_name: ServerName<'static>,
    /// As configured; also the default Host header.
    name: String,
}

impl Tls {
    /// Trusts the authorities in `pem`, the content of `file`, and nobody else.
    pub(super) fn new(pem: &[u8], file: &Path, name: &str) -> Result<Self, String> {
        let refuse = |why: String| format!("CA file {}: {why}", file.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| refuse(format!("not PEM: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| refuse(format!("not a certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(refuse("holds no certificate".to_owned()));
        }
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("server_name {name:?} is neither a DNS name nor an IP address"))?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("TLS cannot be set up: {error}"))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        // A resumed session shows no certificate: one that has expired since would go unnoticed.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name,
            name: name.to_owned(),
        })
    }
}

pub(super) async fn probe(
    request: &HttpProbe,
    tls: &Result<Tls, String>,
    address: SocketAddr,
    deadline: &Deadline,
) -> Result<String, Failed> {
    let tls = tls.as_ref().map_err(Clone::clone)?;
    let stream = tcp::connect(address, deadline).await?;
    let stream = deadline
        .during(
            "TLS handshake",
            tls.connector.connect(tls.server_name.clone(), stream),
        )
        .await?
        .map_err(|error| Failed::Backend(explain(&error, &tls.name)))?;
    http::exchange(stream, request, &tls.name, deadline).await
}

/// What went wrong in the handshake, in an operator's words.
fn explain(error: &io::Error, name: &str) -> String {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(error)) => {
            format!("certificate: {}", what_is_wrong(error, name))
        }
        Some(rustls::Error::InvalidMessage(_)) => "the answer is not TLS".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => format!("TLS refused by the backend: {alert:?}"),
        Some(error) => format!("TLS: {error}"),
        None => format!("{} during the TLS handshake", in_words(error)),
    }
}

fn what_is_wrong(error: &CertificateError, name: &str) -> String {
    use CertificateError as Wrong;
    match error {
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => format!("not valid for name {name}"),
        Wrong::Expired | Wrong::ExpiredContext { .. } => "expired".to_owned(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "not valid yet".to_owned(),
        Wrong::UnknownIssuer => "not signed by an authority in the CA file".to_owned(),
        // The authority has the right name, as after its key was renewed.
        Wrong::BadSignature => "signed with another key than that of the authority in the CA file".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::config;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Probes a TLS server that has `certificate`, trusting `trusted`.
    async fn ask(certificate: &Issued, trusted: &Authority) -> Result<String, String> {
        let backend = serve_tls(Answer::text(OK), certificate).await;
        run_trusting(&https(), trusted.pem().into(), backend.address).await
    }

    fn https() -> config::Probe {
        config::Probe::Https {
            http: HttpProbe {
                path: "/".to_owned(),
                host: None,
                expect_status: vec![200],
            },
            ca: "/etc/lb/ca.pem".into(),
            server_name: "www.foobar.com".to_owned(),
        }
    }

    async fn run_trusting(
        probe: &config::Probe,
        pem: Vec<u8>,
        address: SocketAddr,
    ) -> Result<String, String> {
        run_with_ca(probe, &Ok(pem), address, LONG).await
    }

    #[tokio::test]
    async fn a_good_certificate_succeeds_and_the_name_is_sent() {
        let authority = Authority::new();
        let mut backend = serve_tls(Answer::text(OK), &authority.issue("www.foobar.com", 2020..2099)).await;
        let reason = run_trusting(&https(), authority.pem().into(), backend.address)
            .await
            .expect("success");
        assert!(reason.starts_with("HTTP 200 in "), "{reason}");
        let request = backend.requests.recv().await.expect("a request");
        assert!(request.contains("host: www.foobar.com\r\n"), "{request}");
        assert_eq!(
            backend.server_names.recv().await.as_deref(),
            Some("www.foobar.com"),
            "SNI"
        );
    }

    #[tokio::test]
    async fn a_bad_certificate_fails_with_the_reason() {
        let authority = Authority::new();
        let (stranger, renewed) = (Authority::named("Stranger"), Authority::new());
        for (certificate, trusted, reason) in [
            (
                authority.issue("other.com", 2020..2099),
                &authority,
                "not valid for name www.foobar.com",
            ),
            (
                authority.issue("www.foobar.com", 2020..2021),
                &authority,
                "expired",
            ),
            (
                authority.issue("www.foobar.com", 2098..2099),
                &authority,
                "not valid yet",
            ),
            (
                authority.issue("www.foobar.com", 2020..2099),
                &stranger,
                "not signed by an authority in the CA file",
            ),
            (
                authority.issue("www.foobar.com", 2020..2099),
                &renewed,
                "signed with another key than that of the authority in the CA file",
            ),
        ] {
            assert_eq!(
                ask(&certificate, trusted).await,
                Err(format!("certificate: {reason}"))
            );
        }
    }

    #[tokio::test]
    async fn a_certificate_is_looked_at_in_every_probe() {
        let authority = Authority::new();
        let backend = serve_tls(Answer::text(OK), &authority.issue("www.foobar.com", 2020..2099)).await;
        let probe = super::super::Probe::new(&https(), &Ok(authority.pem().into()));
        for _ in 0..3 {
            let outcome = probe.run(backend.address, LONG).await;
            assert!(
                matches!(outcome, super::super::Outcome::Success(_)),
                "{outcome:?}"
            );
        }
        assert_eq!(backend.resumed.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_server_without_tls_or_without_an_answer_fails() {
        let pem: Vec<u8> = Authority::new().pem().into();
        for (answer, reason) in [
            (
                Answer::text("HTTP/1.1 400 Bad Request\r\n\r\n"),
                "the answer is not TLS",
            ),
            (Answer::Close, "connection closed early during the TLS handshake"),
            (Answer::Reset, "connection reset during the TLS handshake"),
        ] {
            let backend = serve(answer).await;
            assert_eq!(
                run_trusting(&https(), pem.clone(), backend.address).await,
                Err(reason.to_owned())
            );
        }
        let backend = serve(Answer::Hang).await;
        let result = run_with_ca(&https(), &Ok(pem), backend.address, SHORT).await;
        assert_eq!(result, Err("timed out after 300ms (TLS handshake)".to_owned()));
    }

    #[tokio::test]
    async fn a_broken_ca_file_fails_with_the_reason() {
        let nobody = refusing().await;
        for (pem, reason) in [
            (&b""[..], "holds no certificate"),
            (b"rubbish", "holds no certificate"),
            (
                b"-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n",
                "not PEM",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "not a certificate",
            ),
        ] {
            let failure = run_trusting(&https(), pem.to_vec(), nobody)
                .await
                .expect_err("failure");
            assert!(
                failure.starts_with(&format!("CA file /etc/lb/ca.pem: {reason}")),
                "{failure}"
            );
        }
        let failure = run_with_ca(&https(), &Err("gone".to_owned()), nobody, LONG).await;
        assert_eq!(failure, Err("gone".to_owned()));
    }
}
