//! The monitor against real backends. Waits are long, so that a busy machine fails no test; the bound on detection is
//! checked on a paused clock in `schedule`, and here once in real time.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::super::probe::testing::*;
use super::*;
use crate::config::{HealthCheck, HttpProbe};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

fn check(probe: config::Probe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(10),
        jitter: Duration::from_millis(5),
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn http() -> HttpProbe {
    HttpProbe {
        path: "/".to_owned(),
        host: None,
        expect_status: vec![200],
    }
}

fn id(backend: &str) -> TargetId {
    TargetId {
        service: "www".to_owned(),
        backend: backend.to_owned(),
    }
}

fn target(backend: &str, address: SocketAddr, check: HealthCheck) -> Target {
    Target {
        id: id(backend),
        address,
        check,
    }
}

fn monitor() -> (Monitor, UnboundedReceiver<Event>) {
    let (events, received) = unbounded_channel();
    (Monitor::new(events), received)
}

async fn next(events: &mut UnboundedReceiver<Event>) -> Event {
    timeout(LONG, events.recv())
        .await
        .expect("an event in time")
        .expect("a monitor")
}

async fn no_event(events: &mut UnboundedReceiver<Event>) {
    let surprise = timeout(Duration::from_millis(500), events.recv()).await;
    assert!(surprise.is_err(), "{surprise:?}");
}

fn set(backend: &Backend, text: &str) {
    *backend.answer.lock().expect("lock") = Answer::text(text);
}

#[tokio::test]
async fn tells_of_every_change() {
    let (mut monitor, mut events) = monitor();
    let backend = serve(Answer::text(OK)).await;
    monitor.set_targets(vec![target(
        "web1",
        backend.address,
        check(config::Probe::Http(http())),
    )]);
    assert_eq!(
        monitor.health(&id("web1")).expect("known").status,
        Status::Checking
    );
    assert_eq!(monitor.health(&id("web2")), None);

    let up = next(&mut events).await;
    assert_eq!((up.id, up.health.status), (id("web1"), Status::Up));
    assert!(
        up.health.reason.starts_with("HTTP 200 in "),
        "{}",
        up.health.reason
    );

    set(&backend, UNAVAILABLE);
    let down = next(&mut events).await;
    assert_eq!(
        (down.health.status, &*down.health.reason),
        (Status::Down, "HTTP 503, expected 200")
    );
    assert_eq!(monitor.health(&id("web1")), Some(down.health));

    set(&backend, OK);
    assert_eq!(next(&mut events).await.health.status, Status::Up);
    no_event(&mut events).await;
}

#[tokio::test]
async fn a_new_backend_that_never_answers_is_down() {
    let (mut monitor, mut events) = monitor();
    monitor.set_targets(vec![target("web1", refusing().await, check(config::Probe::Tcp))]);
    let event = next(&mut events).await;
    assert_eq!(
        (event.health.status, &*event.health.reason),
        (Status::Down, "connection refused")
    );
}

#[tokio::test]
async fn detection_keeps_the_bound_in_real_time() {
    let (mut monitor, mut events) = monitor();
    let backend = serve(Answer::text(OK)).await;
    let check = HealthCheck {
        interval: Duration::from_millis(400),
        timeout: Duration::from_millis(200),
        jitter: Duration::from_millis(100),
        ..check(config::Probe::Http(http()))
    };
    monitor.set_targets(vec![target("web1", backend.address, check)]);
    while next(&mut events).await.health.status != Status::Up {}
    let begin = Instant::now();
    *backend.answer.lock().expect("lock") = Answer::Hang;
    let down = next(&mut events).await;
    let took = begin.elapsed();
    assert_eq!(
        down.health.reason,
        "timed out after 200ms (waiting for the response)"
    );
    // 3 × (400 + 100) + 200 ms, and as much again for a busy machine.
    assert!(took < Duration::from_millis(1700 * 2), "{took:?}");
    // Not a single failure: two intervals must have passed, and a timeout.
    assert!(took > Duration::from_millis(2 * 400), "{took:?}");
}

#[tokio::test]
async fn the_check_may_have_a_port_of_its_own() {
    let (mut monitor, mut events) = monitor();
    let backend = serve(Answer::text(OK)).await;
    let check = HealthCheck {
        port: std::num::NonZeroU16::new(backend.address.port()),
        ..check(config::Probe::Http(http()))
    };
    monitor.set_targets(vec![target("web1", refusing().await, check)]);
    assert_eq!(next(&mut events).await.health.status, Status::Up);
}

#[tokio::test]
async fn a_changed_check_keeps_the_status_and_applies_at_once() {
    let (mut monitor, mut events) = monitor();
    let backend = serve(Answer::text(UNAVAILABLE)).await;
    let slow = HealthCheck {
        interval: Duration::from_secs(3600),
        ..check(config::Probe::Tcp)
    };
    monitor.set_targets(vec![target("web1", backend.address, slow.clone())]);
    let up = next(&mut events).await.health;
    assert_eq!(up.status, Status::Up);

    // The same again: nothing is restarted, and the next probe is an hour away.
    let probes = async |monitor: &Monitor| {
        sleep(Duration::from_millis(300)).await;
        monitor.health(&id("web1")).expect("known")
    };
    monitor.set_targets(vec![target("web1", backend.address, slow)]);
    assert_eq!(probes(&monitor).await, up);

    // Other rules: still up and since then, until those rules say otherwise.
    monitor.set_targets(vec![target(
        "web1",
        backend.address,
        check(config::Probe::Http(http())),
    )]);
    let kept = monitor.health(&id("web1")).expect("known");
    assert_eq!((kept.status, kept.since), (Status::Up, up.since));
    assert_eq!(next(&mut events).await.health.status, Status::Down);
}

#[tokio::test]
async fn another_address_is_another_backend() {
    let (mut monitor, mut events) = monitor();
    let (first, second) = (serve(Answer::text(OK)).await, serve(Answer::text(OK)).await);
    let check = check(config::Probe::Http(http()));
    monitor.set_targets(vec![target("web1", first.address, check.clone())]);
    assert_eq!(next(&mut events).await.health.status, Status::Up);
    monitor.set_targets(vec![target("web1", second.address, check)]);
    assert_eq!(
        monitor.health(&id("web1")).expect("known").status,
        Status::Checking
    );
    assert_eq!(next(&mut events).await.health.status, Status::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_that_is_gone_is_silent() {
    let (mut monitor, mut events) = monitor();
    let check = HealthCheck {
        interval: Duration::from_millis(1),
        jitter: Duration::ZERO,
        fall: 1,
        ..check(config::Probe::Tcp)
    };
    let targets: Vec<_> = (0..20)
        .map(|number| (format!("web{number}"), check.clone()))
        .collect();
    let address = refusing().await;
    for _ in 0..50 {
        monitor.set_targets(
            targets
                .iter()
                .map(|(name, check)| target(name, address, check.clone()))
                .collect(),
        );
        // Some probes have ended by now, some are ending, on other threads.
        sleep(Duration::from_micros(fastrand::u64(0..3000))).await;
        monitor.set_targets(Vec::new());
        while events.try_recv().is_ok() {}
        sleep(Duration::from_millis(2)).await;
        assert!(events.try_recv().is_err());
    }
}

#[tokio::test]
async fn dropping_the_monitor_ends_its_tasks() {
    let (mut monitor, mut events) = monitor();
    let mut backend = serve(Answer::text(OK)).await;
    monitor.set_targets(vec![target(
        "web1",
        backend.address,
        check(config::Probe::Http(http())),
    )]);
    next(&mut events).await;
    drop(monitor);
    assert!(
        timeout(LONG, events.recv())
            .await
            .expect("the tasks' senders are gone")
            .is_none()
    );
    while backend.requests.try_recv().is_ok() {}
    sleep(Duration::from_millis(300)).await;
    assert!(backend.requests.try_recv().is_err(), "nobody probes any more");
}

#[tokio::test]
async fn the_ca_file_is_read_again_with_the_targets() {
    let (mut monitor, mut events) = monitor();
    let authority = Authority::new();
    let backend = serve_tls(Answer::text(OK), &authority.issue("www.foobar.com", 2020..2099)).await;
    let directory = tempfile::tempdir().expect("directory");
    let ca = directory.path().join("ca.pem");
    let probe = config::Probe::Https {
        http: http(),
        ca: ca.clone(),
        server_name: "www.foobar.com".to_owned(),
    };
    let targets = vec![target("web1", backend.address, check(probe))];

    monitor.set_targets(targets.clone());
    let down = next(&mut events).await.health;
    assert_eq!(down.status, Status::Down);
    assert!(
        down.reason
            .starts_with(&format!("CA file {}: No such file", ca.display())),
        "{}",
        down.reason
    );

    std::fs::write(&ca, authority.pem()).expect("write");
    monitor.set_targets(targets.clone());
    assert_eq!(next(&mut events).await.health.status, Status::Up);

    std::fs::write(&ca, Authority::named("Stranger").pem()).expect("write");
    monitor.set_targets(targets);
    let down = next(&mut events).await.health;
    assert_eq!(
        (down.status, &*down.reason),
        (
            Status::Down,
            "certificate: not signed by an authority in the CA file"
        )
    );
}
