//! Every command as a real process: what it prints, where, and how it ends.

mod doctor;
mod failures;
mod terminal;
mod trace;
mod why;

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use lb::api::types::BackendState;
use lb::config::WhenAllDown;
use serde_json::Value;
use tokio::process::Command;

use crate::fake::{Running, dns, mail, plan, status};

/// How a process ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(socket: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command
        .arg("--socket")
        .arg(socket)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null());
    command
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .kill_on_drop(true);
    command
}

async fn at(socket: &Path, arguments: &str) -> Ended {
    let output = command(socket, arguments).output().await.unwrap();
    Ended {
        code: output.status.code().expect("killed by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Running {
    async fn lbctl(&self, arguments: &str) -> Ended {
        at(&self.socket, arguments).await
    }

    /// Runs a command that must succeed quietly, and returns what it printed.
    async fn page(&self, arguments: &str) -> String {
        let ended = self.lbctl(arguments).await;
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{arguments}: {ended:?}");
        ended.stdout
    }

    async fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.page(&format!("--json {arguments}")).await).unwrap()
    }

    fn last_call(&self) -> String {
        self.fake.calls().pop().unwrap_or_default()
    }
}

const STATUS: &str = "\
lbd 0.1.0, process 4242, up 3d 4h, configuration /etc/lb/lb.toml
interfaces   eth0 native, eth1 generic
connections  12,000 of 1,000,000 (1.2 %), 345 of 125,000 (0.3 %) over IPv6 or to several ports, 24.0 MiB of memory

www  203.0.113.10:443/tcp, nat, round-robin: 1 of 2 backends
  6 connections, 2,469,134 opened, 0 B in, 0 B out
  BACKEND  ADDRESS         STATE     WEIGHT  CONNECTIONS     OPENED  HEALTH                          CHANGED BY HAND
  web1     198.18.1.2:443  up             1            3  1,234,567  up for 3h 4m: HTTP 200 in 3 ms
  web2     198.18.1.3:443  disabled       1            3  1,234,567  up for 3h 3m: HTTP 200 in 3 ms  disable, weight 3 (file: 1)

api  [2001:db8::10]:443/tcp, nat, round-robin: NO BACKEND, new connections are refused
  6 connections, 2,469,134 opened, 0 B in, 0 B out
  BACKEND  ADDRESS         STATE  WEIGHT  CONNECTIONS     OPENED  HEALTH
  web1     198.18.1.2:443  down        1            3  1,234,567  down for 12s: HTTP 500 \"\u{fffd}[2J\"\u{fffd}next

warnings
  eth1: its driver has no native XDP
";

#[tokio::test]
async fn status_page() {
    let running = Running::start();
    assert_eq!(running.page("status").await, STATUS);
    let expected = serde_json::to_value(status()).unwrap();
    assert_eq!(
        running.json("status").await,
        expected,
        "--json is the API's type as it is"
    );
}

#[tokio::test]
async fn what_is_not_as_in_most_services() {
    let running = Running::start();
    running.fake.state().status.services = vec![mail(), dns()];
    running.fake.state().status.wide_connections = 0;
    let expected = "\
mail  [2001:db8::25]:25/tcp, full-nat from 2001:db8:1::1 ports 1024-9999, least-connections, slow start 1m 0s: 1 of 1 \
backends, 1 standing by
  6 connections, 2,469,134 opened, 0 B in, 0 B out
  BACKEND  ADDRESS               STATE        WEIGHT  CONNECTIONS     OPENED  HEALTH
  mx1      [2001:db8:1::2]:2525  up, at 30 %       1            3  1,234,567  up for 3h 4m: HTTP 200 in 3 ms
  mx2      [2001:db8:1::3]:2525  up, backup        1            3  1,234,567  up for 3h 3m: HTTP 200 in 3 ms

dns  203.0.113.53:5300-5399/udp, nat, maglev, stateless, pings left to the kernel: 1 of 1 backends
  6 connections, 2,469,134 opened, 0 B in, 0 B out
  BACKEND  ADDRESS     STATE  WEIGHT  CONNECTIONS     OPENED  HEALTH
  ns1      198.18.1.5  up          1            3  1,234,567  up for 3h 4m: HTTP 200 in 3 ms
";
    let page = running.page("status").await;
    assert!(page.contains(expected), "{page}");
    assert!(
        page.contains("\nconnections  12,345 of 1,000,000 (1.2 %), 24.0 MiB"),
        "{page}"
    );
    let list = running.page("backend list").await;
    assert!(
        list.contains("\nmail/mx2  [2001:db8:1::3]:2525  up, backup ")
            && list.contains("\ndns/ns1   198.18.1.5 "),
        "{list}"
    );
    let json = running.json("service list").await;
    assert_eq!(json[0]["ports"], 25);
    assert_eq!(json[0]["source_ports"]["end"], 9999);
    assert_eq!(json[1]["ports"]["start"], 5300);
    assert_eq!(json[1]["backends"][0]["port"], Value::Null);

    // The first has failed, and the backup is in use.
    let [mut failed, mut dropping] = [mail(), dns()];
    failed.backends[0].state = BackendState::Down;
    failed.backends[0].eligible = false;
    failed.backends[1].eligible = true;
    dropping.backends[0].eligible = false;
    dropping.when_all_down = WhenAllDown::Drop;
    running.fake.state().status.services = vec![failed, dropping];
    let page = running.page("service show mail").await;
    assert!(page.contains(": 1 of 2 backends, backups in use\n"), "{page}");
    let page = running.page("service show dns").await;
    assert!(
        page.contains(": NO BACKEND, new connections are dropped\n"),
        "{page}"
    );
}

