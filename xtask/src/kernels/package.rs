//! Kernels of the distribution: found, fetched and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{apt::Lists, directory};
use crate::process;

/// A kernel to test on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The first numbers of its version.
    pub(super) version: &'static str,
    /// The suite of Debian's that has it, for systems whose own suites do not.
    pub(super) suite: &'static str,
}

/// One that is ready to be booted.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The package that it came in.
    pub(super) package: String,
    /// Where it is, and where what is made for it may be put.
    pub(super) directory: PathBuf,
    /// The compressed kernel.
    pub(super) image: PathBuf,
    /// The only driver that the tests need and that is not built in.
    pub(super) veth: PathBuf,
}

impl Kernel {
    /// This kernel, fetched if it has not been yet.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) fn unpacked(self) -> Result<Unpacked> {
        let directory = directory().join(self.version);
        let unpacked = |package| Unpacked {
            package,
            image: directory.join("vmlinuz"),
            veth: directory.join("veth.ko"),
            directory: directory.clone(),
        };
        // Written last.
        let complete = directory.join("package");
        if let Ok(package) = fs::read_to_string(&complete) {
            return Ok(unpacked(package));
        }
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let (lists, package) = self.find()?;
        println!("fetching {package} ...");
        let found = unpacked(package.clone());
        unpack(&lists.download(&package, &directory)?, &found)?;
        fs::write(&complete, package).with_context(|| format!("cannot write {}", complete.display()))?;
        Ok(found)
    }

    /// The package, and where it was found: in the system's own lists, or in Debian's suite.
    fn find(self) -> Result<(Lists, String)> {
        let system = Lists::of_the_system();
        if let Some(package) = self.newest(&system)? {
            return Ok((system, package));
        }
        let suite = Lists::of_suite(self.suite)
            .with_context(|| format!("this system's package lists have no Linux {}", self.version))?;
        match self.newest(&suite)? {
            Some(package) => Ok((suite, package)),
            None => bail!(
                "neither this system's package lists nor {} have Linux {}",
                self.suite,
                self.version
            ),
        }
    }

    /// Of Debian's kernels for virtual machines, which have few drivers: the signed ones are in other packages.
    fn newest(self, lists: &Lists) -> Result<Option<String>> {
        let names = lists.names(&format!("linux-image-{}.", self.version))?;
        Ok(newest(names.lines()))
    }
}

fn newest<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .filter(|name| name.ends_with("-cloud-amd64-unsigned"))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
}

/// All numbers in a name, in order.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Takes what is needed out of a package, and removes it.
fn unpack(package: &Path, to: &Unpacked) -> Result<()> {
    let tree = to.directory.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    process::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&tree))?;
    let image = find(&tree.join("boot"), "vmlinuz-")?;
    fs::rename(&image, &to.image).with_context(|| format!("cannot move {}", image.display()))?;
    let modules = find(&tree.join("lib/modules"), "")?;
    let veth = find(&modules.join("kernel/drivers/net"), "veth.ko")?;
    fs::write(&to.veth, uncompressed(&veth)?)
        .with_context(|| format!("cannot write {}", to.veth.display()))?;
    fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    fs::remove_file(package).with_context(|| format!("cannot remove {}", package.display()))
}

/// The only entry of a directory whose name begins so.
pub(super) fn find(directory: &Path, beginning: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(beginning)
        });
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        _ => bail!("not exactly one {beginning}* in {}", directory.display()),
    }
}

/// Newer kernels' modules are compressed.
fn uncompressed(module: &Path) -> Result<Vec<u8>> {
    match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::read(module).with_context(|| format!("cannot read {}", module.display())),
        Some("xz") => {
            let mut command = Command::new("xz");
            command.args(["--decompress", "--stdout"]).arg(module);
            let output = command
                .output()
                .with_context(|| format!("cannot start {}", process::shown(&command)))?;
            if !output.status.success() {
                bail!("{} failed ({})", process::shown(&command), output.status);
            }
            Ok(output.stdout)
        }
        _ => bail!("do not know how {} is compressed", module.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_told_by_numbers_and_not_by_letters() {
        let names = [
            "linux-image-6.12.99+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.115+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.200+deb12-amd64-unsigned",
            "linux-image-6.12.200+deb12-cloud-amd64",
        ];
        let expected = "linux-image-6.12.117+deb12-cloud-amd64-unsigned";
        assert_eq!(newest(names.into_iter()).as_deref(), Some(expected));
        let names = [
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-10-cloud-amd64-unsigned",
        ];
        assert_eq!(newest(names.into_iter()).as_deref(), Some(names[1]));
        assert_eq!(newest(std::iter::empty()), None);
    }
}
