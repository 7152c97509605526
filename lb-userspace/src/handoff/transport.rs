//! Runs a step's script on a web server: a child process with a time limit, its input and what it printed.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// How much of what a script prints is kept.
const KEPT_OUTPUT: usize = 64 * 1024;

/// A killed process is gone after this.
const REAPED: Duration = Duration::from_secs(1);

/// Runs `via` with `script` as its last argument and `input` on standard input. Fails, in words and with what was
/// printed, unless it exits with 0 within `limit`; past that, and when this future is dropped, its process group is
/// killed. What an `ssh` started on the other host is out of reach and may go on.
pub(super) async fn run(via: &[String], script: &str, input: &[u8], limit: Duration) -> Result<(), String> {
    let Some((program, arguments)) = via.split_first() else {
        return Err("`via` is empty: name a command, such as [\"sh\", \"-c\"]".to_owned());
    };
    let failed = |error: io::Error| format!("cannot run {program}: {error}");

    let (output, printed_to) = io::pipe().map_err(failed)?;
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(output)).map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(printed_to.try_clone().map_err(failed)?)
        .stderr(printed_to)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut group = Group::of(&child);

    let mut printed = Vec::new();
    let ended = {
        let work = std::pin::pin!(tokio::time::timeout(limit, feed_and_wait(&mut child, input)));
        tokio::select! {
            ended = work => ended,
            never = keep_reading(&output, &mut printed) => match never {},
        }
    };
    let what_failed = match ended {
        Ok(Ok(status)) => {
            group.forget();
            if status.success() {
                return Ok(());
            }
            status.to_string()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => {
            group.kill();
            // Reaps it. What runs as another user (`sudo`) may have survived the signal, and is not waited for.
            let _ = tokio::time::timeout(REAPED, child.wait()).await;
            format!("killed: not done after {}", humantime::format_duration(limit))
        }
    };
    // Whatever else holds the pipe open is not waited for.
    read_available(&output, &mut printed);
    let printed = String::from_utf8_lossy(&printed);
    Err(match printed.trim() {
        "" => what_failed,
        printed => format!("{what_failed}: {printed}"),
    })
}

/// A script that does not read its input is judged by its exit status all the same.
async fn feed_and_wait(child: &mut Child, input: &[u8]) -> io::Result<ExitStatus> {
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(input).await;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        status = child.wait() => status,
        never = feed => match never {},
    }
}

/// Reads for as long as it is polled, and lets others run even if the script never stops printing.
async fn keep_reading(output: &pipe::Receiver, printed: &mut Vec<u8>) -> Infallible {
    while output.readable().await.is_ok() && read_available(output, printed) {
        tokio::task::yield_now().await;
    }
    std::future::pending().await
}

/// Takes what is there, keeping the first [`KEPT_OUTPUT`] bytes. Returns whether more may come.
fn read_available(output: &pipe::Receiver, printed: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; KEPT_OUTPUT];
    match output.try_read(&mut buffer) {
        Ok(length) => {
            let room = KEPT_OUTPUT.saturating_sub(printed.len());
            printed.extend(buffer.iter().take(length.min(room)));
            length > 0
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// The child's process group, killed on drop. Only until the child has been waited for: then its number may be another's.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
        )
    }

    fn forget(&mut self) {
        self.0 = None;
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // The only possible error is that it has ended.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
