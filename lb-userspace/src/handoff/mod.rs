//! Hands the TLS-terminating site to nginx on the web servers.
//!
//! [`apply`] reads the certificate and the key, renders a release for each server, stages and tests it on **all** of
//! them, and only then switches them one by one: drain, swap, reload, verify over a real TLS handshake, undrain. A server
//! that fails is put back as it was and ends the hand-off; servers that were done before it keep the new release.
//!
//! What a web server needs is told in `scripts.rs`; what its configuration says and why, in `render.rs`; who runs the scripts,
//! in `worker`.
//!
//! If `apply` is dropped half-way (the daemon stops), the script that runs is killed and a drain is taken back
//! ([`Drainer::undrain_later`]). Each step leaves the web server whole: a release appears at once, links change at once,
//! and `previous` is written before `current`. So it then has either the old release or the new, tested one, in force or
//! waiting for a reload; applying again completes it, and clears away what was left. One thing is lost: if the daemon dies
//! between a swap and its verification, and what is applied next is yet another release, then going back means going back
//! to the one that was swapped in but not verified.

mod apply;
mod bundle;
mod certificate;
mod drain;
mod render;
mod scripts;
#[cfg(test)]
mod tests;
mod transport;
mod validity;
mod verify;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::api::types::{RenderedServer, SiteApplied, SiteRender, SiteServerStatus, SiteStatus};
use crate::config::{Site, SiteServer};

pub use drain::{DrainOutcome, Drainer};
pub(crate) use validity::Validity;
pub use worker::{SiteWorker, serve};

/// Who runs the scripts.
#[derive(Debug, Clone, Default)]
pub enum Hands {
    /// This process.
    #[default]
    Own,
    /// The process that has the rights for it.
    Worker(Arc<SiteWorker>),
}

/// Why there is nothing to hand over; no web server was touched.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// A file of the site.
    #[error("{}: {source}; the site's certificate and key must be readable by lbd", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate file.
    #[error("{}: {reason}; a PEM file with the certificate chain, leaf first, is needed", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key file.
    #[error("{}: {reason}; a PEM file with an unencrypted private key (RSA, ECDSA P-256 or P-384, Ed25519) is needed", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two files that do not belong together.
    #[error("the key {} is not that of the certificate {}; put the pair in place, then apply again", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A certificate that clients would not accept now.
    #[error("{}: the certificate {what}: clients would refuse it, and web servers are not given it; renew it, or set the clock right, then apply again", file.display())]
    NotInForce {
        /// The certificate file.
        file: PathBuf,
        /// Since or until when.
        what: String,
    },
    /// A value that nginx's configuration cannot express.
    #[error("the site cannot be rendered for server {server}: {source}")]
    Render {
        /// The web server's name.
        server: String,
        /// The template engine's error.
        source: Box<minijinja::Error>,
    },
    /// A bundle.
    #[error("the bundle cannot be packed: {0}")]
    Pack(std::io::Error),
}

/// The nginx configuration of each web server, exactly as [`apply`] would hand it over.
pub fn render(site: &Site) -> Result<SiteRender, HandoffError> {
    let material = certificate::Material::read(site)?;
    let render = |server: &SiteServer| {
        let release = bundle::Release::new(site, server, &material)?;
        Ok(RenderedServer {
            server: server.name.clone(),
            nginx_conf: release.site_conf,
        })
    };
    Ok(SiteRender {
        servers: site.servers.iter().map(render).collect::<Result<_, _>>()?,
    })
}

/// Hands the site to the web servers, one by one. The caller sees to it that only one runs at a time. A script may take
/// 30 s, the verification 10 s, and a drain `site.drain_timeout`, for each server.
pub async fn apply(site: &Site, drainer: &impl Drainer, hands: &Hands) -> SiteApplied {
    apply::apply(site, drainer, hands, apply::Limits::default()).await
}

/// What each web server serves now, and whether that is the certificate on disk.
pub async fn status(site: &Site) -> Result<SiteStatus, HandoffError> {
    let wanted = certificate::wanted(site)?;
    let looks: Vec<_> = site
        .servers
        .iter()
        .map(|server| server_status(site, server, &wanted.fingerprint))
        .collect();
    let servers = stream::iter(looks).buffered(apply::AT_A_TIME).collect().await;
    Ok(SiteStatus { wanted, servers })
}

async fn server_status(site: &Site, server: &SiteServer, wanted: &str) -> SiteServerStatus {
    let leaf = verify::leaf(server.address, &verify::sni(site)).await;
    let (served, error) = match leaf.and_then(|leaf| certificate::describe(&leaf)) {
        Ok(served) => (Some(served), None),
        Err(error) => (None, Some(error)),
    };
    let current = served.as_ref().is_some_and(|served| served.fingerprint == wanted);
    SiteServerStatus {
        server: server.name.clone(),
        served,
        current,
        error,
    }
}
