//! The site worker: the process that runs the hand-off's scripts, so that `lbd` need not have the rights for them.
//!
//! `lbd` starts it (`lbd site-worker`) before it gives its own rights up, with one end of a socket pair for standard input.
//! For each script it passes one end of another pair over that, and writes an [`Order`] to it. The order says **which** step
//! of which server, never what to run: the worker reads the configuration file itself, and carries out what that says, if it
//! comes to the very script (and, for `stage`, the very release) that `lbd` means. Whoever has got hold of `lbd` gets no
//! shell by this.
//!
//! An order is taken back by closing its pair: then the script is killed. When `lbd` is gone, however it went, the worker
//! kills what runs and ends.

mod protocol;
mod serve;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::bundle::Release;
use super::scripts::Step;
use crate::config::SiteServer;
use protocol::Order;

pub use serve::serve;

/// What the worker hears of its surroundings' service manager would be taken for `lbd`'s word.
const NOT_PASSED_ON: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// `lbd`'s end.
#[derive(Debug)]
pub struct SiteWorker {
    orders: OwnedFd,
    process: Mutex<Child>,
}

impl SiteWorker {
    /// Starts it, from the same executable as this process's; `arguments` come before the subcommand. Ctrl-C on a terminal
    /// does not reach it.
    ///
    /// # Errors
    /// No process can be started.
    pub fn start(arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).arg("site-worker");
        Self::start_as(&mut command)
    }

    fn start_as(command: &mut Command) -> io::Result<Self> {
        let (orders, theirs) = protocol::pair()?;
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        let process = command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            orders,
            process: Mutex::new(process),
        })
    }

    /// Has it carry out a step with a release on a server within `limit`; dropped half-way, the script is killed.
    pub(super) async fn run(
        &self,
        step: Step,
        server: &SiteServer,
        release: &Release,
        limit: Duration,
    ) -> Result<(), String> {
        let order = Order::new(step, server, &release.id, limit);
        match self.ask(&order).await {
            Ok(answer) => answer,
            Err(error) => Err(format!(
                "{}; restart lbd to have one again",
                self.what_became(&error)
            )),
        }
    }

    async fn ask(&self, order: &Order) -> io::Result<Result<(), String>> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        protocol::pass(&self.orders, &theirs)?;
        drop(theirs);
        let mut ours = BufReader::new(UnixStream::from_std(ours)?);
        ours.write_all(&protocol::line(order)?).await?;
        let mut answer = String::new();
        ours.read_line(&mut answer).await?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn what_became(&self, error: &io::Error) -> String {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        match process.try_wait() {
            Ok(Some(status)) => format!("the site worker, which runs the scripts, has ended ({status})"),
            _ => format!("the site worker, which runs the scripts, does not answer: {error}"),
        }
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.process.lock().unwrap().id()
    }
}

impl Drop for SiteWorker {
    /// Without the other end of its standard input it ends by itself; what it runs is killed by it.
    fn drop(&mut self) {
        if let Ok((placeholder, _)) = protocol::pair() {
            drop(std::mem::replace(&mut self.orders, placeholder));
            let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = process.wait();
        }
    }
}
