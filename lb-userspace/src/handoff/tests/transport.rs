//! Child processes: what they are given, what they say, and that they end in time.

use std::time::{Duration, Instant};

use crate::handoff::transport::run;

const LONG: Duration = Duration::from_secs(10);

fn sh() -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned()]
}

/// Waits until a process is gone or a zombie, which the test runner's init collects.
async fn gone(pid: &str) -> bool {
    for _ in 0..100 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn input_arrives_whole_and_nothing_is_said_about_a_success() {
    let input = vec![b'x'; 1_000_000];
    run(&sh(), "[ \"$(wc -c)\" -eq 1000000 ] && echo noise", &input, LONG)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_failure_tells_the_status_and_both_streams_in_order() {
    let error = run(&sh(), "echo one; echo two >&2; echo three; exit 7", &[], LONG)
        .await
        .unwrap_err();
    assert_eq!(error, "exit status: 7: one\ntwo\nthree");
}

#[tokio::test]
async fn unread_input_is_not_a_failure() {
    run(&sh(), "exit 0", &vec![0; 1_000_000], LONG).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let error = run(&sh(), "head -c 1000000 /dev/zero | tr '\\0' x; exit 1", &[], LONG)
        .await
        .unwrap_err();
    assert_eq!(error.len(), "exit status: 1: ".len() + 64 * 1024);
}

#[tokio::test]
async fn a_process_left_behind_is_not_waited_for() {
    let begun = Instant::now();
    let error = run(&sh(), "sleep 5 & echo $!; exit 3", &[], LONG)
        .await
        .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3));
    let pid = error.strip_prefix("exit status: 3: ").unwrap();
    // It does what a daemon does: it goes on.
    assert!(std::fs::exists(format!("/proc/{pid}")).unwrap());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.parse().unwrap()),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
}

#[tokio::test]
async fn past_the_limit_the_whole_group_is_killed() {
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let error = run(
        &sh(),
        "trap '' TERM; echo begun; sleep 60 & echo $!; wait",
        &[],
        limit,
    )
    .await
    .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3));
    let pid = error
        .strip_prefix("killed: not done after 300ms: begun\n")
        .expect(&error);
    assert!(gone(pid).await, "{pid} lives");
}

#[tokio::test]
async fn endless_output_does_not_stop_the_clock() {
    let begun = Instant::now();
    let error = run(&sh(), "yes", &[], Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(error.starts_with("killed: not done after 300ms: y\ny\n"));
}

#[tokio::test]
async fn a_dropped_run_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!("sleep 60 & echo $! >{}; wait", file.display());
    let waited = tokio::time::timeout(Duration::from_millis(500), run(&sh(), &script, &[], LONG)).await;
    assert!(waited.is_err());
    let pid = std::fs::read_to_string(file).unwrap();
    assert!(gone(pid.trim()).await, "{pid} lives");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let error = run(&["no-such-command".to_owned()], "true", &[], LONG)
        .await
        .unwrap_err();
    assert!(error.starts_with("cannot run no-such-command: "), "{error}");
    assert!(
        run(&[], "true", &[], LONG)
            .await
            .unwrap_err()
            .contains("`via` is empty")
    );
}
