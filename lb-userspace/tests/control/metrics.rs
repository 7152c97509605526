//! The metrics over real TCP, checked by a small parser of the text format that shares nothing with the writer.

use std::collections::{BTreeMap, BTreeSet};

use lb::api::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::{Fake, dns, mail};

async fn get(fake: &Fake, path: &str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(lb::metrics::serve(listener, fake.clone(), std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: lb\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    server.abort();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

/// Samples by name and sorted labels (`name{a="b"}`, label values unescaped), every rule of the format asserted.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let mut samples = BTreeMap::new();
    let mut done = BTreeSet::new();
    let mut family = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && name.starts_with("lb_"),
                "{name}"
            );
            assert!(!help.is_empty());
            assert!(done.insert(name.to_owned()), "{name} twice");
            family = (name.to_owned(), String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family.0, "HELP and TYPE belong together");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            family.1 = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').unwrap())),
                None => (series, BTreeMap::new()),
            };
            assert_eq!(name, family.0, "a sample outside its family: {line}");
            assert!(!family.1.is_empty(), "a sample before its TYPE: {line}");
            let key = format!("{name}{labels:?}");
            assert!(
                samples.insert(key.clone(), value.parse().unwrap()).is_none(),
                "{key} twice"
            );
        }
    }
    samples
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        let mut plain = String::new();
        let mut characters = value.char_indices();
        let end = loop {
            match characters.next().expect("an open label value") {
                (end, '"') => break end,
                (_, '\\') => plain.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("\\{other} is no escape"),
                }),
                (_, other) => plain.push(other),
            }
        };
        assert!(labels.insert(name.to_owned(), plain).is_none(), "{name} twice");
        rest = &value[end + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').unwrap();
        }
    }
    labels
}

#[tokio::test]
async fn everything_known_is_there() {
    let fake = Fake::new();
    fake.state().status.version = "0.1 \"quoted\\\nname\"".to_owned();
    let (head, body) = get(&fake, "/metrics").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    let samples = parse(&body);
    let backend = r#""address": "198.18.1.2:443", "backend": "web1""#;
    let cases = [
        (r#"lb_build_info{"version": "0.1 \"quoted\\\nname\""}"#.to_owned(), 1),
        ("lb_uptime_seconds{}".to_owned(), 273_600),
        ("lb_warnings{}".to_owned(), 1),
        (r#"lb_interface_info{"interface": "eth1", "mode": "generic"}"#.to_owned(), 1),
        ("lb_table_connections{}".to_owned(), 12_000),
        ("lb_wide_table_connections{}".to_owned(), 345),
        ("lb_wide_table_max_connections{}".to_owned(), 125_000),
        ("lb_table_max_connections{}".to_owned(), 1_000_000),
        ("lb_table_bytes{}".to_owned(), 25_165_824),
        (r#"lb_packets_total{"action": "transmit", "outcome": "to_backend"}"#.to_owned(), 9_876_543_210),
        (r#"lb_packets_total{"action": "drop", "outcome": "malformed"}"#.to_owned(), 0),
        (
            r#"lb_service_info{"mode": "nat", "protocol": "tcp", "scheduler": "round-robin", "service": "api", "vip": "[2001:db8::10]:443"}"#
                .to_owned(),
            1,
        ),
        (r#"lb_service_connections{"service": "www"}"#.to_owned(), 6),
        (r#"lb_service_connections_opened_total{"service": "www"}"#.to_owned(), 2_469_134),
        (format!(r#"lb_backend_up{{{backend}, "service": "www"}}"#), 1),
        (format!(r#"lb_backend_up{{{backend}, "service": "api"}}"#), 0),
        (format!(r#"lb_backend_health_seconds{{{backend}, "service": "api"}}"#), 12),
        (format!(r#"lb_backend_eligible{{{backend}, "service": "www"}}"#), 1),
        (format!(r#"lb_backend_weight{{{backend}, "service": "www"}}"#), 1),
        (format!(r#"lb_backend_backup{{{backend}, "service": "www"}}"#), 0),
        (format!(r#"lb_backend_slow_start_percent{{{backend}, "service": "www"}}"#), 100),
        (format!(r#"lb_backend_state{{{backend}, "service": "api", "state": "down"}}"#), 1),
        (format!(r#"lb_backend_state{{{backend}, "service": "api", "state": "up"}}"#), 0),
        (format!(r#"lb_backend_connections{{{backend}, "service": "www"}}"#), 3),
        (format!(r#"lb_backend_connections_opened_total{{{backend}, "service": "www"}}"#), 1_234_567),
        (format!(r#"lb_backend_packets_total{{{backend}, "direction": "in", "service": "www"}}"#), 1 << 40),
        (format!(r#"lb_backend_packets_total{{{backend}, "direction": "out", "service": "www"}}"#), 5),
        (format!(r#"lb_backend_bytes_total{{{backend}, "direction": "in", "service": "www"}}"#), 1 << 41),
        (format!(r#"lb_backend_bytes_total{{{backend}, "direction": "out", "service": "www"}}"#), 1536),
        (
            r#"lb_backend_overrides{"address": "198.18.1.3:443", "backend": "web2", "service": "www"}"#.to_owned(),
            2,
        ),
    ];
    for (series, value) in cases {
        assert_eq!(samples.get(&series), Some(&value), "{series}\n{samples:#?}");
    }
    // 8 on the daemon, 2 interfaces, 3 outcomes; each of 2 services 1 + 6; each of 3 backends 7 + 6 states + 6.
    assert_eq!(samples.len(), 8 + 2 + 3 + 2 * 7 + 3 * 19, "{samples:#?}");
}

#[tokio::test]
async fn backends_of_other_kinds() {
    let fake = Fake::new();
    fake.state().status.services = vec![mail(), dns()];
    let samples = parse(&get(&fake, "/metrics").await.1);
    let cases = [
        (
            r#"lb_service_info{"mode": "full-nat", "protocol": "tcp", "scheduler": "least-connections", "service": "mail", "vip": "[2001:db8::25]:25"}"#,
            1,
        ),
        (
            r#"lb_service_info{"mode": "nat", "protocol": "udp", "scheduler": "maglev", "service": "dns", "vip": "203.0.113.53:5300-5399"}"#,
            1,
        ),
        (
            r#"lb_backend_slow_start_percent{"address": "[2001:db8:1::2]:2525", "backend": "mx1", "service": "mail"}"#,
            30,
        ),
        (
            r#"lb_backend_backup{"address": "[2001:db8:1::3]:2525", "backend": "mx2", "service": "mail"}"#,
            1,
        ),
        (
            r#"lb_backend_up{"address": "198.18.1.5", "backend": "ns1", "service": "dns"}"#,
            1,
        ),
    ];
    for (series, value) in cases {
        assert_eq!(samples.get(series), Some(&value), "{series}\n{samples:#?}");
    }
}

#[tokio::test]
async fn other_paths_and_a_daemon_that_fails() {
    let fake = Fake::new();
    let (head, body) = get(&fake, "/").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
    assert!(body.contains("/metrics"), "{body}");
    fake.state().refusal = Some(Refusal::Failed("cannot read the map".to_owned()));
    let (head, body) = get(&fake, "/metrics").await;
    assert!(head.starts_with("http/1.1 500"), "{head}");
    assert_eq!(body, "cannot read the map\n");
}
