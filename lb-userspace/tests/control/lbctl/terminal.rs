//! What is different on a terminal: colour, fitting lines, a line that is rewritten.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::command;
use crate::fake::Running;

/// Runs a command on a terminal 80 columns wide and returns what the terminal got.
async fn on_a_terminal(running: &Running, arguments: &str, environment: &[(&str, &str)]) -> String {
    let size = nix::pty::Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = nix::pty::openpty(Some(&size), None).unwrap();
    let master: OwnedFd = terminal.master;
    let reading = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        // Ends with EIO when the process has closed the other end.
        let _ = std::fs::File::from(master).read_to_end(&mut got);
        String::from_utf8(got).unwrap()
    });
    let mut command = command(&running.socket, arguments);
    let mut child = command
        .envs(environment.iter().copied())
        .stdout(terminal.slave)
        .spawn()
        .unwrap();
    drop(command);
    assert!(child.wait().await.unwrap().success());
    tokio::time::timeout(Duration::from_secs(5), reading)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_terminal_gets_colour_and_fitting_lines() {
    let running = Running::start();
    let coloured = on_a_terminal(&running, "status", &[]).await;
    assert!(
        coloured.contains("\x1b[31mNO BACKEND, new connections are refused\x1b[0m"),
        "{coloured:?}"
    );
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = on_a_terminal(&running, "status", &[environment]).await;
        assert!(!plain.contains('\x1b'), "{environment:?}: {plain:?}");
        // The address whole, the prose over several lines.
        assert!(plain.contains("198.18.1.3:443"), "{plain}");
        assert!(
            plain.contains("up for 3h 4m") && !plain.contains("up for 3h 4m: HTTP 200 in 3 ms"),
            "{plain}"
        );
    }
    let narrow = on_a_terminal(&running, "counters", &[]).await;
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    let json = on_a_terminal(&running, "--json status", &[]).await;
    assert!(!json.contains('\x1b'), "{json:?}");
}

#[tokio::test]
async fn a_terminal_gets_one_rewritten_line() {
    let running = Running::start();
    let got = on_a_terminal(&running, "backend drain www/web1 --wait", &[]).await;
    let expected = "\r\x1b[Kdraining: www/web1 3 connections\r\x1b[Kdraining: www/web1 2 connections\
                    \r\x1b[Kdraining: www/web1 1 connection\r\x1b[Kdraining: www/web1 0 connections\r\n\
                    drained: no connections left, 3 ended by themselves\r\n";
    assert_eq!(got, expected);
}
