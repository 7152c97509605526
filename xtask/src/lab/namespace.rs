//! A network namespace: commands and closures inside it, and who is in it.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, setns};

use super::command::run;

/// A named network namespace, as `ip netns` makes them.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of this name, whether it exists or not.
    pub fn named(name: String) -> Self {
        Self { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it, for `nsenter --net=FILE`. Not `ip netns exec`, which mounts /sys anew, so that what is
    /// pinned in bpffs from inside is lost.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Makes it, with its loopback up.
    pub fn create(&self) -> anyhow::Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.name]))?;
        // Not `ip -n`, which wants to make "/" a private mount: in a chroot it is no mount.
        run(self.command("ip")?.args(["link", "set", "lo", "up"]))?;
        Ok(())
    }

    /// Takes it away if it exists, and with it every interface in it. Processes inside are not touched.
    pub fn remove(&self) -> anyhow::Result<()> {
        if self.path().exists() {
            run(Command::new("ip").args(["netns", "delete", &self.name]))?;
        }
        Ok(())
    }

    /// A command that will run inside; only the network differs from outside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        let namespace = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe and allocates nothing; the
        // descriptor lives as long as the closure that owns it.
        unsafe {
            command.pre_exec(move || Ok(setns(&namespace, CloneFlags::CLONE_NEWNET)?));
        }
        Ok(command)
    }

    /// Runs a closure inside, in a thread of its own: the caller's thread stays where it is.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let namespace = self.open()?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter the namespace {}", self.name))?;
                inside()
            });
            thread
                .join()
                .map_err(|_| anyhow!("a thread inside the namespace {} panicked", self.name))?
        })
    }

    /// Sets `/proc/sys/net/KEY`, each a key with its value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/net/{key}"), value)
                    .with_context(|| format!("cannot set net/{key} to {value} in {}", self.name))?;
            }
            Ok(())
        })
    }

    /// The processes inside.
    pub fn processes(&self) -> Vec<i32> {
        let Ok(own) = fs::metadata(self.path()) else {
            return Vec::new();
        };
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let inside = |pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|other| (other.st_dev(), other.st_ino()) == (own.st_dev(), own.st_ino()))
        };
        pids.filter(inside).collect()
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(self.path()).with_context(|| format!("there is no namespace {}", self.name))
    }
}
