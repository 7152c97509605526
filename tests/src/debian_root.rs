//! A Debian system that has just been installed, booted with systemd in a container of its own.
//!
//! Its files come from debootstrap, once: they are kept, packed, in `target/package`.

use std::env::consts::ARCH;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::{process, workspace};

/// What the tests use inside, beyond the least that there can be.
const PACKAGES: &str = "systemd-sysv,iproute2,curl,ethtool";

/// Where scratch directories are: a real file system, which may have devices and programs.
const SCRATCH: &str = "/var/tmp";

/// A root directory in an archive, made if it is not there yet. Takes about a minute then, and Debian's packages.
///
/// # Errors
/// A tool is missing, or debootstrap cannot reach the packages.
pub fn archive() -> Result<PathBuf> {
    let release = release();
    let file = workspace::root().join(format!("target/package/root-{release}-{ARCH}.tar"));
    if file.exists() {
        return Ok(file);
    }
    let debootstrap = process::find("debootstrap").context("debootstrap is not installed")?;
    let scratch = Scratch::new()?;
    let log = scratch.0.join("log");
    let made = Command::new(debootstrap)
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), &release])
        .arg(scratch.root())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(File::create(&log)?)
        .status()?;
    if !made.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().last().unwrap_or("it said nothing");
        bail!("debootstrap cannot make a root of Debian {release}: {last}");
    }
    fs::create_dir_all(workspace::root().join("target/package"))?;
    // Appears at once, or not at all.
    let unfinished = file.with_extension("tar.new");
    process::run(
        Command::new("tar")
            .arg("-C")
            .arg(scratch.root())
            .arg("-cf")
            .arg(&unfinished)
            .arg("."),
    )?;
    fs::rename(&unfinished, &file)?;
    Ok(file)
}

/// That of this machine, whose libraries the programs were linked to.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        (Some("debian"), Some(name)) => name.trim_matches('"').to_owned(),
        _ => "stable".to_owned(),
    }
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let made = process::output(Command::new("mktemp").args(["-d", "-p", SCRATCH, "lb-root-XXXXXX"]))?;
        Ok(Self(made.trim().into()))
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The running system.
pub struct System {
    nspawn: Child,
    /// Its first process, as this machine counts them.
    init: u32,
    // Removed after the container has ended.
    scratch: Scratch,
}

impl System {
    /// Boots one with these files of this machine, each under the name that follows, and with the capabilities that
    /// `lbd` needs.
    ///
    /// # Errors
    /// A tool is missing, or it does not come up within a minute.
    pub fn boot(files: &[(&Path, &str)]) -> Result<Self> {
        let archive = archive()?;
        let scratch = Scratch::new()?;
        let root = scratch.root();
        fs::create_dir(&root)?;
        process::run(Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(archive))?;
        for (from, to) in files {
            let to = root.join(to);
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let console = File::create(scratch.0.join("console"))?;
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            .args([
                "--boot",
                "--quiet",
                "--private-network",
                "--register=no",
                "--keep-unit",
                "--capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON",
                "--system-call-filter=bpf",
                "--directory",
            ])
            .arg(&root)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        // SAFETY: one system call, which allocates nothing.
        unsafe {
            // Whatever ends the harness shuts the container down.
            nspawn.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?));
        }
        let nspawn = nspawn.spawn().context("cannot start systemd-nspawn")?;
        let mut system = Self {
            nspawn,
            init: 0,
            scratch,
        };
        system.wait_until_up().with_context(|| {
            let console = fs::read_to_string(system.scratch.0.join("console")).unwrap_or_default();
            format!("the system does not come up:\n{console}")
        })?;
        Ok(system)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let children = format!("/proc/{0}/task/{0}/children", self.nspawn.id());
        wait_for("the container's first process", || {
            ensure!(self.nspawn.try_wait()?.is_none(), "systemd-nspawn has ended");
            // Before it there is another child for a moment, which makes it.
            let child = fs::read_to_string(&children)?.trim().to_owned();
            let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
            ensure!(name.trim() == "systemd", "the child {child:?} is {name:?}");
            self.init = child.parse()?;
            Ok(())
        })?;
        // It may be degraded: nothing that lbd needs.
        wait_for("the end of its start", || {
            let state = self.output("systemctl is-system-running || :")?;
            ensure!(matches!(state.trim(), "running" | "degraded"), "it is {state:?}");
            Ok(())
        })
    }

    /// A shell that runs a script inside, as root, and ends at the first error.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.init.to_string(), "--"])
            .args(["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["sh", "-euc", script]);
        command.stdin(Stdio::null());
        command
    }

    /// What a script prints, which must succeed.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn output(&self, script: &str) -> Result<String> {
        let output = self.shell(script).output().context("cannot start nsenter")?;
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(
            output.status.success(),
            "{script}: {}: {said}{errors}",
            output.status
        );
        Ok(said.into_owned())
    }

    /// A file inside, as this machine sees it; `/proc` and what else is mounted there included.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // For nspawn: shut down, and then end.
        let id = Pid::from_raw(i32::try_from(self.nspawn.id()).unwrap_or(i32::MAX));
        let _ = kill(id, Signal::SIGTERM);
        let ended = wait_for("the end of the container", || {
            ensure!(self.nspawn.try_wait()?.is_some(), "it runs");
            Ok(())
        });
        if ended.is_err() {
            let _ = self.nspawn.kill();
            let _ = self.nspawn.wait();
        }
    }
}

/// Tries again and again, for a minute at most.
///
/// # Errors
/// As the last try.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("gave up waiting for {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
