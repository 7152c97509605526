//! What is accepted, and what comes out of it.

use std::path::Path;
use std::time::Duration;

use super::{edited, good, read};
use crate::config::*;

const MINIMAL: &str = r#"
[daemon]
interfaces = ["eth0"]
[[service]]
name = "www"
vip = "203.0.113.10"
port = 443
"#;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn defaults_are_as_documented() {
    let config = read(MINIMAL).unwrap();
    assert_eq!(
        config.daemon,
        Daemon {
            interfaces: vec!["eth0".into()],
            xdp_mode: XdpMode::Auto,
            max_connections: 1_000_000,
            max_wide_connections: 125_000,
            full_nat_ports: 0,
            selection_seed: 0,
            socket: "/run/lb/lbd.sock".into(),
            socket_group: None,
            state_directory: "/var/lib/lb".into(),
            pin_directory: "/sys/fs/bpf/lb".into(),
            metrics: None,
        }
    );
    let service = Service {
        name: "www".into(),
        vip: [203, 0, 113, 10].into(),
        ports: Ports::One(NonZeroU16::new(443).unwrap()),
        protocol: Protocol::Tcp,
        mode: Mode::Nat,
        scheduler: Scheduler::RoundRobin,
        stateless: false,
        source_address: None,
        source_ports: 10240..=26623,
        answer_ping: true,
        slow_start: Duration::ZERO,
        manage_vip: None,
        when_all_down: WhenAllDown::Refuse,
        on_down: OnDown::Keep,
        drain_timeout: None,
        timeouts: Timeouts {
            half_open: 30 * SECOND,
            established: 7440 * SECOND,
            closing: 120 * SECOND,
            udp: 300 * SECOND,
        },
        health: Some(HealthCheck {
            probe: Probe::Tcp,
            interval: 2 * SECOND,
            timeout: SECOND,
            jitter: SECOND / 5,
            rise: 2,
            fall: 3,
            port: None,
        }),
        backends: vec![],
    };
    assert_eq!(service.endpoint(), ([203, 0, 113, 10].into(), 443, Protocol::Tcp));
    assert_eq!(config.services, [service]);
    assert_eq!(config.site, None);
}

#[test]
fn defaults_of_a_site_and_its_server() {
    let config = good(&[]);
    let backend = config.services[0].backends[0].clone();
    assert_eq!(
        (backend.port, backend.weight, backend.backup),
        (NonZeroU16::new(443), 1, false)
    );
    let site = config.site.unwrap();
    assert_eq!(
        (site.http_port, site.https_port.get()),
        (NonZeroU16::new(80), 443)
    );
    assert_eq!((site.redirect_http, site.hsts), (true, None));
    assert_eq!(site.tls_versions, [TlsVersion::V1_2, TlsVersion::V1_3]);
    assert_eq!(site.keepalive_time, 60 * SECOND);
    assert_eq!(site.keepalive_timeout, 65 * SECOND);
    assert_eq!(site.drain_timeout, 90 * SECOND);
    assert_eq!(
        site.servers,
        [SiteServer {
            name: "web1".into(),
            address: "198.18.1.2:443".parse().unwrap(),
            via: vec!["sh".into(), "-c".into()],
            directory: "/etc/nginx/lb".into(),
            nginx: "nginx".into(),
            scripts: SiteScripts::default(),
        }]
    );
}

