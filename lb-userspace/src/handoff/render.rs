//! The site as nginx configuration: text from `site.conf.j2` and `test.conf.j2`.
//!
//! Decisions that the templates carry:
//! - The HTTPS port's default server is ours and refuses the handshake for every name that is not the site's. A health
//!   probe by address works as long as it sends one of the site's names as SNI. Another `default_server` on that port in
//!   the web server's own configuration is a conflict, which `nginx -t` reports before anything is reloaded.
//! - HTTP has no default server of ours: a distribution's own may be there, and plain probes name no host.
//! - TLS settings are repeated in the default server because OpenSSL takes the protocol versions from there, before the
//!   client's SNI has chosen a server.
//! - `keepalive_time` ends busy keep-alive connections with `Connection: close`, so that a drain gets done.
//! - No ciphers are set: the defaults of the web server's OpenSSL are kept up by its distribution.
//! - HTTP/2 is left out: nginx 1.25 deprecates the only way in which nginx 1.22 can be told.
//! - IPv6 is listened on only where the balancer itself reaches the server by IPv6; elsewhere the kernel may lack it.

use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};

use super::HandoffError;
use crate::config::{Site, SiteServer, TlsVersion};

/// `site.conf` of a release: complete `server` blocks, to be included inside `http {}`. `directory` is the release's.
pub(super) fn site_conf(
    site: &Site,
    server: &SiteServer,
    directory: &str,
    release_name: &str,
) -> Result<String, HandoffError> {
    let https_port = site.https_port.get();
    let http_port = site.http_port.map(std::num::NonZeroU16::get);
    let tls_versions: Vec<_> = site
        .tls_versions
        .iter()
        .map(|version| tls_version(*version))
        .collect();
    let upstream: Vec<_> = site.upstream.iter().map(ToString::to_string).collect();
    let values = context! {
        upstream,
        server_names => site.server_names.clone(),
        release_name,
        certificate => format!("{directory}/{}", super::bundle::CERTIFICATE),
        key => format!("{directory}/{}", super::bundle::KEY),
        ipv6 => server.address.is_ipv6(),
        https_port,
        http_port,
        https_host => host(https_port == 443),
        http_host => host(http_port == Some(80)),
        redirect_http => site.redirect_http,
        redirect_port => if https_port == 443 { String::new() } else { format!(":{https_port}") },
        hsts => site.hsts.map(|hsts| hsts.as_secs()),
        tls_versions,
        keepalive_time => time(site.keepalive_time),
        keepalive_timeout => time(site.keepalive_timeout),
    };
    render(server, include_str!("site.conf.j2"), values)
}

/// `test.conf` of a release: a complete configuration around the staged `site.conf`, for `nginx -t -c`.
///
/// It names the temporary paths of modules that every distribution builds in (`fastcgi`, `uwsgi`, `scgi`); a web server
/// with an nginx that lacks one needs its own `test` script.
pub(super) fn test_conf(server: &SiteServer, directory: &str) -> Result<String, HandoffError> {
    render(server, include_str!("test.conf.j2"), context! { directory })
}

fn render(server: &SiteServer, template: &str, values: minijinja::Value) -> Result<String, HandoffError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("quote", quote);
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .and_then(|syntax| {
            environment.set_syntax(syntax);
            environment.render_str(template, values)
        })
        .map_err(|source| HandoffError::Render {
            server: server.name.clone(),
            source: Box::new(source),
        })
}

/// One nginx parameter. Plain words stay bare; nginx has no way to write a `$` that is not a variable.
fn quote(text: &str) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:*".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    if text.contains(|c: char| c == '$' || c.is_control()) {
        let message =
            format!("{text:?} cannot be written in an nginx configuration: no $, no control characters");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Ok(format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#)))
}

/// The Host header for the application. On a port of its own only the client's header tells the port that the client
/// used, which need not be ours.
fn host(usual_port: bool) -> &'static str {
    if usual_port { "$host" } else { "$http_host" }
}

fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "TLSv1.2",
        TlsVersion::V1_3 => "TLSv1.3",
    }
}

/// Whole seconds where possible, else milliseconds.
fn time(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}
