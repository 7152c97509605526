//! The API over a real socket, and clients that mean no good.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lb::api::Refusal;
use lb::api::client::{Client, ClientError};
use lb::api::types::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::fake::{Running, plan};

/// Sends bytes as they are and returns everything that comes back.
async fn raw(running: &Running, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(&running.socket).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and the error of an answer, which must have the API's shape.
fn refused(answer: &str) -> (u16, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no body: {answer:?}"));
    assert!(
        head.to_lowercase().contains("content-type: application/json"),
        "{head}"
    );
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let error: Error = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    (status, error.error)
}

#[tokio::test]
async fn every_call_comes_through() {
    let running = Running::start();
    let lbd = Client::new(&running.socket);
    assert_eq!(lbd.status().await.unwrap().pid, 4242);
    assert_eq!(lbd.services().await.unwrap().len(), 2);
    assert_eq!(lbd.service("api").await.unwrap().backends.len(), 1);
    assert_eq!(lbd.backends().await.unwrap().len(), 3);
    let backend = lb::config::Backend {
        name: "web3".to_owned(),
        address: "198.18.1.4".parse().unwrap(),
        port: None,
        weight: 2,
        backup: false,
    };
    let added = lbd
        .add_backend(&AddBackend {
            service: "www".to_owned(),
            backend,
            dry_run: false,
        })
        .await
        .unwrap();
    assert_eq!(added.messages, ["www/web3: added, weight 2"]);
    let change = |change| ChangeBackend {
        service: None,
        name: "web1".to_owned(),
        change,
        dry_run: false,
    };
    assert_eq!(
        lbd.change_backend(&change(BackendChange::Drain {
            deadline_seconds: None
        }))
        .await
        .unwrap()
        .backends
        .len(),
        2
    );
    lbd.change_backend(&change(BackendChange::Weight(None)))
        .await
        .unwrap();
    let filter = ConnectionFilter {
        service: Some("a b&c=d".to_owned()),
        client: Some("2001:db8::7".parse().unwrap()),
        limit: Some(7),
        ..ConnectionFilter::default()
    };
    assert_eq!(lbd.connections(&filter).await.unwrap().total, 12_345);
    assert_eq!(lbd.counters().await.unwrap().outcomes.len(), 3);
    assert_eq!(lbd.reload().await.unwrap().changes.len(), 4);
    let text = Text {
        name: "new.toml".to_owned(),
        toml: "# \"é\"\n".to_owned(),
    };
    let request = PlanRequest {
        text: Some(text.clone()),
        force: true,
    };
    assert_eq!(lbd.plan(&request).await.unwrap(), plan(), "the very value");
    let request = ApplyRequest {
        text,
        confirm_seconds: Some(60),
        force: false,
    };
    assert_eq!(
        lbd.apply(&request)
            .await
            .unwrap()
            .unconfirmed
            .unwrap()
            .seconds_left,
        60
    );
    assert_eq!(lbd.confirm().await.unwrap().file, "/etc/lb/lb.toml");
    assert_eq!(lbd.rollback().await.unwrap().plan, plan());
    assert_eq!(lbd.site_render().await.unwrap().servers.len(), 2);
    assert!(lbd.site_apply().await.unwrap().ok);
    assert_eq!(lbd.site_status().await.unwrap().servers.len(), 3);

    let expected = [
        "status",
        "services",
        "services",
        "backends",
        r#"{"service":"www","backend":{"name":"web3","address":"198.18.1.4","port":null,"weight":2,"backup":false},"dry_run":false}"#,
        r#"{"service":null,"name":"web1","change":{"drain":{"deadline_seconds":null}},"dry_run":false}"#,
        r#"{"service":null,"name":"web1","change":{"weight":null},"dry_run":false}"#,
        r#"connections {"service":"a b&c=d","backend":null,"client":"2001:db8::7","state":null,"limit":7}"#,
        "counters",
        "reload",
        r##"plan {"text":{"name":"new.toml","toml":"# \"é\"\n"},"force":true}"##,
        r##"apply {"text":{"name":"new.toml","toml":"# \"é\"\n"},"confirm_seconds":60,"force":false}"##,
        "confirm",
        "rollback",
        "site render",
        "site apply",
        "site status",
    ];
    assert_eq!(running.fake.calls(), expected);
}

#[tokio::test]
async fn refusals_keep_their_status_and_words() {
    let running = Running::start();
    let lbd = Client::new(&running.socket);
    let cases = [
        (Refusal::Invalid("a".to_owned()), 400, "a"),
        (Refusal::Unknown("b".to_owned()), 404, "b"),
        (Refusal::Conflict("c".to_owned()), 409, "c"),
        (Refusal::Configuration("d".to_owned()), 422, "d"),
        (Refusal::Failed("e \"ü\"\n".to_owned()), 500, "e \"ü\"\n"),
    ];
    for (refusal, code, words) in cases {
        running.fake.state().refusal = Some(refusal);
        match lbd.reload().await {
            Err(ClientError::Refused { status, message }) => {
                assert_eq!((status.as_u16(), &*message), (code, words));
            }
            other => panic!("{other:?}"),
        }
    }
    let unknown = lbd.service("ww/w ü").await.unwrap_err().to_string();
    assert_eq!(unknown, "there is no service \"ww/w ü\"; services: www, api");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_the_same_shape() {
    let running = Running::start();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: lbd\r\n\r\n");
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: lbd\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let large = "x".repeat(65 * 1024);
    let cases = [
        (get("/"), 404, "there is no /"),
        (get("/v2/status"), 404, "there is no /v2/status"),
        (get("/v1/services/nope"), 404, "no service \"nope\""),
        (get("/v1/services/%ff"), 400, ""),
        (get("/v1/reload"), 405, "does not take GET"),
        (post("/v1/status", ""), 405, "does not take POST"),
        (get("/v1/connections?limit=many"), 400, "limit"),
        (get("/v1/connections?limit=-1"), 400, "limit"),
        (get("/v1/connections?client=web1"), 400, "client"),
        (get("/v1/connections?servcie=www"), 400, "servcie"),
        (post("/v1/backends/change", ""), 400, "EOF"),
        (post("/v1/backends/change", "{\"name\":"), 400, "EOF"),
        (post("/v1/backends/change", "{}"), 400, "missing field"),
        (
            post("/v1/backends/change", r#"{"name":"web1","change":"explode"}"#),
            400,
            "unknown variant `explode`",
        ),
        (
            post(
                "/v1/backends/change",
                r#"{"name":"web1","change":"undrain","servcie":"www"}"#,
            ),
            400,
            "servcie",
        ),
        (
            post("/v1/backends/change", r#"{"name":"web1","change":{"weight":-1}}"#),
            400,
            "-1",
        ),
        (
            post("/v1/backends/change", &"[".repeat(10_000)),
            400,
            "the JSON that is wanted",
        ),
        (post("/v1/backends", &large), 400, "at most 65536 bytes"),
        (
            post(
                "/v1/backends",
                r#"{"service":"www","backend":{"name":"web3","address":"198.18.1.4","port":0,"weight":1}}"#,
            ),
            400,
            "nonzero",
        ),
    ];
    for (request, status, words) in cases {
        let (got, message) = refused(&raw(&running, request.as_bytes()).await);
        let request: String = request.chars().take(200).collect();
        assert_eq!(got, status, "{request}: {message}");
        assert!(message.contains(words), "{request}: {message}");
    }
    let asked: Vec<_> = running
        .fake
        .calls()
        .into_iter()
        .filter(|call| call != "services")
        .collect();
    assert!(asked.is_empty(), "none of these may reach the daemon: {asked:?}");
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let running = Running::start();
    let endless_header = format!("GET /v1/status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let garbage: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"POST /v1/backends HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/backends HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        endless_header.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(&running.socket).await.unwrap();
        // The server may hang up before it has all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(Client::new(&running.socket).status().await.unwrap().pid, 4242);
    }
}

#[tokio::test]
async fn half_a_request_is_given_up() {
    let running = Running::start();
    let halves: [&[u8]; 4] = [
        b"",
        b"GET /v1/sta",
        b"GET /v1/status HTTP/1.1\r\nHost: l",
        b"POST /v1/backends/change HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"name\":",
    ];
    let started = Instant::now();
    let answers = halves.map(|half| raw(&running, half));
    let answers = futures_util::future::join_all(answers).await;
    let took = started.elapsed();
    assert!((4..10).contains(&took.as_secs()), "{took:?}");
    let (status, message) = refused(&answers[3]);
    assert_eq!(
        (status, message.contains("did not arrive")),
        (408, true),
        "{message}"
    );
    assert!(running.fake.calls().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    let running = Running::start();
    let mut stream = UnixStream::connect(&running.socket).await.unwrap();
    stream
        .write_all(b"GET /v1/connections?limit=50000 HTTP/1.1\r\nHost: lbd\r\n\r\n")
        .await
        .unwrap();
    stream.readable().await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    assert!(
        answer.len() < 50_000 * 50,
        "all of it came: {} bytes",
        answer.len()
    );
}

#[tokio::test]
async fn half_requests_on_every_slot_delay_others_but_do_not_stop_them() {
    let running = Running::start();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(UnixStream::connect(&running.socket).await.unwrap());
    }
    let started = Instant::now();
    assert_eq!(Client::new(&running.socket).status().await.unwrap().pid, 4242);
    let took = started.elapsed();
    assert!(
        (3..10).contains(&took.as_secs()),
        "all slots were taken for 5 s, this took {took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_at_once() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Both ends of each connection are in this process.
    let (_, most_files) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most_files, most_files).unwrap();

    let running = Running::start();
    running.fake.state().delay = Duration::from_millis(5);
    let asking: Vec<_> = (0..1000)
        .map(|_| {
            let lbd = Client::new(&running.socket);
            tokio::spawn(async move { lbd.status().await })
        })
        .collect();
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(answer.unwrap().unwrap().pid, 4242);
    }
    assert_eq!(running.fake.calls().len(), 1000);
    let most = running.fake.most.load(Ordering::SeqCst);
    assert!((2..=64).contains(&most), "{most} calls at once");
}

#[tokio::test]
async fn a_call_is_seen_through_when_its_client_goes_away() {
    let running = Running::start();
    running.fake.state().delay = Duration::from_millis(300);
    let mut stream = UnixStream::connect(&running.socket).await.unwrap();
    stream
        .write_all(b"POST /v1/site/apply HTTP/1.1\r\nHost: lbd\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        running.fake.now.load(Ordering::SeqCst),
        1,
        "the test needs a call under way"
    );
    drop(stream);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(running.fake.calls(), ["site apply"]);
}

#[tokio::test]
async fn a_shutdown_lets_answers_out_and_does_not_wait_for_the_idle() {
    let mut running = Running::start();
    running.fake.state().delay = Duration::from_millis(500);
    let lbd = Client::new(&running.socket);
    let asked = tokio::spawn(async move { lbd.status().await });
    let idle = UnixStream::connect(&running.socket).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    running.stop();
    (&mut running.server).await.unwrap();
    assert_eq!(
        running.fake.calls(),
        ["status"],
        "it waits for a request under way"
    );
    assert_eq!(asked.await.unwrap().unwrap().pid, 4242);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    drop(idle);
    let error = Client::new(&running.socket).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
}