#[test]
fn what_is_given_is_what_comes_out() {
    let config = good(&[
        (
            "# daemon",
            "xdp_mode = \"generic\"\nmax_connections = 2048\nsocket = \"s\"\nmetrics = \"[::]:9100\"",
        ),
        (
            "# service",
            "manage_vip = \"eth1\"\nwhen_all_down = \"keep-sending\"\non_down = \"reset\"\ndrain_timeout = \"5m\"",
        ),
        (
            "# health",
            "type = \"https\"\ninterval = \"1s 500ms\"\njitter = \"0s\"\nport = 8443\npath = \"/h?x=1\"\n\
             host = \"[2001:db8::1]:80\"\nexpect_status = [200, 204]\nca = \"ca.pem\"\nserver_name = \"192.0.2.1\"",
        ),
        ("# backend", "port = 8080\nweight = 0"),
        (
            "# site",
            "http_port = 0\nhttps_port = 8443\nhsts = \"365d\"\ntls_versions = [\"1.3\"]",
        ),
        (
            "# server",
            "via = [\"ssh\", \"web1\"]\nscripts = { reload = \"true\" }",
        ),
    ]);
    assert_eq!(config.daemon.socket, Path::new("s"));
    assert_eq!(config.daemon.metrics, "[::]:9100".parse().ok());
    let service = &config.services[0];
    assert_eq!(service.manage_vip.as_deref(), Some("eth1"));
    assert_eq!(
        (service.when_all_down, service.on_down),
        (WhenAllDown::KeepSending, OnDown::Reset)
    );
    assert_eq!(service.drain_timeout, Some(300 * SECOND));
    let health = service.health.as_ref().unwrap();
    assert_eq!(
        (health.interval, health.timeout, health.jitter),
        (SECOND * 3 / 2, SECOND, Duration::ZERO)
    );
    let http = HttpProbe {
        path: "/h?x=1".into(),
        host: Some("[2001:db8::1]:80".into()),
        expect_status: vec![200, 204],
    };
    assert_eq!(
        health.probe,
        Probe::Https {
            http,
            ca: "ca.pem".into(),
            server_name: "192.0.2.1".into()
        }
    );
    assert_eq!(
        (service.backends[0].port, service.backends[0].weight),
        (NonZeroU16::new(8080), 0)
    );
    let site = config.site.unwrap();
    assert_eq!((site.http_port, site.hsts), (None, Some(365 * 86_400 * SECOND)));
    assert_eq!(site.servers[0].address.port(), 8443);
    assert_eq!(site.servers[0].scripts.reload.as_deref(), Some("true"));
}

#[test]
fn accepted_though_it_looks_odd() {
    for (purpose, edits) in [
        ("no probes", &[("# health", "type = \"none\"")][..]),
        (
            "one status",
            &[("# health", "type = \"http\"\nexpect_status = 301")],
        ),
        (
            "the timeout follows a short interval",
            &[("# health", "interval = \"20ms\"")],
        ),
        (
            "a chain",
            &[("certificate = \"site.pem\"", "certificate = \"chain.pem\"")],
        ),
        (
            "wildcard names, in any case",
            &[(
                "server_names = [\"www.foobar.com\"]",
                "server_names = [\"*.apps.foobar.com\", \"a.apps.FooBar.com\"]",
            )],
        ),
        (
            "HSTS taken back",
            &[("# site", "redirect_http = false\nhsts = \"0s\"")],
        ),
        (
            "the same VIP on another port",
            &[(
                "# end",
                "[[service]]\nname = \"http\"\nvip = \"203.0.113.10\"\nport = 80",
            )],
        ),
        (
            "an address twice with other ports",
            &[(
                "address = \"198.18.1.3\"",
                "address = \"198.18.1.2\"\nport = 8443",
            )],
        ),
    ] {
        let told = read(&edited(edits)).map_or_else(|told| told, |_| Vec::new());
        assert!(told.is_empty(), "{purpose}: {told:?}");
    }
}

#[test]
fn a_file_without_anything_says_what_to_write() {
    let told = read("").unwrap_err();
    assert_eq!(
        told,
        [
            "lb.toml:1: daemon is missing: write a table headed [daemon] with the interfaces to attach to",
            "lb.toml:1: service is missing: there is nothing to balance; write at least one, headed [[service]], with \
             name, vip and port",
        ]
    );
}

#[test]
fn words_are_printed_as_the_api_prints_them() {
    fn same<T: words::Word + Serialize + ToString>() {
        for (word, value) in T::ALL {
            assert_eq!(value.to_string(), *word);
            assert_eq!(serde_json::to_value(value).unwrap(), *word);
        }
    }
    same::<XdpMode>();
    same::<Protocol>();
    same::<Mode>();
    same::<Scheduler>();
    same::<WhenAllDown>();
    same::<OnDown>();
    same::<TlsVersion>();
}
