//! `[site]`.

use std::num::NonZeroU16;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use toml::Spanned;

use super::{Across, certificate, site_server};
use crate::config::reading::word;
use crate::config::section::Section;
use crate::config::{Site, TlsVersion, limits, rules, written};

pub(super) fn site(section: &mut Section<'_, '_>, given: &written::Site, across: &Across) -> Option<Site> {
    section.need(
        "server_names",
        &given.server_names,
        "list the site's names, such as [\"www.example.com\"]",
    );
    let server_names = section.list("server_names", &given.server_names, "name", rules::site_name);
    let (certificate, key) = certificate_and_key(section, given);
    let what = "list the application servers that nginx passes requests to, such as [\"127.0.0.1:8080\"]";
    section.need("upstream", &given.upstream, what);
    let upstream = section.list("upstream", &given.upstream, "upstream", rules::server);
    let (http_port, https_port) = ports(section, given);
    let hsts = section.seconds("hsts", &given.hsts, limits::HSTS, "hsts");
    let redirect_http = redirect_http(section, given, http_port, hsts);
    let tls_versions = section.list("tls_versions", &given.tls_versions, "TLS version", word);

    let time = limits::SITE_TIME;
    let keepalive_time = section.seconds("keepalive_time", &given.keepalive_time, time, "keepalive_time");
    let keepalive_timeout = section.seconds(
        "keepalive_timeout",
        &given.keepalive_timeout,
        time,
        "keepalive_timeout",
    );
    let drain_timeout = section.time("drain_timeout", &given.drain_timeout, time, "drain_timeout");
    let servers = site_server::servers(section, given, https_port, across);
    Some(Site {
        server_names: server_names?,
        certificate: certificate?,
        key: key?,
        upstream: upstream?,
        http_port,
        https_port,
        redirect_http,
        hsts,
        tls_versions: tls_versions.unwrap_or_else(|| vec![TlsVersion::V1_2, TlsVersion::V1_3]),
        keepalive_time: keepalive_time.unwrap_or(Duration::from_secs(60)),
        keepalive_timeout: keepalive_timeout.unwrap_or(Duration::from_secs(65)),
        drain_timeout: drain_timeout.unwrap_or(Duration::from_secs(90)),
        servers: servers?,
    })
}

type Path = Option<std::path::PathBuf>;

/// The two files, which must be usable, belong together and be good for the site's names.
fn certificate_and_key(section: &mut Section<'_, '_>, given: &written::Site) -> (Path, Path) {
    section.need(
        "certificate",
        &given.certificate,
        "write the PEM file with the certificate chain",
    );
    section.need(
        "key",
        &given.key,
        "write the PEM file with the certificate's private key",
    );
    let certificate = section.file("certificate", &given.certificate);
    let key = section.file("key", &given.key);

    let mut chain = Vec::new();
    if let Some((path, pem)) = &certificate {
        match certificate::chain(pem) {
            Ok(read) => chain = read,
            Err(what) => section.wrong_file("certificate", &given.certificate, path, what),
        }
    }
    if let (Some((path, pem)), false) = (&key, chain.is_empty())
        && let Err(what) = certificate::belongs_to(pem, &chain)
    {
        section.wrong_file("key", &given.key, path, what);
    }
    check_names(section, given, &chain);
    (certificate.map(|(path, _)| path), key.map(|(path, _)| path))
}

/// Names that are none have been told already.
fn check_names(section: &mut Section<'_, '_>, given: &written::Site, chain: &[CertificateDer<'_>]) {
    for typed in given.server_names.iter().flat_map(Spanned::get_ref) {
        if let Ok(name) = rules::site_name(typed.get_ref())
            && let Err(what) = certificate::covers(chain, &name)
        {
            section.wrong("server_names", typed.span(), what);
        }
    }
}

fn ports(section: &mut Section<'_, '_>, given: &written::Site) -> (Option<NonZeroU16>, NonZeroU16) {
    const HTTP: NonZeroU16 = NonZeroU16::new(80).unwrap();
    const HTTPS: NonZeroU16 = NonZeroU16::new(443).unwrap();
    let http = section.number("http_port", &given.http_port, 0..=65535, "http_port (0: off)");
    let http = http.map_or(Some(HTTP), NonZeroU16::new);
    let https = section.port("https_port", &given.https_port).unwrap_or(HTTPS);
    if http == Some(https) {
        let what =
            format!("HTTP and HTTPS are both on port {https}; give them different ones, or http_port = 0");
        match (&given.https_port, &given.http_port) {
            (Some(typed), _) => section.wrong("https_port", typed.span(), what),
            (None, Some(typed)) => section.wrong("http_port", typed.span(), what),
            (None, None) => {}
        }
    }
    (http, https)
}

/// Redirect and HSTS must not contradict what HTTP does.
fn redirect_http(
    section: &mut Section<'_, '_>,
    given: &written::Site,
    http_port: Option<NonZeroU16>,
    hsts: Option<Duration>,
) -> bool {
    let redirect = given.redirect_http.as_ref().is_none_or(|typed| *typed.get_ref());
    if let (Some(typed), true, None) = (&given.redirect_http, redirect, http_port) {
        let what = "nothing can be redirected: http_port = 0 turns HTTP off; take one of the two out";
        section.wrong("redirect_http", typed.span(), what);
    }
    if let (Some(typed), false, Some(_), Some(_)) =
        (&given.hsts, redirect, http_port, hsts.filter(|t| !t.is_zero()))
    {
        let what = "tells browsers never to use HTTP, while redirect_http = false serves the site over it; take hsts \
                    out, or redirect, or turn HTTP off with http_port = 0";
        section.wrong("hsts", typed.span(), what);
    }
    redirect
}
