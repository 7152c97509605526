//! nginx on a web server: everything but the site, which the balancer's daemon hands over.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::certificates::CertificateFiles;
use crate::process;

/// Where one web server keeps its things.
#[derive(Debug, Clone)]
pub struct WebServer {
    directory: PathBuf,
}

impl WebServer {
    /// The web server whose things are in this directory.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// A line for each request, when it is done: client's address, time, request, status, bytes, TLS version, connection
    /// number, user agent.
    pub fn access_log(&self) -> PathBuf {
        self.directory.join("access.log")
    }

    /// Where nginx writes its pid once it is ready.
    pub fn pid_file(&self) -> PathBuf {
        self.directory.join("nginx.pid")
    }

    /// What nginx complains about.
    pub fn error_log(&self) -> PathBuf {
        self.directory.join("error.log")
    }

    /// What the application server complains about.
    pub fn app_log(&self) -> PathBuf {
        self.directory.join("app.log")
    }

    /// The directory that belongs to the hand-off.
    pub fn handed_over(&self) -> PathBuf {
        self.directory.join("lb")
    }

    /// The nginx command with what it needs to find this instance, and no other.
    pub fn command_line(&self) -> Vec<String> {
        let nginx = process::find("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into());
        let directory = self.directory.display();
        vec![
            nginx.display().to_string(),
            "-p".into(),
            format!("{directory}/"),
            "-c".into(),
            format!("{directory}/nginx.conf"),
            "-e".into(),
            self.error_log().display().to_string(),
        ]
    }

    /// Writes `nginx.conf`. It includes what has been handed over, which at first is nothing, and [`write_bodies`]'s.
    ///
    /// [`write_bodies`]: Self::write_bodies
    pub fn configure(&self, workers: u32) -> anyhow::Result<()> {
        fs::create_dir_all(self.handed_over()).context("cannot make the web server's directory")?;
        let file = self.directory.join("nginx.conf");
        let text = CONFIGURATION
            .replace("DIRECTORY", &self.directory.display().to_string())
            .replace("WORKERS", &workers.to_string());
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Puts a plain site in the place of a handed-over one: for a lab without the balancer's daemon.
    pub fn write_static_site(&self, files: &CertificateFiles, ipv6: bool) -> anyhow::Result<()> {
        let current = self.handed_over().join("current");
        fs::create_dir_all(&current).context("cannot make the site's directory")?;
        let listen_ipv6 = if ipv6 { LISTEN_IPV6 } else { "" };
        let text = STATIC_SITE
            .replace("LISTEN_IPV6", listen_ipv6)
            .replace("CERTIFICATE", &files.certificate.display().to_string())
            .replace("KEY", &files.key.display().to_string());
        fs::write(current.join("site.conf"), text).context("cannot write the site")
    }

    /// Lets nginx itself answer, from files and without a log, on ports of their own ([`BODY_PORTS`]) and for any name:
    /// `/1024` is a body of 1,024 bytes, and so on
    /// for each of these sizes. For measuring what stands before nginx.
    pub fn write_bodies(&self, files: &CertificateFiles, sizes: &[usize]) -> anyhow::Result<()> {
        let bodies = self.directory.join("bodies");
        fs::create_dir_all(&bodies).context("cannot make the directory of bodies")?;
        for size in sizes {
            fs::write(bodies.join(size.to_string()), vec![b'x'; *size]).context("cannot write a body")?;
        }
        let [http, https] = BODY_PORTS;
        let text = BODIES
            .replace("DIRECTORY", &bodies.display().to_string())
            .replace("HTTPS_PORT", &https.to_string())
            .replace("HTTP_PORT", &http.to_string())
            .replace("CERTIFICATE", &files.certificate.display().to_string())
            .replace("KEY", &files.key.display().to_string());
        fs::write(self.directory.join("bodies.conf"), text).context("cannot write the site of bodies")
    }
}

const CONFIGURATION: &str = r#"# Written by `cargo xtask lab`.
worker_processes WORKERS;
worker_rlimit_nofile 16384;
daemon off;
pid DIRECTORY/nginx.pid;
error_log DIRECTORY/error.log notice;

events {
    worker_connections 8000;
}

http {
    default_type application/octet-stream;
    log_format lab '$remote_addr [$time_iso8601] "$request" $status $body_bytes_sent '
                   '$ssl_protocol $connection "$http_user_agent"';
    access_log DIRECTORY/access.log lab;

    client_body_temp_path DIRECTORY/temporary-body;
    proxy_temp_path DIRECTORY/temporary-proxy;
    fastcgi_temp_path DIRECTORY/temporary-fastcgi;
    uwsgi_temp_path DIRECTORY/temporary-uwsgi;
    scgi_temp_path DIRECTORY/temporary-scgi;
    # A long download goes at the client's pace and not to a file.
    proxy_max_temp_file_size 0;
    client_max_body_size 0;

    include DIRECTORY/lb/current/site.conf*;
    include DIRECTORY/bodies.conf*;
}
"#;

/// Where [`WebServer::write_bodies`] are served: HTTP and HTTPS.
pub const BODY_PORTS: [u16; 2] = [8000, 8443];

/// Connections live as long as the client likes: what is measured is not opening them, unless the client wants that.
const BODIES: &str = r#"# Written by `cargo xtask bench`.
server {
    listen HTTP_PORT backlog=4096;
    listen HTTPS_PORT ssl backlog=4096;
    ssl_certificate CERTIFICATE;
    ssl_certificate_key KEY;
    # Each handshake a whole one. Servers know no tickets of each other's: a client that always comes to the same one, without a
    # balancer, would have less to do.
    ssl_session_tickets off;
    ssl_session_cache off;
    keepalive_requests 100000000;
    keepalive_time 1d;
    keepalive_timeout 1h;
    access_log off;
    open_file_cache max=16 inactive=1h;
    open_file_cache_valid 1h;
    root DIRECTORY;
}
"#;

const LISTEN_IPV6: &str = "    listen [::]:80;\n    listen [::]:443 ssl;\n";

const STATIC_SITE: &str = r#"# Written by `cargo xtask lab` for a lab without lbd.
upstream application {
    server 127.0.0.1:8080;
    keepalive 64;
}
server {
    listen 80;
    listen 443 ssl;
LISTEN_IPV6    server_name www.foobar.com;
    ssl_certificate CERTIFICATE;
    ssl_certificate_key KEY;
    location / {
        proxy_pass http://application;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
    }
}
"#;
