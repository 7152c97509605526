//! Everything that an operator may get wrong: a clear word, and what runs goes on.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use lb_tests::programs;
use xtask::lab::{Lab, Node};

use crate::support::lbctl::{Said, lbctl, run};
use crate::support::site;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("bad_input/second_lbd", second_lbd),
        Case::new("bad_input/object_of_another_abi", object_of_another_abi),
        Case::new("bad_input/ordinary_user", ordinary_user),
        Case::new("bad_input/files_and_names", files_and_names),
    ]
}

/// Runs another `lbd` on the balancer's host, which must refuse to start and leave everything as it is.
fn refused(lab: &Lab, config: &Path, arguments: &[&str]) -> Result<Said> {
    let before = site::running_state(lab)?;
    let mut command = lab.command(Node::Lb, programs::lbd()?)?;
    let said = run(command.arg("--config").arg(config).args(arguments))?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(
        site::running_state(lab)? == before,
        "it changed {:?}",
        site::running_state(lab)?
    );
    site::assert_split(lab, 10, 5, 5)?;
    Ok(said)
}

/// The lab's configuration with another socket, state and metrics, in a directory of its own.
fn elsewhere(lab: &Lab) -> Result<std::path::PathBuf> {
    let directory = lab.file("elsewhere");
    fs::create_dir_all(directory.join("state"))?;
    let own = lab.directory().display().to_string();
    let text = fs::read_to_string(lab.file("lb.toml"))?
        .replace(&format!("{own}/lbd.sock"), &format!("{own}/elsewhere/lbd.sock"))
        .replace(&format!("{own}/state"), &format!("{own}/elsewhere/state"))
        .replace(&format!("{own}/site.key"), &format!("{own}/elsewhere/site.key"))
        .replace("127.0.0.1:9100", "127.0.0.1:9101");
    fs::copy(lab.file("site.key"), directory.join("site.key"))?;
    let file = directory.join("lb.toml");
    fs::write(&file, text)?;
    Ok(file)
}

fn second_lbd() -> Result<()> {
    let lab = site::up("lb-t-second")?;
    let said = refused(&lab, &lab.file("lb.toml"), &[])?;
    ensure!(
        said.err
            .contains("lbd.sock: another lbd is running and listens here"),
        "{said:?}"
    );
    let file = elsewhere(&lab)?;
    let said = refused(&lab, &file, &[])?;
    ensure!(said.err.contains("another lbd uses it"), "{said:?}");
    let with_other_pins = fs::read_to_string(&file)?.replace("/bpf/lb\"", "/bpf/other\"");
    fs::write(&file, with_other_pins)?;
    let said = refused(&lab, &file, &[])?;
    ensure!(
        said.err.contains("uplink") && said.err.contains("another XDP program is attached there"),
        "{said:?}"
    );
    let said = refused(&lab, &elsewhere(&lab)?, &["--log", "!!"])?;
    ensure!(said.err.contains("not a log filter"), "{said:?}");
    lab.down()
}

fn object_of_another_abi() -> Result<()> {
    let lab = site::up("lb-t-abi")?;
    let mut object = fs::read(programs::object("lb-ebpf")?)?;
    let other = lab.file("other.o");
    fs::write(&other, patched(&mut object)?)?;
    let path = other.display().to_string();
    let said = refused(&lab, &elsewhere(&lab)?, &["--object", &path])?;
    ensure!(
        said.err.contains(&path) && said.err.contains("the eBPF object has ABI version"),
        "{said:?}"
    );
    fs::write(&other, "no object")?;
    let said = refused(&lab, &elsewhere(&lab)?, &["--object", &path])?;
    ensure!(
        said.err.contains("not an eBPF object of this project"),
        "{said:?}"
    );
    let said = refused(&lab, &elsewhere(&lab)?, &["--object", "/nowhere.o"])?;
    ensure!(
        said.err.contains("/nowhere.o: cannot read the eBPF object"),
        "{said:?}"
    );
    lab.down()
}

/// The object with another number in its section `lb_abi`, found by way of the ELF section headers (elf(5)).
fn patched(object: &mut [u8]) -> Result<&[u8]> {
    let number = |object: &[u8], at: usize, size: usize| -> Result<usize> {
        let bytes = object.get(at..at + size).context("the object is too short")?;
        let mut word = [0; 8];
        word[..size].copy_from_slice(bytes);
        Ok(usize::try_from(u64::from_le_bytes(word))?)
    };
    let (headers, count) = (number(object, 0x28, 8)?, number(object, 0x3c, 2)?);
    let header = |index: usize| headers + index * 64;
    let names = number(object, header(number(object, 0x3e, 2)?) + 0x18, 8)?;
    for index in 0..count {
        let name = names + number(object, header(index), 4)?;
        if object
            .get(name..)
            .is_some_and(|name| name.starts_with(b"lb_abi\0"))
        {
            let at = number(object, header(index) + 0x18, 8)?;
            let byte = object.get_mut(at).context("the section is outside")?;
            *byte = byte.wrapping_add(1);
            return Ok(object);
        }
    }
    anyhow::bail!("the object has no section lb_abi")
}

