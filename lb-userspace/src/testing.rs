//! Network namespaces for tests: made by `unshare` in a thread of the test's own, gone with it.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `test` in a thread and a network namespace of its own, on a runtime of that thread. Needs root: otherwise says
/// so and tests nothing.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Namespace) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may make network namespaces");
    }
    let body = move || {
        let home = Namespace::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(test(home));
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A network namespace, there as long as this or a thread inside is.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes one, with its loopback up, and moves the calling thread into it.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        let namespace = Self(File::open("/proc/thread-self/ns/net").expect("the thread's namespace"));
        sh("ip link set lo up");
        namespace
    }

    /// What `ip link set … netns` takes. `ip` opens it itself, hence by our process's number.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Moves the calling thread here.
    pub(crate) fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("setns");
    }
}

/// Runs a shell script, an error ends it, in the calling thread's namespace; gives what it printed.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
