//! The first process of a guest: this program again (`kernel-guest`, hidden).

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::resource::{Resource, setrlimit},
    sys::{
        reboot::{RebootMode, reboot},
        termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr},
    },
};

use super::plan::{ENDED, HARNESS, MODULES, TASK, Task};

/// The serial line that comes out as qemu's standard output; the first one is the kernel's console.
const LINE: &str = "/dev/ttyS1";

const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
];

/// Be the first process of a test guest
#[derive(Debug, clap::Args)]
pub struct Args {}

/// As many files may be open as on most machines.
const DESCRIPTORS: u64 = 1 << 16;

/// Runs the harness, says how it ended, and turns the machine off.
///
/// # Errors
/// When this is not a guest of ours.
pub fn run(_: &Args) -> Result<ExitCode> {
    if std::process::id() != 1 {
        bail!("kernel-guest is for the first process of a guest: see `cargo xtask test --kernels`");
    }
    if let Err(error) = work() {
        // The kernel's console.
        eprintln!("guest: {error:#}");
    }
    let Err(error): Result<Infallible, _> = reboot(RebootMode::RB_POWER_OFF);
    Err(error).context("cannot turn the machine off")
}

fn work() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(None::<&str>, place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    // The harness keeps many programs, with some sixty maps and programs each; 4,096 is what the first process may have.
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)?;
    load_modules()?;
    let mut line = open_line()?;
    let task = fs::read_to_string(TASK).with_context(|| format!("cannot read {TASK}"))?;
    let task: Task = serde_json::from_str(&task).with_context(|| format!("cannot understand {TASK}"))?;
    let status = Command::new(HARNESS)
        .args(task.arguments)
        .env_clear()
        .env("PATH", "/bin")
        .envs(task.environment)
        .stdout(line.try_clone()?)
        .stderr(line.try_clone()?)
        .status()
        .with_context(|| format!("cannot start {HARNESS}"))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    writeln!(line, "{ENDED}{code}")?;
    // What has not been sent yet would be lost with the machine.
    tcdrain(&line).context("cannot wait for the serial line")
}

fn load_modules() -> Result<()> {
    let modules = fs::read_dir(MODULES).with_context(|| format!("cannot read {MODULES}"))?;
    let mut modules: Vec<_> = modules.map(|module| Ok(module?.path())).collect::<Result<_>>()?;
    modules.sort();
    for module in modules {
        load_module(&module).with_context(|| format!("cannot load {}", module.display()))?;
    }
    Ok(())
}

fn load_module(file: &Path) -> Result<()> {
    Ok(finit_module(&File::open(file)?, c"", ModuleInitFlags::empty())?)
}

/// Everything passes unchanged.
fn open_line() -> Result<File> {
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .open(LINE)
        .with_context(|| format!("cannot open {LINE}"))?;
    let mut settings = tcgetattr(&line)?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    Ok(line)
}
