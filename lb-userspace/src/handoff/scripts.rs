//! What is run on a web server, step by step: ready-made POSIX shell scripts, or the configuration's own.
//!
//! On the web server the hand-off owns one directory:
//! ```text
//! DIRECTORY/releases/ID/   site.conf, certificate.pem, key.pem, test.conf; mode 0700
//! DIRECTORY/current        -> releases/ID, the one that nginx reads
//! DIRECTORY/previous       -> releases/ID, what `current` was before the last swap; absent after the first
//! ```
//! The web server's own nginx.conf includes it, once, inside `http {}`: `include DIRECTORY/current/site.conf*;`. The `*`
//! lets nginx start before the first hand-off, when there is nothing there yet.
//!
//! Every script, a ready-made one as well as the configuration's own, finds in its environment:
//! - `LB_DIRECTORY`: the directory,
//! - `LB_RELEASE`: the id of the release that is being handed over,
//! - `LB_NGINX`: the nginx command, arguments included, as the configuration has it: shell text, to be `eval`ed.
//!
//! (nginx itself reads a variable named `NGINX`, so none of these is called that.)
//!
//! The ready-made scripts need `tar`, `mv -T` and `readlink` (GNU or busybox), and a login shell that speaks POSIX where
//! `via` is `ssh`. `test` tests the release alone (`nginx -t -c`, where a later `-c` wins over one in `LB_NGINX`, as nginx
//! reads it); `reload` tests the whole running configuration before it signals.

use serde::{Deserialize, Serialize};

use crate::config::SiteServer;

/// A step that runs on the web server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// Unpack the bundle beside the running configuration.
    Stage,
    /// Check what was staged.
    Test,
    /// Make it the current one.
    Swap,
    /// Make nginx read the current one.
    Reload,
    /// Go back to what was current before, and reload.
    Restore,
}

impl Step {
    /// As the API and the configuration call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Test => "test",
            Self::Swap => "swap",
            Self::Reload => "reload",
            Self::Restore => "restore",
        }
    }
}

/// The text that is appended to the server's `via`.
pub(super) fn script(step: Step, server: &SiteServer, release: &str) -> String {
    let body = own(step, server).map_or_else(|| ready_made(step, server), str::to_owned);
    format!(
        "export LB_DIRECTORY={} LB_RELEASE={} LB_NGINX={}\n{body}",
        quote(&server.directory),
        quote(release),
        quote(&server.nginx),
    )
}

/// The configuration's own script for the step.
fn own(step: Step, server: &SiteServer) -> Option<&str> {
    let scripts = &server.scripts;
    match step {
        Step::Stage => &scripts.stage,
        Step::Test => &scripts.test,
        Step::Swap => &scripts.swap,
        Step::Reload => &scripts.reload,
        Step::Restore => &scripts.restore,
    }
    .as_deref()
}

fn ready_made(step: Step, server: &SiteServer) -> String {
    const PRELUDE: &str = include_str!("scripts/prelude.sh");
    const RELOAD: &str = include_str!("scripts/reload.sh");
    let body = match step {
        Step::Stage => include_str!("scripts/stage.sh").to_owned(),
        Step::Test => include_str!("scripts/test.sh").to_owned(),
        Step::Swap => include_str!("scripts/swap.sh").to_owned(),
        Step::Reload => RELOAD.to_owned(),
        // Reloads the way the configuration says; its own script need not stand `set -eu`.
        Step::Restore => {
            let links = include_str!("scripts/restore.sh");
            match own(Step::Reload, server) {
                None => format!("{links}{RELOAD}"),
                Some(reload) => format!("{links}set +eu\n{reload}"),
            }
        }
    };
    format!("{PRELUDE}{body}")
}

/// A single word for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
