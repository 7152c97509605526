//! What dpkg is told about the package.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{NAME, config, tree::Tree};
use crate::process;

/// The workspace's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes `DEBIAN/` for what is in the tree.
pub(super) fn write(tree: &Tree) -> Result<()> {
    let binaries = ["usr/sbin/lbd", "usr/bin/lbctl"].map(|place| fs::read(tree.root().join(place)));
    let [lbd, lbctl] = binaries;
    let glibc = newest_glibc(&lbd?).max(newest_glibc(&lbctl?));
    let glibc =
        glibc.context("lbd asks for no version of glibc: is it an executable for Linux with glibc?")?;
    let text = control(&architecture()?, glibc, installed_kibibytes(tree.root())?);
    let sums = process::output(
        Command::new("sh")
            .args(["-c", "find etc usr -type f -print0 | sort -z | xargs -0 md5sum"])
            .current_dir(tree.root()),
    )?;
    tree.write("DEBIAN/control", text.as_bytes())?;
    tree.write("DEBIAN/md5sums", sums.as_bytes())?;
    for script in ["postinst", "prerm", "postrm"] {
        tree.copy(
            &config(&format!("debian/{script}")),
            &format!("DEBIAN/{script}"),
            0o755,
        )?;
    }
    Ok(())
}

/// As dpkg calls this machine's.
pub(super) fn architecture() -> Result<String> {
    let name = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(name.trim().to_owned())
}

fn control(architecture: &str, (major, minor): (u32, u32), kibibytes: u64) -> String {
    format!(
        "Package: {NAME}\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: The lb developers <root@localhost>\n\
         Section: net\n\
         Priority: optional\n\
         Installed-Size: {kibibytes}\n\
         Depends: libc6 (>= {major}.{minor}), libgcc-s1, init-system-helpers\n\
         Suggests: openssh-client, ethtool, iproute2\n\
         Description: layer-4 load balancer in XDP\n \
         Balances TCP and UDP connections to virtual IP addresses among servers, in the\n \
         kernel, before its network stack. With health checks, draining, and the\n \
         configuration of the nginx that terminates TLS on the servers.\n \
         .\n \
         lbd is the daemon, with the kernel program inside it; lbctl controls it. Needs\n \
         Linux 6.1 or later. Write /etc/lb/lb.toml, then start lbd.service.\n"
    )
}

/// The newest version of glibc that an executable asks for: its symbols' versions stand in it as `GLIBC_2.34`.
fn newest_glibc(executable: &[u8]) -> Option<(u32, u32)> {
    const BEFORE: &[u8] = b"\0GLIBC_";
    let version = |at: usize| {
        let text = executable
            .get(at + BEFORE.len()..)?
            .split(|byte| *byte == 0)
            .next()?;
        let mut numbers = std::str::from_utf8(text).ok()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let places = executable.windows(BEFORE.len()).enumerate();
    places
        .filter(|(_, window)| *window == BEFORE)
        .filter_map(|(at, _)| version(at))
        .max()
}

/// As Debian policy 5.6.20 counts it.
fn installed_kibibytes(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            1 + installed_kibibytes(&entry.path())?
        } else {
            metadata.len().div_ceil(1024)
        };
    }
    Ok(sum)
}

/// `usr/share/doc/lbd/copyright`.
pub(super) fn copyright(mit: &str) -> String {
    format!(
        "lbd and lbctl are licensed under the MIT licence or the Apache License 2.0, at your option; the kernel program\n\
         inside lbd under the MIT licence or the GNU General Public License 2.0. On Debian systems the latter two are in\n\
         /usr/share/common-licenses/Apache-2.0 and /usr/share/common-licenses/GPL-2. The libraries from crates.io that are\n\
         linked into the programs have licences of their own, named in their packages.\n\nThe MIT licence:\n\n{mit}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_glibc_is_found_as_a_number() {
        let executable = b"\x7fELF\0GLIBC_2.9\0x\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0NOT_GLIBC_2.99\0";
        assert_eq!(newest_glibc(executable), Some((2, 34)));
        assert_eq!(newest_glibc(b"\0GLIBC_\0"), None);
        assert_eq!(newest_glibc(b"\0GLIBC_2"), None);
    }

    #[test]
    fn dpkg_can_read_what_it_is_told() {
        let text = control("amd64", (2, 34), 20_000);
        for line in text.lines() {
            assert!(line.starts_with(' ') || line.contains(": "), "{line:?}");
            assert!(line.len() < 100, "{line:?}");
        }
        assert!(text.contains("\nDepends: libc6 (>= 2.34), libgcc-s1,"), "{text}");
        assert!(text.ends_with('\n'));
    }
}
