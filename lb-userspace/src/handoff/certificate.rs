//! Certificates: the site's own, read from disk, and what an operator wants to know about any.

use std::path::Path;
use std::time::UNIX_EPOCH;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::HandoffError;
use super::validity::{Validity, rfc3339};
use crate::api::types::Certificate;
use crate::config::Site;
use crate::moment::wall_clock;

/// The site's certificate and key as they are on disk now, known to belong together.
pub(super) struct Material {
    /// The chain's file, leaf first.
    pub(super) certificate_pem: Vec<u8>,
    /// The key's file.
    pub(super) key_pem: Vec<u8>,
    /// The leaf's.
    pub(super) fingerprint: String,
    /// The chain's.
    pub(super) validity: Validity,
}

impl Material {
    /// Reads both files and checks that they match.
    pub(super) fn read(site: &Site) -> Result<Self, HandoffError> {
        let (certificate_pem, chain) = read_chain(&site.certificate)?;
        let key_pem = read_file(&site.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| HandoffError::Key {
            file: site.key.clone(),
            reason: source.to_string(),
        })?;
        let fingerprint = chain.first().map(fingerprint).unwrap_or_default();
        let validity = Validity::of(&site.certificate, &chain)?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => HandoffError::Mismatch {
                certificate: site.certificate.clone(),
                key: site.key.clone(),
            },
            other => HandoffError::Key {
                file: site.key.clone(),
                reason: other.to_string(),
            },
        })?;
        Ok(Self {
            certificate_pem,
            key_pem,
            fingerprint,
            validity,
        })
    }
}

/// The leaf of the site's certificate file.
pub(super) fn wanted(site: &Site) -> Result<Certificate, HandoffError> {
    let (_, chain) = read_chain(&site.certificate)?;
    let leaf = chain.first().map_or(&[][..], |leaf| leaf.as_ref());
    describe(leaf).map_err(|reason| HandoffError::Certificate {
        file: site.certificate.clone(),
        reason,
    })
}

/// What an operator wants to know; `der` need not be valid.
pub(super) fn describe(der: &[u8]) -> Result<Certificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    let not_after = certificate.validity().not_after.timestamp();
    let now = wall_clock()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Ok(Certificate {
        fingerprint: fingerprint(der),
        subject: certificate.subject().to_string(),
        names,
        not_after: rfc3339(not_after),
        expires_in_seconds: not_after.saturating_sub_unsigned(now),
    })
}

/// SHA-256 of the DER, in hex.
pub(super) fn fingerprint(der: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(der.as_ref()))
}

/// Lower case, two digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_file(file: &Path) -> Result<Vec<u8>, HandoffError> {
    std::fs::read(file).map_err(|source| HandoffError::Read {
        file: file.to_owned(),
        source,
    })
}

/// The file, and the certificates in it, at least one.
pub(super) fn read_chain(file: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), HandoffError> {
    let wrong = |reason: String| HandoffError::Certificate {
        file: file.to_owned(),
        reason,
    };
    let pem = read_file(file)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| wrong(source.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok((pem, chain))
}

/// Names that a TLS client compares: DNS names and addresses.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from))
                .map(|address| address.to_string())
                .ok()
        }
        _ => None,
    }
}
