//! What is handed over: a release, as a tar archive with everything that nginx needs for the site.

use sha2::{Digest, Sha256};

use super::certificate::Material;
use super::{HandoffError, render};
use crate::config::{Site, SiteServer};

/// The certificate chain's file name in a release.
pub(super) const CERTIFICATE: &str = "certificate.pem";
/// The private key's file name in a release.
pub(super) const KEY: &str = "key.pem";

/// The site, ready for one web server.
pub(super) struct Release {
    /// Derived from the contents alone: the same site gives the same id, on each run of the daemon.
    pub(super) id: String,
    /// A name that only nginx with this release in force knows (`.invalid` never resolves, RFC 2606).
    pub(super) name: String,
    /// The nginx configuration.
    pub(super) site_conf: String,
    /// The archive.
    pub(super) tar: Vec<u8>,
}

impl Release {
    /// Renders and packs the site.
    pub(super) fn new(site: &Site, server: &SiteServer, material: &Material) -> Result<Self, HandoffError> {
        // The configuration names the directory, which is named after the id: the id is taken with that name left open.
        let texts = |id: &str| -> Result<_, HandoffError> {
            let directory = format!("{}/releases/{id}", server.directory);
            let name = format!("{id}.release.invalid");
            let site_conf = render::site_conf(site, server, &directory, &name)?;
            Ok((name, site_conf, render::test_conf(server, &directory)?))
        };
        let (_, site_conf, test_conf) = texts("ID")?;
        let id = id(&[
            site_conf.as_bytes(),
            test_conf.as_bytes(),
            &material.certificate_pem,
            &material.key_pem,
        ]);
        let (name, site_conf, test_conf) = texts(&id)?;
        let tar = pack(&[
            ("site.conf", site_conf.as_bytes()),
            ("test.conf", test_conf.as_bytes()),
            (CERTIFICATE, &material.certificate_pem),
            (KEY, &material.key_pem),
        ])
        .map_err(HandoffError::Pack)?;
        Ok(Self {
            id,
            name,
            site_conf,
            tar,
        })
    }
}

/// The first 64 bits of a SHA-256, in hex: enough to tell apart the releases of one site.
fn id(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    super::certificate::hex(hash.finalize().get(..8).unwrap_or_default())
}

/// All files are for the owner only: nginx reads them before it gives up its rights.
fn pack(files: &[(&str, &[u8])]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, *contents)?;
    }
    archive.into_inner()
}
