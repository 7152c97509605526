//! Requests from the client, TLS verified, as a user would make them.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::node::{SITE, VIP};
use super::{Lab, Mode, Node};
use crate::process::shown;

/// Printed after each body: a line with what curl knows about the transfer, as [`Report`] has it. (`%{json}` has it all, and
/// curl's version, for which curl has libldap look up the machine's own name: where that is not in /etc/hosts it takes ten
/// seconds in a namespace without a name server.)
const REPORT: &str =
    "\\ncurl\\t%{http_code}\\t%{num_connects}\\t%{ssl_verify_result}\\t%{exitcode}\\t%{errormsg}\\n";

/// What the application server answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// The client's address as nginx saw it.
    pub client: Option<String>,
}

/// What came of several requests.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// Answers in the order of the requests.
    pub answers: Vec<Answer>,
    /// What went wrong, a line for each request that failed.
    pub failures: Vec<String>,
}

/// What curl reports about one transfer.
struct Report<'a> {
    http_code: u16,
    /// 1 when the request opened a connection.
    num_connects: u32,
    ssl_verify_result: i32,
    exitcode: i32,
    /// Empty if there was none.
    errormsg: &'a str,
}

impl<'a> Report<'a> {
    /// Reads a line that [`REPORT`] has had printed.
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.strip_prefix("curl\t")?.splitn(5, '\t');
        Some(Self {
            http_code: fields.next()?.parse().ok()?,
            num_connects: fields.next()?.parse().ok()?,
            ssl_verify_result: fields.next()?.parse().ok()?,
            exitcode: fields.next()?.parse().ok()?,
            errormsg: fields.next()?,
        })
    }
}

impl Requests {
    /// How many requests each server answered.
    pub fn split(&self) -> BTreeMap<&str, usize> {
        let mut split = BTreeMap::new();
        for answer in &self.answers {
            *split.entry(answer.server.as_str()).or_default() += 1;
        }
        split
    }
}

impl Lab {
    /// `count` HTTPS requests from the client to the site at this address, each on a connection of its own, the
    /// certificate verified. A request has failed unless it was answered with 200 and the application's JSON, on a new
    /// connection, by a server that saw the client's own address (with `full-nat`: the balancer's).
    pub fn https_requests(&self, address: impl Into<IpAddr>, count: u32) -> anyhow::Result<Requests> {
        let address = address.into();
        let mut curl = self.curl(address)?;
        curl.args(["--header", "Connection: close", "--write-out", REPORT]);
        curl.arg(format!("https://{SITE}/request/[1-{count}]"));
        let output = curl
            .stdin(Stdio::null())
            .output()
            .context("cannot run curl; is it installed?")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let requests = read_answers(&text, &self.client_seen_at(address).to_string());
        if requests.answers.len() + requests.failures.len() != count as usize {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} did not report on {count} requests: {}",
                shown(&curl),
                said.trim()
            );
        }
        Ok(requests)
    }

    /// The address that servers see requests to this address come from.
    pub fn client_seen_at(&self, address: IpAddr) -> IpAddr {
        let by_the_balancer = self.options.mode == Mode::FullNat && self.options.vips.contains(&address);
        let seen = if by_the_balancer { Node::Lb } else { Node::Client };
        match address {
            IpAddr::V4(_) => self.address(seen).into(),
            IpAddr::V6(_) => self.address6(seen).into(),
        }
    }

    /// [`https_requests`](Self::https_requests) to the VIP.
    pub fn vip_requests(&self, count: u32) -> anyhow::Result<Requests> {
        self.https_requests(VIP, count)
    }

    /// curl on the client, which finds the site at this address and trusts the lab's authority only; arguments follow.
    pub fn curl(&self, address: impl Into<IpAddr>) -> anyhow::Result<Command> {
        let address = match address.into() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let mut curl = self.command(Node::Client, "curl")?;
        curl.args([
            "--silent",
            "--show-error",
            "--http1.1",
            "--max-time",
            "5",
            "--cacert",
        ]);
        curl.arg(self.file("ca.pem"));
        for port in [80, 443] {
            curl.args(["--resolve", &format!("{SITE}:{port}:{address}")]);
        }
        Ok(curl)
    }

    /// `wrk` on the client, for which the site's name leads to this address; arguments follow. The name is what `wrk` asks
    /// for in TLS (SNI), so the URL must have it. It is told the address by a script and not by a hosts file, which would
    /// need a mount namespace, which not every container or chroot can have; and the ports, which bare systems have no
    /// /etc/services to look up in.
    pub fn wrk(&self, address: impl Into<IpAddr>) -> anyhow::Result<Command> {
        let address = address.into();
        let script = self.file(&format!("wrk-{address}.lua"));
        let text = format!(
            "local ports = {{ http = \"80\", https = \"443\" }}\n\
             function wrk.resolve(host, service)\n  \
               wrk.addrs = wrk.lookup(\"{address}\", ports[service] or service)\n\
             end\n"
        );
        fs::write(&script, text).context("cannot write a script for wrk")?;
        let mut command = self.command(Node::Client, "wrk")?;
        command.arg("--script").arg(script);
        Ok(command)
    }

    /// A command on the client, for which the site's name leads to this address, by an /etc/hosts that only it sees, and
    /// which trusts the lab's authority if it heeds `CURL_CA_BUNDLE` or `SSL_CERT_FILE`; arguments follow. In a chroot,
    /// where mounts cannot be kept private, the name leads nowhere.
    pub fn client_command(&self, address: impl Into<IpAddr>, program: &str) -> anyhow::Result<Command> {
        let address = address.into();
        let authority = self.file("ca.pem");
        let mut command = if root_is_a_mount()? {
            let hosts = self.file(&format!("hosts-{address}"));
            fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {SITE}\n"))
                .context("cannot write a hosts file")?;
            let mut command = self.command(Node::Client, "unshare")?;
            command.args([
                "--mount",
                "sh",
                "-c",
                "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
            ]);
            command.arg(&hosts).arg(program);
            command
        } else {
            self.command(Node::Client, program)?
        };
        command
            .env("CURL_CA_BUNDLE", &authority)
            .env("SSL_CERT_FILE", &authority);
        Ok(command)
    }
}