#[tokio::test]
async fn services() {
    let running = Running::start();
    let list = running.page("service list").await;
    assert!(
        list.contains(
            "\nwww      203.0.113.10:443/tcp    nat   round-robin  1 of 2              6  2,469,134"
        ),
        "{list}"
    );
    let show = running.page("service show api").await;
    assert!(STATUS.contains(&show), "the same as on the status page: {show}");
    assert_eq!(running.json("service list").await.as_array().unwrap().len(), 2);
    assert_eq!(running.json("service show www").await["vip"], "203.0.113.10");

    let unknown = running.lbctl("service show nope").await;
    assert_eq!((unknown.code, &*unknown.stdout), (4, ""));
    assert_eq!(
        unknown.stderr,
        "lbctl: there is no service \"nope\"; services: www, api\n"
    );
}

#[tokio::test]
async fn backend_list() {
    let running = Running::start();
    let all = running.page("backend list").await;
    assert_eq!(all.lines().count(), 4, "{all}");
    assert!(
        all.contains("2.0 TiB") && all.contains("02:00:00:00:00:01 eth1"),
        "{all}"
    );
    let some = running.page("backend list --service api").await;
    assert_eq!(some.lines().count(), 2, "{some}");
    assert!(some.contains("api/web1"), "{some}");
    let traffic = &running.json("backend list").await[0]["traffic"];
    assert_eq!(traffic["bytes_in"], 1_u64 << 41, "exact");
    assert_eq!(running.lbctl("backend list --service nope").await.code, 4);
}