fn ordinary_user() -> Result<()> {
    const NOBODY: u32 = 65534;
    let lab = site::up("lb-t-nobody")?;
    let config = elsewhere(&lab)?;
    let directory = config.parent().context("no directory")?;
    // So that it gets as far as the kernel.
    for path in [
        directory.to_owned(),
        directory.join("state"),
        directory.join("site.key"),
    ] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    let program = directory.join("lbd");
    fs::copy(programs::lbd()?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let as_nobody = |program: &Path, arguments: &[&str]| -> Result<Said> {
        let mut command = lab.command(Node::Lb, "setpriv")?;
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ]);
        run(command.arg(program).args(arguments))
    };
    let before = site::running_state(&lab)?;
    let said = as_nobody(&program, &["--config", &config.display().to_string()])?;
    ensure!(said.code == 1 && said.err.contains("CAP_BPF"), "{said:?}");

    let program = directory.join("lbctl");
    fs::copy(programs::lbctl()?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let socket = lab.file("lbd.sock").display().to_string();
    let said = as_nobody(&program, &["--socket", &socket, "backend", "drain", "web1"])?;
    ensure!(
        said.code == 3 && said.err.contains("no permission to talk to lbd"),
        "{said:?}"
    );
    ensure!(
        site::running_state(&lab)? == before,
        "it changed {:?}",
        site::running_state(&lab)?
    );
    lab.down()
}

fn files_and_names() -> Result<()> {
    let mut lab = site::up("lb-t-names")?;
    let before = site::running_state(&lab)?;
    for (arguments, code, words) in [
        (
            &["backend", "drain", "web9"][..],
            4,
            &["no backend \"web9\"", "www/web1"][..],
        ),
        (
            &["backend", "drain", "nobody/web1"],
            4,
            &["no service \"nobody\"", "www-http"],
        ),
        (&["service", "show", "nobody"], 4, &["nobody"]),
        (&["backend", "weight", "web1", "257"], 2, &["0 to 256"]),
        (&["backend", "add", "www/web3", "198.18.1.2:443"], 1, &["web1"]),
        (&["backend", "add", "www/web1", "198.18.1.9:443"], 1, &["web1"]),
        (
            &["backend", "add", "nobody/web3", "198.18.1.9:443"],
            4,
            &["nobody"],
        ),
        (
            &["backend", "add", "www/web3", "203.0.113.10:443"],
            1,
            &["203.0.113.10"],
        ),
        (&["config", "check", "/nowhere.toml"], 5, &["/nowhere.toml"]),
        (&["dance"], 2, &["dance"]),
    ] {
        let said = lbctl(&lab, arguments)?;
        ensure!(said.code == code, "{arguments:?}: {said:?}");
        for word in words {
            ensure!(
                said.err.contains(word),
                "{arguments:?}: no {word:?} in {}",
                said.err
            );
        }
    }
    let bad = lab.file("bad.toml");
    let text = fs::read_to_string(lab.file("lb.toml"))?;
    fs::write(
        &bad,
        text.replace("port = 443", "port = 70000")
            .replace("rise = 2", "rise = -1")
            .replace("nat", "gnat"),
    )?;
    let path = bad.display().to_string();
    let mut lbd = lab.command(Node::Lb, programs::lbd()?)?;
    let check = run(lbd.args(["--check", "--config", &path]))?;
    let start = refused(&lab, &bad, &[])?;
    let mut lbctl_check = lab.command(Node::Lb, programs::lbctl()?)?;
    let by_lbctl = run(lbctl_check.args(["config", "check", &path]))?;
    ensure!((check.code, by_lbctl.code) == (1, 5), "{check:?} {by_lbctl:?}");
    for said in [&check, &start, &by_lbctl] {
        for word in ["bad.toml:13", "70000", "rise = -1"] {
            ensure!(said.err.contains(word), "no {word:?} in {}", said.err);
        }
    }
    ensure!(
        site::running_state(&lab)? == before,
        "it changed {:?}",
        site::running_state(&lab)?
    );

    ensure!(lab.stop_lbd()?, "lbd was not running");
    let said = lbctl(&lab, &["status"])?;
    ensure!(
        said.code == 3 && said.err.contains("lbd is not running"),
        "{said:?}"
    );
    lab.down()
}
