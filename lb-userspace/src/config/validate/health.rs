//! `[service.health]`.

use std::time::Duration;

use rustls::RootCertStore;
use toml::Spanned;

use super::certificate;
use crate::config::section::Section;
use crate::config::written::{self, Given, Table};
use crate::config::{HealthCheck, HttpProbe, Probe, limits, rules};

/// The `type` of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    Tcp,
    Http,
    Https,
    None,
}

/// How the backends are probed; nothing given: the default, TCP. `without_port`: why they have no port of their own that
/// could be probed, if so; then nothing given is no probes.
pub(super) fn health(
    service: &mut Section<'_, '_>,
    given: Option<&Spanned<Table<written::Health>>>,
    without_port: Option<&str>,
) -> Option<HealthCheck> {
    if given.is_none() && without_port.is_some() {
        return None;
    }
    let absent = Table::default();
    let at = given.map_or(0..0, Spanned::span);
    let given = given.map_or(&absent, Spanned::get_ref);
    let section = &mut service.inner("health", at);

    let kind = match &given.kind {
        Some(_) => section.word("type", &given.kind)?,
        None => Kind::Tcp,
    };
    refuse_keys_without_effect(section, given, kind);
    let probe = match kind {
        Kind::None => return None,
        Kind::Tcp => Some(Probe::Tcp),
        Kind::Http => Some(Probe::Http(http(section, given))),
        Kind::Https => https(section, given),
    };
    let (interval, timeout, jitter) = times(section, given);
    let in_a_row = limits::PROBES_IN_A_ROW;
    let rise = section
        .number("rise", &given.rise, in_a_row.clone(), "rise")
        .unwrap_or(2);
    let fall = section.number("fall", &given.fall, in_a_row, "fall").unwrap_or(3);
    let port = section.port("port", &given.port);
    if let Some(why) = without_port {
        let what = format!(
            "{why}; write a TCP port that tells whether a backend is well, or type = \"none\" for no probes"
        );
        section.need("port", &given.port, &what);
    }
    Some(HealthCheck {
        probe: probe?,
        interval,
        timeout,
        jitter,
        rise,
        fall,
        port,
    })
}

/// Interval, timeout and jitter, which must fit one another. The default timeout shrinks with the interval.
fn times(section: &mut Section<'_, '_>, given: &written::Health) -> (Duration, Duration, Duration) {
    let interval = section.time("interval", &given.interval, limits::PROBE, "an interval");
    let timeout = section.time("timeout", &given.timeout, limits::PROBE, "a timeout");
    let jitter = section.time("jitter", &given.jitter, limits::JITTER, "a jitter");
    let wrong_interval = interval.is_none() && given.interval.is_some();
    let interval = interval.unwrap_or(Duration::from_secs(2));
    let told = humantime::format_duration(interval);
    if let (Some(long), Some(typed), false) = (timeout, &given.timeout, wrong_interval)
        && long > interval
    {
        let long = humantime::format_duration(long);
        let what = format!(
            "longer than the interval, {told}; a probe ends before the next begins: at most {told} here, or \
             interval = \"{long}\""
        );
        section.wrong("timeout", typed.span(), what);
    }
    if let (Some(long), Some(typed), false) = (jitter, &given.jitter, wrong_interval)
        && long > interval
    {
        section.wrong(
            "jitter",
            typed.span(),
            format!("longer than the interval; at most {told} here"),
        );
    }
    let timeout = timeout.unwrap_or(interval.min(Duration::from_secs(1)));
    (interval, timeout, jitter.unwrap_or(interval / 10))
}

fn http(section: &mut Section<'_, '_>, given: &written::Health) -> HttpProbe {
    let path = section.text("path", &given.path, rules::probe_path);
    let host = section.text("host", &given.host, rules::host_header);
    HttpProbe {
        path: path.unwrap_or_else(|| "/".to_owned()),
        host,
        expect_status: expect_status(section, given),
    }
}

fn expect_status(section: &mut Section<'_, '_>, given: &written::Health) -> Vec<u16> {
    let Some(typed) = &given.expect_status else {
        return vec![200];
    };
    let written::OneOrMany(numbers) = typed.get_ref();
    if numbers.is_empty() {
        section.wrong(
            "expect_status",
            typed.span(),
            "name at least one status, 100 to 599",
        );
    }
    let mut statuses = Vec::new();
    for number in numbers {
        match u16::try_from(*number) {
            Ok(status) if limits::STATUS.contains(number) && !statuses.contains(&status) => {
                statuses.push(status);
            }
            Ok(status) if statuses.contains(&status) => {
                section.wrong(
                    "expect_status",
                    typed.span(),
                    format!("{status} is named twice; take one out"),
                );
            }
            _ => section.wrong(
                "expect_status",
                typed.span(),
                format!("a status is 100 to 599, not {number}"),
            ),
        }
    }
    statuses
}

fn https(section: &mut Section<'_, '_>, given: &written::Health) -> Option<Probe> {
    let http = http(section, given);
    let what = "write the PEM file of the authorities that may have signed the backends' certificate";
    section.need("ca", &given.ca, what);
    let what = "write the name that the backends' certificate carries";
    section.need("server_name", &given.server_name, what);
    let server_name = section.text("server_name", &given.server_name, rules::server_name);
    let (ca, pem) = section.file("ca", &given.ca)?;
    if let Err(what) = authorities(&pem) {
        section.wrong_file("ca", &given.ca, &ca, what);
    }
    Some(Probe::Https {
        http,
        ca,
        server_name: server_name?,
    })
}

/// Whether a TLS client could trust what is in this file.
fn authorities(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in certificate::chain(pem)?.into_iter().enumerate() {
        roots
            .add(authority)
            .map_err(|error| format!("certificate {} is unusable: {error}", index + 1))?;
    }
    Ok(())
}

/// A key that does nothing with this type is a misunderstanding.
fn refuse_keys_without_effect(section: &mut Section<'_, '_>, given: &written::Health, kind: Kind) {
    fn place<T>(key: &'static str, given: &Given<T>) -> Option<(&'static str, std::ops::Range<usize>)> {
        given.as_ref().map(|given| (key, given.span()))
    }
    let any = [
        place("interval", &given.interval),
        place("timeout", &given.timeout),
        place("jitter", &given.jitter),
        place("rise", &given.rise),
        place("fall", &given.fall),
        place("port", &given.port),
    ];
    let http = [
        place("path", &given.path),
        place("host", &given.host),
        place("expect_status", &given.expect_status),
    ];
    let https = [place("ca", &given.ca), place("server_name", &given.server_name)];
    let without_effect: &[(&[_], &str)] = match kind {
        Kind::None => &[
            (&any, "tcp, http or https"),
            (&http, "http or https"),
            (&https, "https"),
        ],
        Kind::Tcp => &[(&http, "http or https"), (&https, "https")],
        Kind::Http => &[(&https, "https")],
        Kind::Https => &[],
    };
    for (keys, needs) in without_effect {
        for (key, at) in keys.iter().flatten() {
            let what =
                format!("only for type {needs}, but the type is {kind}; take it out or change the type");
            section.wrong(key, at.clone(), what);
        }
    }
}