#[tokio::test]
async fn backend_changes() {
    let running = Running::start();
    let change = |service: &str, change: &str| {
        format!(r#"{{"service":{service},"name":"web1","change":{change},"dry_run":false}}"#)
    };
    let cases = [
        (
            "drain web1",
            change("null", r#"{"drain":{"deadline_seconds":null}}"#),
            "www/web1: Drain { deadline_seconds: None }\napi/web1: Drain { deadline_seconds: None }\n",
        ),
        (
            "drain www/web1",
            change("\"www\"", r#"{"drain":{"deadline_seconds":null}}"#),
            "www/web1: Drain { deadline_seconds: None }\n",
        ),
        (
            "drain www/web1 --deadline 5m",
            change("\"www\"", r#"{"drain":{"deadline_seconds":300}}"#),
            "www/web1: Drain { deadline_seconds: Some(300) }\n",
        ),
        (
            "undrain api/web1",
            change("\"api\"", "\"undrain\""),
            "api/web1: Undrain\n",
        ),
        (
            "disable www/web1",
            change("\"www\"", "\"disable\""),
            "www/web1: Disable\n",
        ),
        (
            "enable www/web1",
            change("\"www\"", "\"enable\""),
            "www/web1: Enable\n",
        ),
        (
            "remove www/web1",
            change("\"www\"", r#"{"remove":{"force":false}}"#),
            "www/web1: Remove { force: false }\n",
        ),
        (
            "remove www/web1 --force",
            change("\"www\"", r#"{"remove":{"force":true}}"#),
            "www/web1: Remove { force: true }\n",
        ),
        (
            "weight www/web1 0",
            change("\"www\"", "{\"weight\":0}"),
            "www/web1: Weight(Some(0))\n",
        ),
        (
            "weight www/web1 256",
            change("\"www\"", "{\"weight\":256}"),
            "www/web1: Weight(Some(256))\n",
        ),
        (
            "weight www/web1 --reset",
            change("\"www\"", "{\"weight\":null}"),
            "www/web1: Weight(None)\n",
        ),
    ];
    for (typed, call, printed) in cases {
        assert_eq!(running.page(&format!("backend {typed}")).await, printed);
        assert_eq!(running.last_call(), call);
    }
    let changed = running.json("backend drain www/web1").await;
    assert_eq!(changed["backends"][0]["state"], "draining");

    let added = running
        .page("backend add www/web3 [2001:db8::4]:443 --weight 2")
        .await;
    assert_eq!(added, "www/web3: added, weight 2\n");
    assert_eq!(
        running.last_call(),
        r#"{"service":"www","backend":{"name":"web3","address":"2001:db8::4","port":443,"weight":2,"backup":false},"dry_run":false}"#
    );
    running.page("backend add www/web4 198.18.1.5 --backup").await;
    assert_eq!(
        running.last_call(),
        r#"{"service":"www","backend":{"name":"web4","address":"198.18.1.5","port":null,"weight":1,"backup":true},"dry_run":false}"#
    );
}

#[tokio::test]
async fn drain_waits_until_the_last_connection_has_ended() {
    let running = Running::start();
    let printed = running.page("backend drain www/web1 --wait").await;
    let expected = "\
draining: www/web1 3 connections
draining: www/web1 2 connections
draining: www/web1 1 connection
draining: www/web1 0 connections
drained: no connections left, 3 ended by themselves
";
    assert_eq!(printed, expected);
    let changed = running.json("backend drain web1 --wait").await;
    let left: Vec<_> = changed["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| &b["traffic"]["connections"])
        .collect();
    assert_eq!(left, [0, 0]);
    assert_eq!(
        (&changed["began_with"], &changed["ended"]),
        (&Value::from(3), &Value::from(3))
    );
    assert_eq!(
        (&changed["left"], &changed["left_at_deadline"]),
        (&Value::from(0), &Value::Null)
    );
}

#[tokio::test]
async fn drain_gives_up_and_says_what_is_left() {
    let running = Running::start();
    running.fake.state().ending = 0;
    for json in ["", "--json "] {
        let started = Instant::now();
        let ended = running
            .lbctl(&format!("{json}backend drain web1 --wait --timeout 700ms"))
            .await;
        assert_eq!(ended.code, 6, "{ended:?}");
        assert!((700..3000).contains(&started.elapsed().as_millis()));
        assert!(
            ended
                .stderr
                .contains("gave up after 700ms: 6 connections left, which still may end, 0 ended by themselves; the drain goes on"),
            "{ended:?}"
        );
        if json.is_empty() {
            assert_eq!(
                ended.stdout,
                "draining: www/web1 3 connections, api/web1 3 connections\n"
            );
        } else {
            serde_json::from_str::<Value>(&ended.stdout).unwrap();
        }
    }
}

#[tokio::test]
async fn a_drain_that_is_over_says_what_became_of_the_rest() {
    let running = Running::start();
    running.fake.state().deadlines = vec![1, 0];
    let printed = running.page("backend drain www/web1 --deadline 1s --wait").await;
    assert_eq!(
        printed.lines().last().unwrap(),
        "drained: 1 connection left at the deadline, 1 reset since, none is left; 2 ended by themselves before"
    );
    let running = Running::start();
    running.fake.state().deadlines = vec![0];
    running.fake.state().silent = 2;
    let started = Instant::now();
    let printed = running.page("backend drain www/web1 --deadline 1s --wait").await;
    assert_eq!(
        printed.lines().last().unwrap(),
        "drained: 2 connections left at the deadline, 0 reset since, 2 silent, to be reset when the client sends something; \
         1 ended by itself before"
    );
    assert!(
        (5..15).contains(&started.elapsed().as_secs()),
        "it does not wait for ever"
    );
    let status = running.page("status").await;
    assert!(status.contains("  draining, resetting  "), "{status}");
}

#[tokio::test]
async fn drain_notices_that_somebody_undid_it() {
    let running = Running::start();
    running.fake.state().undrained = true;
    let ended = running.lbctl("backend drain www/web1 --wait").await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("www/web1 gets new connections again"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn connections_and_counters() {
    let running = Running::start();
    for client in ["2001:db8::7", "[2001:db8:0::7]"] {
        let list = running
            .page(&format!(
                "connection list --backend web1 --client {client} --limit 1"
            ))
            .await;
        let expected = "\
CLIENT               VIP                     BACKEND   STATE        EXPIRES IN
[2001:db8::7]:40000  [2001:db8::10]:443/tcp  www/web1  established  2h 4m
1 of 12,345; --limit shows more
";
        assert_eq!(list, expected);
        assert_eq!(
            running.last_call(),
            r#"connections {"service":null,"backend":"web1","client":"2001:db8::7","state":null,"limit":1}"#
        );
    }
    let full_nat = running.page("connection list --service mail").await;
    assert!(
        full_nat.contains("EXPIRES IN  OWN PORT\n") && full_nat.contains(" 10240\n"),
        "{full_nat}"
    );
    assert_eq!(
        running.json("connection list").await["connections"][0]["client_port"],
        40000
    );

    let counters = running.page("counters").await;
    let expected = "\
OUTCOME     ACTION          PACKETS  MEANING
to_backend  transmit  9,876,543,210  Sent to the connection's backend.
not_ours    pass                  7  For no service.
1 more are zero; --all shows them
";
    assert_eq!(counters, expected);
    let all = running.page("counters --all").await;
    assert!(all.contains("malformed") && !all.contains("--all"), "{all}");
    assert_eq!(
        running.json("counters").await["outcomes"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

const PLAN: &str = "\
backend www/web3: added, 198.18.1.4:443, checking
backend www/web1: removed; its 1,000 connections go on until they end
backend www/web2: up becomes down\u{fffd}[2J; its 1 connection is reset
service www: 33.1 % of its slots change hands once web3 is up; of its 1,500 connections 498 would move if they were not \
remembered (1 is not where the present slots lead, either)

of 1,500 live connections: 1,000 drain, 1 is reset, 498 would move without state
";

#[tokio::test]
async fn plan_and_apply() {
    let running = Running::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new.toml");
    std::fs::write(&file, "[daemon]\n").unwrap();
    let name = file.display();
    let text = format!(r#"{{"name":"{name}","toml":"[daemon]\n"}}"#);
    let planned = format!("{PLAN}nothing has been changed\n");
    for (typed, call) in [
        (
            "plan".to_owned(),
            r#"plan {"text":null,"force":false}"#.to_owned(),
        ),
        (
            format!("plan {name}"),
            format!(r#"plan {{"text":{text},"force":false}}"#),
        ),
        (
            format!("plan {name} --force"),
            format!(r#"plan {{"text":{text},"force":true}}"#),
        ),
        (
            "backend remove www/web1 --dry-run".to_owned(),
            r#"{"service":"www","name":"web1","change":{"remove":{"force":false}},"dry_run":true}"#
                .to_owned(),
        ),
    ] {
        assert_eq!(running.page(&typed).await, planned, "{typed}");
        assert_eq!(running.last_call(), call);
    }
    let value = running.json("plan").await;
    assert_eq!(
        value,
        serde_json::to_value(plan()).unwrap(),
        "--json is the value as it is"
    );
    assert_eq!(value["impact"]["drain"], 1000);
    assert_eq!(value["steps"][1]["effects"][0]["fate"], "drain");

    let kept = "/etc/lb/lb.toml has it now; what was there is kept as /etc/lb/lb.toml.previous\n";
    assert_eq!(
        running.page(&format!("apply {name}")).await,
        format!("{PLAN}{kept}")
    );
    assert_eq!(
        running.last_call(),
        format!(r#"apply {{"text":{text},"confirm_seconds":null,"force":false}}"#)
    );
    assert_eq!(
        running.page(&format!("apply --confirm 90s --force {name}")).await,
        format!("{PLAN}{kept}goes back by itself in 1m 30s unless confirmed: lbctl confirm\n")
    );
    assert_eq!(
        running.last_call(),
        format!(r#"apply {{"text":{text},"confirm_seconds":90,"force":true}}"#)
    );
    assert_eq!(
        running.page("confirm").await,
        "confirmed: /etc/lb/lb.toml stays as it was applied\n"
    );
    assert_eq!(
        running.page("rollback").await,
        format!("{PLAN}/etc/lb/lb.toml is as it was before\n")
    );
    running.fake.state().unchanged = true;
    assert_eq!(running.page("plan").await, "nothing would change\n");
    running.fake.state().status.unconfirmed = Some(lb::api::types::Unconfirmed {
        file: "/etc/lb/lb.toml".to_owned(),
        seconds_left: 42,
    });
    let status = running.page("status").await;
    let line =
        "\nunconfirmed  /etc/lb/lb.toml goes back by itself in 42s: lbctl confirm, or lbctl rollback\n\nwww";
    assert!(status.contains(line), "{status}");
}

#[tokio::test]
async fn reload_and_site() {
    let running = Running::start();
    assert_eq!(running.page("reload").await, PLAN);
    running.fake.state().unchanged = true;
    assert_eq!(running.page("reload").await, "nothing changed\n");
    assert_eq!(
        running.page("site render --server web2").await,
        "server { # web2\n}\n"
    );
    let both = running.page("site render").await;
    assert_eq!(
        both,
        "# ---- web1 ----\nserver { # web1\n}\n\n# ---- web2 ----\nserver { # web2\n}\n"
    );
    let unknown = running.lbctl("site render --server nope").await;
    assert_eq!((unknown.code, &*unknown.stdout), (4, ""));
    assert_eq!(
        unknown.stderr,
        "lbctl: there is no web server \"nope\"; web servers: web1, web2\n"
    );

    let status = running.page("site status").await;
    let expected = "\
wanted  0123456789abcdef for www.foobar.com, expires in 39d 0h

SERVER  STATE      CERTIFICATE         EXPIRY
web1    current    0123456789abcdef    expires in 39d 0h
web2    another    fedc                EXPIRED 1m 0s ago
web3    no answer  connection refused
";
    assert_eq!(status, expected);

    let applied = running.page("site apply").await;
    let expected = "\
web1  serves it
  STEP   RESULT     TOOK  DETAIL
  stage  ok      1.234 s  7 files
  test   ok      1.234 s  nginx: says so
";
    assert_eq!(applied, expected);
    running.fake.state().applied = false;
    let failed = running.lbctl("site apply").await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stdout.contains("web1  FAILED") && failed.stdout.contains("test   failed"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains("(failed: web1)"), "{failed:?}");
    let failed = running.lbctl("--json site apply").await;
    assert_eq!(
        (
            failed.code,
            &serde_json::from_str::<Value>(&failed.stdout).unwrap()["ok"]
        ),
        (1, &Value::Bool(false))
    );
}

#[tokio::test]
async fn config_check_needs_no_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("lbd.sock");
    let file = directory.path().join("lb.toml");
    let check = format!("config check {}", file.display());
    for text in [None, Some("[[service]\n"), Some("[daemon]\ninterfaces = []\n")] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let ended = at(&nowhere, &check).await;
        assert_eq!((ended.code, &*ended.stdout), (5, ""), "{text:?}: {ended:?}");
        assert!(ended.stderr.contains("lb.toml"), "{ended:?}");
    }
}

#[tokio::test]
async fn config_check_accepts_what_is_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("lbd.sock");
    let file = directory.path().join("lb.toml");
    let text = r#"
        [daemon]
        interfaces = ["lo"]
        [[service]]
        name = "www"
        vip = "203.0.113.10"
        port = 443
        [[service.backend]]
        name = "web1"
        address = "198.18.1.2"
        [[service.backend]]
        name = "web2"
        address = "198.18.1.3"
    "#;
    std::fs::write(&file, text).unwrap();
    let ended = at(&nowhere, &format!("config check {}", file.display())).await;
    assert_eq!((ended.code, &*ended.stderr), (0, ""), "{ended:?}");
    assert_eq!(
        ended.stdout,
        format!(
            "{} is in order: 1 service, 2 backends, 0 web servers\n",
            file.display()
        )
    );
    let ended = at(&nowhere, &format!("--json config check {}", file.display())).await;
    assert_eq!(
        serde_json::from_str::<Value>(&ended.stdout).unwrap()["backends"],
        2
    );
}

#[tokio::test]
async fn completions_are_scripts_that_their_shells_accept() {
    let nowhere = Path::new("/nonexistent/lbd.sock");
    for shell in ["bash", "zsh", "fish"] {
        let ended = at(nowhere, &format!("completions {shell}")).await;
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{shell}");
        assert!(
            ended.stdout.contains("undrain") && ended.stdout.contains("lbctl"),
            "{shell}"
        );
        // Where the shell is installed, it reads the script without running it.
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("lbctl");
        std::fs::write(&script, &ended.stdout).unwrap();
        if let Ok(output) = Command::new(shell).arg("-n").arg(&script).output().await {
            assert!(
                output.status.success(),
                "{shell}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
