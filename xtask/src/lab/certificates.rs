//! A certificate authority made on the spot, and the certificates that it signs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The lab's certificate authority: `ca.pem` and `ca.key` in one directory.
#[derive(Debug)]
pub struct CertificateAuthority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// PEM, the leaf only: the authority signs directly.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

impl CertificateAuthority {
    /// Makes one in this directory.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let params = authority_params();
        let certificate = params
            .self_signed(&key)
            .context("cannot sign the authority's certificate")?;
        write(&directory.join("ca.pem"), &certificate.pem(), 0o644)?;
        write(&directory.join("ca.key"), &key.serialize_pem(), 0o600)?;
        Ok(Self {
            directory: directory.into(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The one that [`create`](Self::create) made in this directory.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let file = directory.join("ca.key");
        let key = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let key = KeyPair::from_pem(&key).with_context(|| format!("{} is no key", file.display()))?;
        Ok(Self {
            directory: directory.into(),
            issuer: Issuer::new(authority_params(), key),
        })
    }

    /// Its own certificate, for clients.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Issues a certificate for these names to `STEM.pem` and `STEM.key` in its directory, replacing what is there.
    pub fn issue(&self, stem: &str, names: &[&str]) -> anyhow::Result<CertificateFiles> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).context("these are no host names")?;
        if let Some(name) = names.first() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign a certificate")?;
        let certificate_file = self.directory.join(format!("{stem}.pem"));
        write(&certificate_file, &certificate.pem(), 0o644)?;
        Ok(CertificateFiles {
            certificate: certificate_file,
            key: self.write_key(stem, &key)?,
        })
    }

    /// Writes a key that belongs to no certificate to `STEM.key`: what an operator gets wrong.
    pub fn mismatched_key(&self, stem: &str) -> anyhow::Result<PathBuf> {
        self.write_key(stem, &KeyPair::generate().context("cannot make a key")?)
    }

    fn write_key(&self, stem: &str, key: &KeyPair) -> anyhow::Result<PathBuf> {
        let file = self.directory.join(format!("{stem}.key"));
        write(&file, &key.serialize_pem(), 0o600)?;
        Ok(file)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "lab certificate authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Writes a file whose mode is right from the start.
fn write(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let attempt = || {
        let _ = fs::remove_file(file);
        let mut opened = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(file)?;
        opened.write_all(text.as_bytes())
    };
    attempt().with_context(|| format!("cannot write {}", file.display()))
}
