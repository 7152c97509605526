//! The Debian package, staged as a tree of files and packed by `dpkg-deb`.
//!
//! `dpkg-deb` is on every Debian system and needs no root for it, and the tree shows before packing what will be where.
//! cargo-deb would do the same after compiling for minutes, and hide the maintainer scripts.

mod control;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, userspace::Binaries, workspace};
use tree::Tree;

/// The package's name, and the daemon's.
pub const NAME: &str = "lbd";

/// Builds the package from programs that have been built; returns its file.
///
/// # Errors
/// When `dpkg-deb` or another tool is missing or fails.
pub fn build(binaries: &Binaries) -> Result<PathBuf> {
    if process::find("dpkg-deb").is_none() {
        bail!("there is no dpkg-deb: a Debian package can be built on Debian and its derivatives");
    }
    let directory = workspace::root().join("target/package");
    let tree = Tree::new(directory.join("tree"))?;
    programs(&tree, binaries)?;
    service(&tree)?;
    completions(&tree, binaries)?;
    manual(&tree, binaries, &directory.join("manual"))?;
    documentation(&tree)?;
    control::write(&tree)?;

    let architecture = control::architecture()?;
    let file = directory.join(format!("{NAME}_{}_{architecture}.deb", control::VERSION));
    process::run(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(tree.root())
            .arg(&file)
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(file)
}

fn programs(tree: &Tree, binaries: &Binaries) -> Result<()> {
    for (program, place) in [
        (&binaries.lbd, "usr/sbin/lbd"),
        (&binaries.lbctl, "usr/bin/lbctl"),
    ] {
        let to = tree.copy(program, place, 0o755)?;
        // Where there is no strip it is only larger.
        if let Some(strip) = process::find("strip") {
            process::run(Command::new(strip).arg("--strip-unneeded").arg(to))?;
        }
    }
    Ok(())
}

fn service(tree: &Tree) -> Result<()> {
    tree.copy(
        &config("systemd/lbd.service"),
        "usr/lib/systemd/system/lbd.service",
        0o644,
    )?;
    tree.directory("etc/lb").map(drop)
}

/// Where bash, zsh and fish look for them.
fn completions(tree: &Tree, binaries: &Binaries) -> Result<()> {
    for (shell, directory, before, after) in [
        ("bash", "usr/share/bash-completion/completions", "", ""),
        ("zsh", "usr/share/zsh/vendor-completions", "_", ""),
        ("fish", "usr/share/fish/vendor_completions.d", "", ".fish"),
    ] {
        let lbd = process::output(Command::new(&binaries.lbd).args(["print", shell]))?;
        let lbctl = process::output(Command::new(&binaries.lbctl).args(["completions", shell]))?;
        for (program, script) in [("lbd", lbd), ("lbctl", lbctl)] {
            tree.write(
                &format!("{directory}/{before}{program}{after}"),
                script.as_bytes(),
            )?;
        }
    }
    Ok(())
}

fn manual(tree: &Tree, binaries: &Binaries, scratch: &Path) -> Result<()> {
    const PAGES: &str = "usr/share/man/man8";
    let lbd = process::output(Command::new(&binaries.lbd).args(["print", "man"]))?;
    tree.write_compressed(&format!("{PAGES}/lbd.8.gz"), lbd.as_bytes())?;
    // Pages of commands that are no more.
    if scratch.exists() {
        fs::remove_dir_all(scratch)?;
    }
    process::run(Command::new(&binaries.lbctl).arg("manual-pages").arg(scratch))?;
    for page in fs::read_dir(scratch).with_context(|| format!("cannot read {}", scratch.display()))? {
        let page = page?;
        let name = format!("{PAGES}/{}.gz", page.file_name().to_string_lossy());
        tree.write_compressed(&name, &fs::read(page.path())?)?;
    }
    Ok(())
}

fn documentation(tree: &Tree) -> Result<()> {
    let root = workspace::root();
    let directory = format!("usr/share/doc/{NAME}");
    let examples = format!("{directory}/examples");
    tree.copy(&config("lb.toml"), &format!("{examples}/lb.toml"), 0o644)?;
    tree.copy(
        &config("systemd/local-nginx.conf"),
        &format!("{examples}/local-nginx.conf"),
        0o644,
    )?;
    tree.copy(&root.join("README.md"), &format!("{directory}/README.md"), 0o644)?;
    tree.write_compressed(
        &format!("{directory}/changelog.gz"),
        &fs::read(root.join("CHANGELOG.md"))?,
    )?;
    let mit = fs::read_to_string(root.join("LICENSE-MIT"))?;
    tree.write(
        &format!("{directory}/copyright"),
        control::copyright(&mit).as_bytes(),
    )
}

fn config(name: &str) -> PathBuf {
    workspace::root().join("config").join(name)
}
