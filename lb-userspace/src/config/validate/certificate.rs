//! What must be right with a certificate and its key before a web server gets them.

use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The certificates of a PEM file, at least one, and all of them certificates indeed.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "the PEM text is damaged or cut short".to_owned())?;
    if chain.is_empty() {
        return Err(
            "no certificate inside; PEM, which begins with -----BEGIN CERTIFICATE-----, is expected"
                .to_owned(),
        );
    }
    for (index, der) in chain.iter().enumerate() {
        parsed(der).map_err(|what| format!("certificate {} of {}: {what}", index + 1, chain.len()))?;
    }
    Ok(chain)
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let parsed = X509Certificate::from_der(der).map(|(_, certificate)| certificate);
    parsed.map_err(|_| "not an X.509 certificate".to_owned())
}

/// Whether the file holds a private key, and the one of the chain's first certificate.
pub(super) fn belongs_to(pem: &[u8], chain: &[CertificateDer<'static>]) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        if String::from_utf8_lossy(pem).contains("ENCRYPTED") {
            "the key has a passphrase; take it away (openssl pkey -in KEY -out NEW_KEY)".to_owned()
        } else {
            "no private key inside; PEM, which begins with -----BEGIN PRIVATE KEY-----, is expected"
                .to_owned()
        }
    })?;
    let key = any_supported_type(&key)
        .map_err(|_| "not a private key of a kind that TLS has use for (RSA, ECDSA, Ed25519)".to_owned())?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        // `Unknown`: this kind of key cannot tell its public half; rustls lets it pass, too.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => {
            Err("not the key of the first certificate (the server's own comes first in a chain)".to_owned())
        }
        Err(error) => Err(format!("the certificate cannot be used with it: {error}")),
    }
}

/// Whether the chain's first certificate is valid for a name; `*.example.com` needs a wildcard in the certificate.
pub(super) fn covers(chain: &[CertificateDer<'_>], name: &str) -> Result<(), String> {
    let Some(leaf) = chain.first() else { return Ok(()) };
    let example = match name.strip_prefix("*.") {
        Some(domain) => format!("any-name-at-all.{domain}"),
        None => name.to_owned(),
    };
    let certificate = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    let wanted = ServerName::try_from(example).map_err(|error| error.to_string())?;
    verify_server_name(&certificate, &wanted).map_err(|_| {
        let names = names(leaf);
        let names = if names.is_empty() {
            "no name at all".to_owned()
        } else {
            names.join(", ")
        };
        format!("the certificate is not valid for it, but for {names}")
    })
}

/// The DNS names of a certificate.
fn names(der: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = parsed(der) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(dns).collect()
}
