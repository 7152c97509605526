//! Everything that can go wrong, and the exit status of each.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use lb::api::Refusal;
use serde_json::Value;
use tokio::process::Command;

use super::{at, command};
use crate::fake::Running;

#[tokio::test]
async fn what_the_daemon_refuses() {
    let running = Running::start();
    let unknown = running.lbctl("backend drain nope").await;
    assert_eq!((unknown.code, &*unknown.stdout), (4, ""));
    assert_eq!(
        unknown.stderr,
        "lbctl: there is no backend \"nope\"; backends: web1, web2\n"
    );
    let cases = [
        (Refusal::Invalid("a".to_owned()), 1),
        (Refusal::Unknown("b".to_owned()), 4),
        (Refusal::Conflict("c".to_owned()), 1),
        (Refusal::Configuration("lb.toml:3: d\nand e".to_owned()), 5),
        (Refusal::Failed("f".to_owned()), 1),
    ];
    for (refusal, code) in cases {
        running.fake.state().refusal = Some(refusal.clone());
        for command in [
            "reload",
            "plan",
            "confirm",
            "rollback",
            "backend enable web1",
            "backend add www/web3 198.18.1.4:443",
            "site apply",
        ] {
            let ended = running.lbctl(command).await;
            assert_eq!((ended.code, &*ended.stdout), (code, ""), "{command}");
            assert_eq!(ended.stderr, format!("lbctl: {refusal}\n"), "{command}");
        }
        let ended = running.lbctl("--json reload").await;
        let error: Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!(
            (ended.code, error),
            (code, serde_json::json!({ "error": refusal.to_string() }))
        );
    }
}

#[tokio::test]
async fn usage() {
    let nowhere = Path::new("/nonexistent/lbd.sock");
    let wrong = [
        ("", "Usage"),
        ("explode", "unrecognized subcommand"),
        ("backend add web3 198.18.1.4:443", "expected SERVICE/NAME"),
        ("backend add www/web3 web3", "expected ADDRESS or ADDRESS:PORT"),
        (
            "backend add www/web3 2001:db8::4:443",
            "in brackets: [2001:db8::4:443]",
        ),
        ("backend add www/web3 198.18.1.4:443 --weight 257", "0 to 256"),
        ("backend weight web1", "--reset"),
        ("backend weight web1 3 --reset", "cannot be used with"),
        ("backend drain a/b/c", "expected NAME"),
        ("backend drain web1 --timeout 5m", "--wait"),
        ("backend drain web1 --wait --timeout soon", "--timeout"),
        ("backend drain web1 --deadline 1500ms", "whole seconds, 1s to 24h"),
        ("backend drain web1 --deadline 25h", "whole seconds, 1s to 24h"),
        ("backend drain web1 --wait --dry-run", "cannot be used with"),
        ("plan --force", "<FILE>"),
        ("apply", "<FILE>"),
        ("apply --confirm 0s new.toml", "whole seconds, 1s to 24h"),
        ("apply --confirm soon new.toml", "whole seconds, 1s to 24h"),
        ("connection list --client web1", "--client"),
        ("completions tcsh", "bash"),
    ];
    for (typed, words) in wrong {
        let ended = at(nowhere, typed).await;
        assert_eq!((ended.code, &*ended.stdout), (2, ""), "{typed}: {ended:?}");
        assert!(ended.stderr.contains(words), "{typed}: {}", ended.stderr);
    }
    let help = at(nowhere, "--help").await;
    assert_eq!((help.code, &*help.stderr), (0, ""));
    assert!(
        help.stdout
            .contains("Exit status:\n  0  success\n  1  lbd refused or failed"),
        "{}",
        help.stdout
    );
    let leaves = [
        "status",
        "service list",
        "service show",
        "backend list",
        "backend add",
        "backend remove",
        "backend drain",
        "backend undrain",
        "backend disable",
        "backend enable",
        "backend weight",
        "connection list",
        "counters",
        "reload",
        "plan",
        "apply",
        "confirm",
        "rollback",
        "config check",
        "doctor",
        "site render",
        "site apply",
        "site status",
        "completions",
    ];
    for leaf in leaves {
        let help = at(nowhere, &format!("{leaf} --help")).await;
        assert_eq!(help.code, 0, "{leaf}");
        let (_, example) = help
            .stdout
            .split_once("Example")
            .unwrap_or_else(|| panic!("{leaf}: no example"));
        assert!(example.contains(&format!("lbctl {leaf}")), "{leaf}: {example}");
    }
    let version = at(nowhere, "--version").await;
    assert_eq!(version.stdout, format!("lbctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn the_daemon_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lbd.sock");
    let message = format!(
        "lbctl: lbd is not running (no answer on {}): start it as root with \
         \"lbd --config /etc/lb/lb.toml\"\n",
        socket.display()
    );
    let ended = at(&socket, "status").await;
    assert_eq!(
        (ended.code, &*ended.stdout, ended.stderr),
        (3, "", message.clone())
    );
    // A socket that a dead daemon left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let ended = at(&socket, "backend drain web1 --wait").await;
    assert_eq!((ended.code, ended.stderr), (3, message));
}

#[tokio::test]
async fn there_is_no_permission() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can become somebody else.
    }
    let running = Running::start();
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(running.socket.parent().unwrap(), open.clone()).unwrap();
    // The build directory may be closed to others, so the process is a copy in an open one.
    let copy = running.socket.with_file_name("lbctl");
    std::fs::copy(env!("CARGO_BIN_EXE_lbctl"), &copy).unwrap();
    std::fs::set_permissions(&copy, open).unwrap();
    for (group, who) in [(0, "root"), (1, "root or a member of group \"daemon\"")] {
        std::os::unix::fs::chown(&running.socket, None, Some(group)).unwrap();
        let output = Command::new(&copy)
            .args(["--socket", running.socket.to_str().unwrap(), "status"])
            .uid(65534)
            .gid(65534)
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let expected = format!(
            "no permission to talk to lbd on {}: run this as {who}\n",
            running.socket.display()
        );
        assert_eq!(
            (output.status.code(), stderr),
            (Some(3), format!("lbctl: {expected}"))
        );
    }
}

#[tokio::test]
async fn the_daemon_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lbd.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    let ended = at(&socket, "status").await;
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(
        ended.stderr.contains("does not answer (waited 10s"),
        "{}",
        ended.stderr
    );
    assert!((9..15).contains(&started.elapsed().as_secs()));
}

#[tokio::test]
async fn what_answers_is_not_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lbd.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let answers = [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "",
    ];
    for answer in answers {
        let (ended, ()) = tokio::join!(at(&socket, "status"), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
                .await
                .unwrap();
        });
        assert_eq!((ended.code, &*ended.stdout), (1, ""), "{answer}: {ended:?}");
        assert!(
            ended.stderr.contains("cannot understand the answer"),
            "{answer}: {}",
            ended.stderr
        );
    }
}

/// Runs a command with its output going there. (`Command::output` would put a pipe in its place.)
async fn into(stdout: impl Into<Stdio>, mut command: Command) -> std::process::Output {
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn nobody_reads_to_the_end() {
    let running = Running::start();
    for arguments in ["status", "--json status", "completions bash", "--help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = into(writer, command(&running.socket, arguments)).await;
        assert_eq!(
            (output.status.code(), &*output.stderr),
            (Some(0), &b""[..]),
            "{arguments}"
        );
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = into(full, command(&running.socket, "status")).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "a full disk is a failure: {stderr}"
    );
    assert!(stderr.contains("cannot write the output"), "{stderr}");
}
