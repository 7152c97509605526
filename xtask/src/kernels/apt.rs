//! Asking apt for packages that are not to be installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{directory, package};
use crate::process;

/// The keys that Debian signs with, as its systems have them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists of packages: the options that make apt use them.
pub(super) struct Lists(Vec<String>);

impl Lists {
    /// Those that the system is set up with, as old as they are.
    pub(super) fn of_the_system() -> Self {
        Self(Vec::new())
    }

    /// Those of one suite of Debian's, from the mirror that the system uses. They are kept apart from the system's own, which
    /// stay as they are.
    ///
    /// # Errors
    /// When the system uses no mirror of Debian's, or that does not have the suite.
    pub(super) fn of_suite(suite: &str) -> Result<Self> {
        let place = directory().join("apt");
        let lists = place.join("lists");
        fs::create_dir_all(lists.join("partial"))
            .with_context(|| format!("cannot make {}", lists.display()))?;
        let sources = place.join("suite.sources");
        fs::write(&sources, source(&mirror()?, suite))
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let options = [
            ("Dir::Etc::SourceList", sources.as_path()),
            ("Dir::Etc::SourceParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &lists),
            ("Dir::Cache", &place),
        ];
        let lists = Self(
            options
                .map(|(name, value)| format!("--option={name}={}", value.display()))
                .into(),
        );
        process::output(lists.apt("apt-get").args(["--quiet", "--quiet", "update"]))?;
        Ok(lists)
    }

    /// The names of all packages that begin so, one a line.
    pub(super) fn names(&self, beginning: &str) -> Result<String> {
        process::output(self.apt("apt-cache").args(["pkgnames", beginning]))
    }

    /// Fetches a package into a directory; returns its file.
    pub(super) fn download(&self, name: &str, to: &Path) -> Result<PathBuf> {
        let mut command = self.apt("apt-get");
        command
            .args(["--quiet", "--quiet", "download", name])
            .current_dir(to);
        process::output(&mut command)?;
        package::find(to, &format!("{name}_"))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Else a download as root is handed over to a user who may not write where it goes.
        command.args(&self.0).arg("--option=APT::Sandbox::User=root");
        command
    }
}

/// Where the system gets Debian's packages from.
fn mirror() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)",
    ]);
    command.arg("Created-By: Packages");
    match mirror_of(&process::output(&mut command)?) {
        Some(mirror) => Ok(mirror),
        None => bail!("it uses no mirror of Debian's, which would have older ones"),
    }
}

/// Of lines of origin, component, codename and address: the first release's, which has no suite in its codename.
fn mirror_of(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Debian", "main", codename, address] if !codename.contains('-') => Some((*address).to_owned()),
            _ => None,
        }
    })
}

fn source(mirror: &str, suite: &str) -> String {
    let mut text = format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n");
    if Path::new(KEYRING).exists() {
        text += &format!("Signed-By: {KEYRING}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_release() {
        let targets = "Other main stable https://other.example/\n\
                       Debian main trixie-security https://mirror.example/debian-security/\n\
                       Debian contrib trixie https://mirror.example/contrib/\n\
                       Debian main trixie https://mirror.example/debian/\n";
        assert_eq!(
            mirror_of(targets).as_deref(),
            Some("https://mirror.example/debian/")
        );
        assert_eq!(
            mirror_of("Ubuntu main noble https://mirror.example/ubuntu/\n"),
            None
        );
    }
}
