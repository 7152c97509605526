//! What is in the package, as dpkg tells.

use std::process::Command;

use anyhow::{Result, ensure};
use lb_tests::programs;
use xtask::process;

/// Name and mode of what must be there.
const FILES: [(&str, &str); 15] = [
    ("./usr/sbin/lbd", "-rwxr-xr-x root/root"),
    ("./usr/bin/lbctl", "-rwxr-xr-x root/root"),
    ("./usr/lib/systemd/system/lbd.service", "-rw-r--r-- root/root"),
    ("./usr/share/man/man8/lbd.8.gz", "-rw-r--r-- root/root"),
    ("./usr/share/man/man8/lbctl.8.gz", "-rw-r--r-- root/root"),
    (
        "./usr/share/man/man8/lbctl-backend-drain.8.gz",
        "-rw-r--r-- root/root",
    ),
    (
        "./usr/share/bash-completion/completions/lbctl",
        "-rw-r--r-- root/root",
    ),
    (
        "./usr/share/bash-completion/completions/lbd",
        "-rw-r--r-- root/root",
    ),
    (
        "./usr/share/zsh/vendor-completions/_lbctl",
        "-rw-r--r-- root/root",
    ),
    (
        "./usr/share/fish/vendor_completions.d/lbctl.fish",
        "-rw-r--r-- root/root",
    ),
    ("./usr/share/doc/lbd/examples/lb.toml", "-rw-r--r-- root/root"),
    (
        "./usr/share/doc/lbd/examples/local-nginx.conf",
        "-rw-r--r-- root/root",
    ),
    ("./usr/share/doc/lbd/copyright", "-rw-r--r-- root/root"),
    ("./usr/share/doc/lbd/changelog.gz", "-rw-r--r-- root/root"),
    ("./etc/lb/", "drwxr-xr-x root/root"),
];

pub(crate) fn contents() -> Result<()> {
    let package = programs::package()?;
    let list = process::output(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
    for (name, mode) in FILES {
        let line = list
            .lines()
            .find(|line| line.split_whitespace().nth(5) == Some(name));
        ensure!(
            line.is_some_and(|line| line.starts_with(mode)),
            "{name} should be there as {mode}:\n{list}"
        );
    }
    let strange = list.lines().find(|line| !line.contains(" root/root "));
    ensure!(strange.is_none(), "{strange:?}");

    let field = |name: &str| {
        process::output(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name))
            .map(|value| value.trim().to_owned())
    };
    ensure!(field("Package")? == "lbd");
    ensure!(field("Version")? == env!("CARGO_PKG_VERSION"));
    ensure!(
        field("Depends")?.starts_with("libc6 (>= 2."),
        "{}",
        field("Depends")?
    );
    Ok(())
}
