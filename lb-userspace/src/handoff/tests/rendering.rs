//! The whole text, for two sites that differ in everything.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use super::rig::Files;
use crate::config::{Site, SiteScripts, SiteServer, TlsVersion};
use crate::handoff::bundle::Release;
use crate::handoff::certificate::Material;
use crate::handoff::{HandoffError, render};

fn server(address: &str) -> SiteServer {
    SiteServer {
        name: "web1".to_owned(),
        address: address.parse().unwrap(),
        via: Vec::new(),
        directory: "/etc/nginx/lb".to_owned(),
        nginx: "nginx".to_owned(),
        scripts: SiteScripts::default(),
    }
}

fn usual() -> Site {
    Site {
        server_names: vec!["www.foobar.com".to_owned(), "foobar.com".to_owned()],
        certificate: "/dev/null".into(),
        key: "/dev/null".into(),
        upstream: vec!["127.0.0.1:8080".parse().unwrap()],
        http_port: NonZeroU16::new(80),
        https_port: NonZeroU16::new(443).unwrap(),
        redirect_http: true,
        hsts: Some(Duration::from_secs(365 * 24 * 3600)),
        tls_versions: vec![TlsVersion::V1_2, TlsVersion::V1_3],
        keepalive_time: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(65),
        drain_timeout: Duration::from_secs(90),
        servers: vec![server("198.18.1.2:443")],
    }
}

fn unusual() -> Site {
    Site {
        server_names: vec!["*.foobar.com".to_owned()],
        upstream: vec![
            "10.0.0.1:8080".parse().unwrap(),
            SocketAddr::new("fd00::1".parse().unwrap(), 81),
        ],
        http_port: NonZeroU16::new(8080),
        https_port: NonZeroU16::new(8443).unwrap(),
        redirect_http: false,
        hsts: None,
        tls_versions: vec![TlsVersion::V1_3],
        keepalive_time: Duration::from_millis(1500),
        servers: vec![SiteServer {
            directory: r#"/srv/a "b" \c"#.to_owned(),
            ..server("[2001:db8::2]:8443")
        }],
        ..usual()
    }
}

fn rendered(site: &Site) -> Result<String, HandoffError> {
    let server = site.servers.first().unwrap();
    let directory = format!("{}/releases/0123456789abcdef", server.directory);
    render::site_conf(site, server, &directory, "0123456789abcdef.release.invalid")
}

#[test]
fn the_usual_site() {
    assert_eq!(rendered(&usual()).unwrap(), include_str!("snapshots/usual.conf"));
}

#[test]
fn an_unusual_site() {
    assert_eq!(
        rendered(&unusual()).unwrap(),
        include_str!("snapshots/unusual.conf")
    );
}

#[test]
fn redirects_name_a_port_of_their_own() {
    let site = Site {
        https_port: NonZeroU16::new(8443).unwrap(),
        ..usual()
    };
    let text = rendered(&site).unwrap();
    assert!(
        text.contains("return 301 https://$host:8443$request_uri;"),
        "{text}"
    );
}

#[test]
fn without_http_nothing_listens_for_it() {
    let text = rendered(&Site {
        http_port: None,
        ..usual()
    })
    .unwrap();
    assert!(!text.contains("listen 80"), "{text}");
}

#[test]
fn what_nginx_cannot_express_is_refused() {
    let mut site = usual();
    for name in ["$host", "a\nb"] {
        site.server_names = vec![name.to_owned()];
        let error = rendered(&site).unwrap_err().to_string();
        assert!(
            error.contains("server web1") && error.contains("cannot be written"),
            "{error}"
        );
    }
    site.server_names = vec!["a; } evil".to_owned()];
    assert!(rendered(&site).unwrap().contains("server_name \"a; } evil\";"));
}

#[test]
fn the_same_site_is_the_same_release() {
    let files = Files::new();
    let site = Site {
        certificate: files.certificate(),
        key: files.key(),
        ..usual()
    };
    let server = site.servers.first().unwrap();
    let release = |site: &Site| Release::new(site, server, &Material::read(site).unwrap()).unwrap();
    let first = release(&site);
    assert_eq!(first.id.len(), 16);
    assert_eq!(first.id, release(&site).id);
    assert_eq!(first.tar, release(&site).tar);
    assert!(
        first
            .site_conf
            .contains(&format!("/etc/nginx/lb/releases/{}/key.pem", first.id))
    );
    assert!(first.site_conf.contains(&first.name));

    let other = Site {
        hsts: None,
        ..site.clone()
    };
    assert_ne!(first.id, release(&other).id);
    // The key alone counts, even where it is the same key written differently.
    let key = std::fs::read_to_string(files.key()).unwrap();
    std::fs::write(files.key(), key + "\n").unwrap();
    assert_ne!(first.id, release(&site).id);
}
