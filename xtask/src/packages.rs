//! What the distribution's package manager provides, and how it is asked.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::{process, sudo, workspace};

/// The compiler with a prebuilt `core` for BPF, as Debian names it.
pub const COMPILER: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "rust-web-clippy",
    "libstd-rust-web-dev-bpf",
];

/// How a package shows that it is installed. Asking for what is used, and not for the package, also accepts what was
/// installed in another way.
enum Evidence {
    Program(&'static str),
    File(&'static str),
}
use Evidence::{File as Exists, Program};

/// The lab's hosts, servers and tools, and the package that has each.
const LAB: [(Evidence, &str); 19] = [
    (Program("cc"), "gcc"),
    (Exists("/usr/include/stdlib.h"), "libc6-dev"),
    (Exists("/etc/ssl/certs/ca-certificates.crt"), "ca-certificates"),
    (Program("ip"), "iproute2"),
    (Program("nft"), "nftables"),
    (Program("ethtool"), "ethtool"),
    (Program("bpftool"), "bpftool"),
    (Program("sysctl"), "procps"),
    (Program("nsenter"), "util-linux"),
    (Program("ping"), "iputils-ping"),
    (Program("arping"), "iputils-arping"),
    (Program("tcpdump"), "tcpdump"),
    (Program("curl"), "curl"),
    (Program("openssl"), "openssl"),
    (Program("wrk"), "wrk"),
    (Program("h2load"), "nghttp2-client"),
    (Program("haproxy"), "haproxy"),
    (Program("nginx"), "nginx-light"),
    (
        Exists("/usr/lib/nginx/modules/ngx_stream_module.so"),
        "libnginx-mod-stream",
    ),
];

/// What tests on other kernels use beyond the lab: an emulator, and what takes kernels and programs apart.
const KERNELS: [(Evidence, &str); 6] = [
    (Program("qemu-system-x86_64"), "qemu-system-x86"),
    (Program("dpkg-deb"), "dpkg"),
    (Program("xz"), "xz-utils"),
    (Program("strip"), "binutils"),
    (Program("ldd"), "libc-bin"),
    (Program("timeout"), "coreutils"),
];

/// What the tests use beyond the lab: a Debian system of its own, in which the package is installed.
const TESTS: [(Evidence, &str); 2] = [
    (Program("debootstrap"), "debootstrap"),
    (Program("systemd-nspawn"), "systemd-container"),
];

/// The packages of the lab that are not installed.
pub fn missing_for_lab() -> Vec<String> {
    missing(&LAB)
}

/// What only tests on other kernels use and is not installed.
pub fn missing_for_kernels() -> Vec<String> {
    missing(&KERNELS)
}

/// What only tests use and is not installed.
pub fn missing_for_tests() -> Vec<String> {
    missing(&TESTS)
}

fn missing(packages: &[(Evidence, &str)]) -> Vec<String> {
    let is_there = |evidence: &Evidence| match evidence {
        Program(name) => process::find(name).is_some(),
        Exists(path) => Path::new(path).exists(),
    };
    packages
        .iter()
        .filter(|(evidence, _)| !is_there(evidence))
        .map(|(_, package)| (*package).to_owned())
        .collect()
}

/// Installs packages without starting or enabling the daemons in them: the lab starts its own copies, in network
/// namespaces. Nothing is ever removed to make room (`--no-remove`).
///
/// `$1` is `update` or `-`; the packages follow.
const INSTALL: &str = r#"
set -e
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
    trap 'rm -f "$guard"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$guard"
    chmod 755 "$guard"
fi
apt="apt-get -q -y -o DPkg::Lock::Timeout=120"
[ "$1" != update ] || $apt update
shift
$apt install --no-install-recommends --no-remove "$@"
for package in "$@"; do
    case $package in
        nginx-light) daemon=nginx ;;
        haproxy) daemon=haproxy ;;
        *) continue ;;
    esac
    update-rc.d "$daemon" disable
done
"#;

/// The distribution's package manager, with the right to use it.
pub struct Installer {
    lists_are_fresh: bool,
}

impl Installer {
    /// # Errors
    /// When there is no apt, or no way to become root.
    pub fn new() -> Result<Self> {
        if process::find("apt-get").is_none() {
            bail!(
                "this system has no apt: install by its own means what the Debian packages named below contain"
            );
        }
        sudo::as_root("sh", &[])?;
        Ok(Self {
            lists_are_fresh: false,
        })
    }

    /// Installs these packages. What apt says goes to a log.
    ///
    /// # Errors
    /// When apt fails, with the end of the log.
    pub fn install(&mut self, packages: &[String]) -> Result<()> {
        println!("installing {} ...", packages.join(" "));
        let log = workspace::tools().join("apt.log");
        fs::create_dir_all(workspace::tools()).context("cannot create target/tools")?;
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let environment = [("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())];
        let update = if self.lists_are_fresh { "-" } else { "update" };
        let status = sudo::as_root("sh", &environment)?
            .args(["-c", INSTALL, "sh", update])
            .args(packages)
            .stdin(Stdio::null())
            .stderr(file.try_clone().context("cannot share the log")?)
            .stdout(file)
            .status()
            .context("cannot start apt-get")?;
        if !status.success() {
            bail!(
                "apt-get failed ({status}):\n{}{}",
                last_lines(&log),
                by_hand(packages)
            );
        }
        self.lists_are_fresh = true;
        Ok(())
    }
}

/// What someone who may become root should type.
pub fn by_hand(packages: &[String]) -> String {
    let list = packages.join(" ");
    format!("run as root: apt-get update && apt-get install -y --no-install-recommends {list}")
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(15);
    lines
        .iter()
        .skip(start)
        .map(|line| format!("    {line}\n"))
        .collect()
}
