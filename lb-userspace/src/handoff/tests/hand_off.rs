//! Hand-offs that go well.

use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{
    self, Files, NAME, Notes, Web, application, detail, free_port, get, hand_over, site, steps,
};
use crate::api::types::SiteApplied;
use crate::config::{Site, TlsVersion};
use crate::handoff::certificate::wanted;
use crate::handoff::drain::DrainOutcome;
use crate::handoff::{render, status, verify};

const ALL: &str = "stage test drain swap reload verify undrain";

fn all_well(applied: &SiteApplied) {
    assert!(applied.ok, "{applied:#?}");
    for server in &applied.servers {
        assert!(server.ok);
        assert_eq!(steps(server), ALL);
    }
}

#[tokio::test]
async fn the_first_one() {
    let (files, web, notes) = (Files::new(), Web::new("web1", free_port()), Notes::new());
    let http_port = free_port();
    let site = Site {
        http_port: NonZeroU16::new(http_port),
        hsts: Some(Duration::from_secs(3600)),
        ..site(&files, &[&web], application().await)
    };
    let before = status(&site).await.unwrap();
    assert!(!before.servers[0].current);
    assert!(
        before.servers[0].error.as_ref().unwrap().contains("refused"),
        "{before:?}"
    );

    all_well(&hand_over(&site, &notes).await);
    assert_eq!(notes.calls(), "drain web1, undrain web1");

    // What is served.
    let after = status(&site).await.unwrap();
    assert_eq!(after.wanted.names, [NAME]);
    assert!(after.wanted.expires_in_seconds > 0);
    assert!(after.servers[0].current);
    assert_eq!(
        after.servers[0].served.as_ref().unwrap().fingerprint,
        after.wanted.fingerprint
    );
    let (name, address) = (format!("{NAME}:{}", site.https_port), web.server.address);
    let response = rig::connect(address)
        .await
        .send_request(get(
            &name,
            &[("upgrade", "h2c"), ("x-forwarded-for", "192.0.2.1")],
        ))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["strict-transport-security"], "max-age=3600");
    let seen = rig::text(response).await;
    assert_eq!(
        seen,
        format!(
            "GET /path?query\nhost: {name}\nx-real-ip: 127.0.0.1\nx-forwarded-for: 127.0.0.1\n\
             x-forwarded-proto: https\n"
        )
    );
    let upgrade = [("upgrade", "WebSocket"), ("connection", "Upgrade")];
    let response = rig::connect(address)
        .await
        .send_request(get(&name, &upgrade))
        .await
        .unwrap();
    let seen = rig::text(response).await;
    assert!(
        seen.contains("upgrade: websocket") && seen.contains("connection: upgrade"),
        "{seen}"
    );
    // What is not.
    assert!(
        verify::leaf(address, "other.example")
            .await
            .unwrap_err()
            .contains("UnrecognisedName")
    );
    let response = rig::connect(address)
        .await
        .send_request(get("other.example", &[]))
        .await
        .unwrap();
    assert_eq!(response.status(), 421);
    // HTTP leads to HTTPS.
    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", http_port))
        .await
        .unwrap();
    let request = format!("GET /a?b HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    plain.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    assert!(
        answer.contains(&format!("Location: https://{name}/a?b\r\n")),
        "{answer}"
    );

    // What lies on the web server.
    let current = web.directory().join(web.link("current").unwrap());
    assert_eq!(web.link("previous"), None);
    let rendered = render(&site).unwrap();
    assert_eq!(
        std::fs::read_to_string(current.join("site.conf")).unwrap(),
        rendered.servers[0].nginx_conf
    );
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&current), 0o700);
    assert_eq!(mode(&current.join("key.pem")), 0o600);
}

#[tokio::test]
async fn a_new_certificate_is_served_and_the_old_release_kept() {
    let (files, web, notes) = (Files::new(), Web::new("web1", free_port()), Notes::new());
    let site = site(&files, &[&web], application().await);
    let mut releases = Vec::new();
    for _ in 0..3 {
        files.renew();
        all_well(&hand_over(&site, &notes).await);
        assert_eq!(web.served().await, Some(wanted(&site).unwrap().fingerprint));
        assert_eq!(web.link("previous"), releases.last().cloned());
        releases.push(web.link("current").unwrap());
    }
    let mut kept = releases.split_off(1);
    kept.sort();
    assert_eq!(web.releases(), kept);

    // The same again changes nothing, and mends what somebody changed.
    let links = (web.link("current"), web.link("previous"));
    let conf = web.directory().join("current/site.conf");
    std::fs::write(&conf, "broken").unwrap();
    all_well(&hand_over(&site, &notes).await);
    assert_eq!(links, (web.link("current"), web.link("previous")));
    assert_eq!(web.releases(), kept);
    assert_ne!(std::fs::read_to_string(&conf).unwrap(), "broken");
}