/// Whether `/` is the root of a mount. In a chroot into a mere directory it is not, and mount(2) cannot change how what is
/// mounted below it propagates to others.
fn root_is_a_mount() -> anyhow::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    // proc_pid_mountinfo(5): the fifth field is the mount point as seen from our root.
    Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")))
}

/// Reads bodies, each followed by a line with curl's report.
fn read_answers(text: &str, client: &str) -> Requests {
    let mut requests = Requests::default();
    let mut body = String::new();
    for line in text.lines() {
        let Some(report) = Report::read(line) else {
            body.push_str(line);
            continue;
        };
        match judge(&report, &std::mem::take(&mut body), client) {
            Ok(answer) => requests.answers.push(answer),
            Err(reason) => {
                let number = requests.answers.len() + requests.failures.len() + 1;
                requests.failures.push(format!("request {number}: {reason}"));
            }
        }
    }
    requests
}

fn judge(report: &Report<'_>, body: &str, client: &str) -> Result<Answer, String> {
    if report.exitcode != 0 {
        return Err(if report.errormsg.is_empty() {
            format!("curl: {}", report.exitcode)
        } else {
            report.errormsg.to_owned()
        });
    }
    if report.http_code != 200 {
        return Err(format!("HTTP {}", report.http_code));
    }
    if report.ssl_verify_result != 0 {
        return Err(format!(
            "the certificate was not verified ({})",
            report.ssl_verify_result
        ));
    }
    if report.num_connects != 1 {
        return Err("it did not open a connection of its own".to_owned());
    }
    let answer: Answer =
        serde_json::from_str(body).map_err(|error| format!("no answer of the application: {error}"))?;
    if answer.client.as_deref() != Some(client) {
        return Err(format!(
            "the server saw the client as {:?}, not as {client}",
            answer.client
        ));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "curl\t200\t1\t0\t0\t";

    fn failure_of(body: &str, report: &str) -> String {
        let requests = read_answers(&format!("{body}\n\n{report}\n"), "198.18.0.2");
        assert!(requests.answers.is_empty(), "{requests:?}");
        requests.failures.into_iter().next().unwrap()
    }

    #[test]
    fn a_good_answer_counts_for_its_server() {
        let body = r#"{"client":"198.18.0.2","server":"web1"}"#;
        let requests = read_answers(&format!("{body}\n\n{REPORT}\n{body}\n\n{REPORT}\n"), "198.18.0.2");
        assert_eq!(requests.split(), BTreeMap::from([("web1", 2)]));
        assert!(requests.failures.is_empty());
    }

    #[test]
    fn anything_else_is_a_failure() {
        let body = r#"{"client":"198.18.0.2","server":"web1"}"#;
        let changed = |from: &str, to: &str| failure_of(body, &REPORT.replace(from, to));
        assert_eq!(changed("200", "502"), "request 1: HTTP 502");
        assert!(changed("\t1\t0", "\t0\t0").contains("connection of its own"));
        assert!(changed("1\t0\t0", "1\t19\t0").contains("not verified"));
        assert_eq!(changed("0\t0\t", "0\t52\tEmpty reply"), "request 1: Empty reply");
        assert_eq!(changed("0\t0\t", "0\t52\t"), "request 1: curl: 52");
        assert!(failure_of(&body.replace(".2\"", ".9\""), REPORT).contains("198.18.0.9"));
        assert!(failure_of("<html>", REPORT).contains("no answer of the application"));
    }
}
