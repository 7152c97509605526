//! What a guest has in its memory from the start.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    archive::Archive,
    package::Unpacked,
    plan::{HARNESS, MODULES, Plan, TASK, Task},
};
use crate::process;

/// Where the kernel crate's objects are in the guest.
pub(super) const OBJECTS: &str = "/objects";

/// Places for the guest's first process to mount on.
const EMPTY: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// Packs it, and returns the archive's file, beside the kernel's.
pub(super) fn build(kernel: &Unpacked, plan: &Plan) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for directory in EMPTY {
        archive.directory(directory)?;
    }
    let task = Task {
        arguments: plan.arguments.clone(),
        environment: plan.environment.clone(),
    };
    archive.file(TASK, serde_json::to_string(&task)?.as_bytes())?;
    let module = format!("{MODULES}/veth.ko");
    archive.file(&module, &read(&kernel.veth)?)?;

    let this = std::env::current_exe().context("cannot tell which file this program is")?;
    let scratch = kernel.directory.join("stripped");
    for (program, place) in [(&this, "/init"), (&plan.harness, HARNESS)] {
        archive.file(place, &stripped(program, &scratch)?)?;
    }
    for tool in &plan.tools {
        let name = tool.file_name().context("a tool without a name")?;
        archive.file(&format!("/bin/{}", name.to_string_lossy()), &read(tool)?)?;
    }
    let programs = [&this, &plan.harness].into_iter().chain(&plan.tools);
    for library in libraries(programs)? {
        archive.file(&library, &read(Path::new(&library))?)?;
    }
    for object in
        fs::read_dir(&plan.objects).with_context(|| format!("cannot read {}", plan.objects.display()))?
    {
        let object = object?.path();
        // Objects have no extension, and the rest there is of no use.
        if object.is_file() && object.extension().is_none() {
            let name = object.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("{OBJECTS}/{name}"), &read(&object)?)?;
        }
    }
    let file = kernel.directory.join("initramfs.cpio");
    fs::write(&file, archive.end()?).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The program without what is for debuggers, which is most of it.
fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    process::run(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(scratch)
            .arg(program),
    )?;
    read(scratch)
}

/// The shared libraries that these programs need, the loader included, as this system has them.
fn libraries<'a>(programs: impl Iterator<Item = &'a PathBuf>) -> Result<BTreeSet<String>> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let printed = process::output(Command::new("ldd").arg(program))?;
        if printed.contains("not found") {
            bail!("{} lacks a library:\n{printed}", program.display());
        }
        libraries.extend(paths(&printed));
    }
    Ok(libraries)
}

/// Lines are `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)`, or of a library that is no file.
fn paths(printed: &str) -> impl Iterator<Item = String> {
    printed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let found: Vec<_> = paths(printed).collect();
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }
}