#[tokio::test]
async fn tls_versions_are_those_of_the_site() {
    let (files, web) = (Files::new(), Web::new("web1", free_port()));
    let site = site(&files, &[&web], application().await);
    let shakes_hands = async |option: &str| {
        let output = tokio::process::Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &web.server.address.to_string(),
                "-servername",
                NAME,
                option,
            ])
            .stdin(std::process::Stdio::null())
            .output();
        output.await.unwrap().status.success()
    };
    for (version, expected) in [
        (TlsVersion::V1_2, (true, false)),
        (TlsVersion::V1_3, (false, true)),
    ] {
        let site = Site {
            tls_versions: vec![version],
            ..site.clone()
        };
        all_well(&hand_over(&site, &Notes::new()).await);
        assert_eq!(
            (shakes_hands("-tls1_2").await, shakes_hands("-tls1_3").await),
            expected,
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn connections_that_do_not_end_are_left_to_nginx() {
    let (files, web) = (Files::new(), Web::new("web1", free_port()));
    let site = Site {
        drain_timeout: Duration::from_millis(300),
        ..site(&files, &[&web], application().await)
    };
    let applied = hand_over(
        &site,
        &Notes {
            left: 2,
            ..Notes::new()
        },
    )
    .await;
    all_well(&applied);
    assert_eq!(
        detail(&applied.servers[0], "drain"),
        "2 connections left after 300ms; nginx reloads gracefully"
    );
}

#[tokio::test]
async fn the_public_function_can_be_spawned() {
    let (files, web, notes) = (Files::new(), Web::new("web1", free_port()), Notes::new());
    let site = site(&files, &[&web], application().await);
    let applied =
        tokio::spawn(async move { crate::handoff::apply(&site, &notes, &crate::handoff::Hands::Own).await })
            .await
            .unwrap();
    all_well(&applied);
}

#[tokio::test]
async fn a_server_that_cannot_be_drained_is_done_all_the_same() {
    let (files, web) = (Files::new(), Web::new("web1", free_port()));
    let site = site(&files, &[&web], application().await);
    for (outcome, said) in [
        (
            DrainOutcome::LastOne {
                service: "www".to_owned(),
            },
            "no other backend of service www",
        ),
        (DrainOutcome::NoBackend, "no backend is named web1"),
        (DrainOutcome::AlreadyDrained, "anyway; no connections left"),
    ] {
        let notes = Notes {
            outcome: Ok(outcome),
            ..Notes::new()
        };
        let applied = hand_over(&site, &notes).await;
        assert!(applied.ok, "{applied:#?}");
        assert_eq!(steps(&applied.servers[0]), "stage test drain swap reload verify");
        assert!(detail(&applied.servers[0], "drain").contains(said));
        assert_eq!(notes.calls(), "drain web1");
    }
}

#[tokio::test]
async fn a_hand_off_waits_for_other_backends_to_come_up_again() {
    let (files, web) = (Files::new(), Web::new("web1", free_port()));
    let mut site = site(&files, &[&web], application().await);
    let notes = Notes {
        others_down: 2,
        ..Notes::new()
    };
    all_well(&hand_over(&site, &notes).await);
    assert_eq!(notes.calls(), "drain web1, drain web1, drain web1, undrain web1");

    site.drain_timeout = Duration::from_millis(300);
    let notes = Notes {
        others_down: usize::MAX,
        ..Notes::new()
    };
    let applied = hand_over(&site, &notes).await;
    assert!(applied.ok, "{applied:#?}");
    let said = detail(&applied.servers[0], "drain");
    assert!(
        said.contains("backends of service www are down, for 300ms"),
        "{said}"
    );
    assert!(!notes.calls().contains("undrain"), "{}", notes.calls());
}

#[tokio::test]
async fn scripts_of_the_configuration_replace_the_ready_made_ones() {
    let (files, mut web) = (Files::new(), Web::new("web1", free_port()));
    let log = web.directory().with_file_name("log");
    web.server.scripts.test = Some(format!(
        "printf '%s|' \"$LB_DIRECTORY\" \"$LB_RELEASE\" \"$LB_NGINX\" >\"{}\"",
        log.display()
    ));
    let site = site(&files, &[&web], application().await);
    all_well(&hand_over(&site, &Notes::new()).await);
    let release = web.link("current").unwrap().replace("releases/", "");
    let expected = format!("{}|{release}|{}|", web.server.directory, web.server.nginx);
    assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
}
