//! Configurations that are applied, confirmed, taken back: with a load on them, and with a daemon that is killed in between.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, wait_for};

use crate::support::download::Download;
use crate::support::lbctl::lbctl;
use crate::support::site;
use crate::support::wrk::Wrk;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "apply/unconfirmed_goes_back_under_load",
            unconfirmed_goes_back_under_load,
        ),
        Case::new("apply/confirm_and_rollback", confirm_and_rollback),
        Case::new(
            "apply/killed_before_it_was_confirmed",
            killed_before_it_was_confirmed,
        ),
        Case::new("apply/bad_input_changes_nothing", bad_input_changes_nothing),
    ]
}

const WEB1: &str = "[[service.backend]]\nname = \"web1\"\naddress = \"198.18.1.2\"\n";

/// A configuration file and what lies beside it.
struct Files {
    /// What `lbd` was started with.
    old: String,
    /// The same without `web1` in `www`, in a file of its own.
    new: String,
    /// That file.
    file: String,
}

impl Files {
    fn of(lab: &Lab) -> Result<Self> {
        let old = fs::read_to_string(lab.file("lb.toml"))?;
        ensure!(old.contains(WEB1), "{old}");
        let new = old.replacen(WEB1, "", 1);
        // Elsewhere: paths in it are those of the daemon's own file.
        let file = lab.file("elsewhere.toml");
        fs::write(&file, &new)?;
        Ok(Self {
            old,
            new,
            file: file.display().to_string(),
        })
    }

    fn ensure(lab: &Lab, name: &str, text: &str) -> Result<()> {
        let is = fs::read_to_string(lab.file(name)).with_context(|| name.to_owned())?;
        ensure!(is == text, "{name} is\n{is}");
        Ok(())
    }
}

fn says(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let said = lbctl(lab, arguments)?;
    ensure!(said.code == 0, "{arguments:?}: {said:?}");
    Ok(said.out)
}

fn refuses(lab: &Lab, arguments: &[&str], code: i32, words: &str) -> Result<()> {
    let said = lbctl(lab, arguments)?;
    ensure!(
        said.code == code && said.err.contains(words),
        "{arguments:?}: no {words:?} in {said:?}"
    );
    Ok(())
}

/// Whether `www` has `web1`, for good.
fn has_web1(lab: &Lab) -> Result<bool> {
    let backend = site::find_backend(lab, "www", "web1")?;
    Ok(backend.is_some_and(|it| it.state != lb::api::types::BackendState::Leaving))
}

fn wait_until_back(lab: &Lab) -> Result<()> {
    wait_for("the rollback", Duration::from_secs(10), || {
        let pending = site::status(lab)
            .map_err(|error| format!("{error:#}"))?
            .unconfirmed;
        pending.map_or(Ok(()), |pending| Err(format!("{pending:?}")))
    })?;
    ensure!(has_web1(lab)?, "web1 is not back");
    lab.wait_until_all_up(Duration::from_secs(5))
}

fn unconfirmed_goes_back_under_load() -> Result<()> {
    let lab = site::up("lb-t-confirm")?;
    let files = Files::of(&lab)?;
    let (on_web1, on_web2) = Download::one_from_each(&lab, 2_400_000, 200_000)?;
    // What was changed by hand means nothing without its backend, and comes back with it.
    says(&lab, &["backend", "weight", "www/web2", "3"])?;
    says(&lab, &["backend", "weight", "www/web1", "2"])?;
    let before = site::running_state(&lab)?;
    let load = Wrk::start(&lab, 10)?;
    let said = says(&lab, &["apply", "--confirm", "3s", &files.file])?;
    for words in [
        "backend www/web1: removed; its ",
        "backend www/web1: its override is forgotten",
        "lb.toml has it now; what was there is kept as ",
        "goes back by itself in 3s unless confirmed: lbctl confirm\n",
    ] {
        ensure!(said.contains(words), "no {words:?} in {said}");
    }
    ensure!(!has_web1(&lab)?, "it is not in force");
    Files::ensure(&lab, "lb.toml", &files.new)?;
    Files::ensure(&lab, "lb.toml.previous", &files.old)?;
    let page = says(&lab, &["status"])?;
    ensure!(page.contains("\nunconfirmed  "), "{page}");
    wait_until_back(&lab)?;
    Files::ensure(&lab, "lb.toml", &files.old)?;
    Files::ensure(&lab, "lb.toml.rolled-back", &files.new)?;
    ensure!(
        site::running_state(&lab)? == before,
        "{:?} is not {before:?}",
        site::running_state(&lab)?
    );
    let log = site::log(&lab)?;
    ensure!(
        log.contains("was not confirmed in time") && log.contains("rollback: backend www/web1: added"),
        "{log}"
    );
    on_web1.complete()?;
    on_web2.complete()?;
    load.end_without_errors()?;
    ensure!(
        site::reload(&lab)? == "nothing changed\n",
        "the file is not what runs"
    );
    lab.down()
}

fn confirm_and_rollback() -> Result<()> {
    let lab = site::up("lb-t-rollback")?;
    let files = Files::of(&lab)?;
    refuses(&lab, &["confirm"], 1, "nothing to confirm")?;
    refuses(&lab, &["rollback"], 1, "nothing to roll back")?;
    let load = Wrk::start(&lab, 8)?;

    says(&lab, &["apply", "--confirm", "1h", &files.file])?;
    refuses(&lab, &["apply", &files.file], 1, "waits to be confirmed")?;
    ensure!(
        site::reload(&lab)? == "nothing changed\n",
        "a reload has undone it"
    );
    // What somebody edits meanwhile does not get in by the way, and is not lost.
    let edited = format!("{}# by hand\n", files.new);
    fs::write(lab.file("lb.toml"), &edited)?;
    refuses(&lab, &["reload"], 1, "waits to be confirmed")?;
    let said = says(&lab, &["rollback"])?;
    ensure!(
        said.contains("backend www/web1: added") && said.contains("is as it was before"),
        "{said}"
    );
    Files::ensure(&lab, "lb.toml", &files.old)?;
    Files::ensure(&lab, "lb.toml.rolled-back", &edited)?;
    wait_until_back(&lab)?;

    // Edited in its place, and then applied: what to go back to is what was in force.
    fs::write(lab.file("lb.toml"), &files.new)?;
    let own = lab.file("lb.toml").display().to_string();
    says(&lab, &["apply", "--confirm", "1h", &own])?;
    ensure!(!has_web1(&lab)?, "it is not in force");
    says(&lab, &["rollback"])?;
    Files::ensure(&lab, "lb.toml", &files.old)?;
    wait_until_back(&lab)?;

    says(&lab, &["apply", "--confirm", "2s", &files.file])?;
    let said = says(&lab, &["confirm"])?;
    ensure!(said.starts_with("confirmed: "), "{said}");
    sleep(Duration::from_secs(4));
    ensure!(!has_web1(&lab)?, "it went back although it was confirmed");
    Files::ensure(&lab, "lb.toml", &files.new)?;
    ensure!(
        site::reload(&lab)? == "nothing changed\n",
        "the file is not what runs"
    );

    // Without being asked to confirm; what was before is still there to go back to.
    let previous = lab.file("lb.toml.previous").display().to_string();
    says(&lab, &["apply", &previous])?;
    ensure!(
        site::status(&lab)?.unconfirmed.is_none(),
        "there is something to confirm"
    );
    wait_until_back(&lab)?;
    load.end_without_errors()?;
    lab.down()
}

fn killed_before_it_was_confirmed() -> Result<()> {
    let mut lab = site::up("lb-t-killed")?;
    let files = Files::of(&lab)?;
    let restart = |lab: &mut Lab, pause: Duration| -> Result<()> {
        ensure!(lab.kill_process("lbd")?, "lbd was not running");
        sleep(pause);
        lab.start_lbd()
    };
    // In time: it goes on waiting, and can be confirmed.
    says(&lab, &["apply", "--confirm", "1h", &files.file])?;
    restart(&mut lab, Duration::ZERO)?;
    let pending = site::status(&lab)?.unconfirmed.context("it is forgotten")?;
    ensure!((3500..=3600).contains(&pending.seconds_left), "{pending:?}");
    ensure!(!has_web1(&lab)?, "it went back");
    says(&lab, &["confirm"])?;
    restart(&mut lab, Duration::ZERO)?;
    ensure!(
        !has_web1(&lab)? && site::status(&lab)?.unconfirmed.is_none(),
        "it is not confirmed"
    );

    let previous = lab.file("lb.toml.previous").display().to_string();
    says(&lab, &["apply", &previous])?;
    wait_until_back(&lab)?;
    // Started in time, and then its time is over.
    says(&lab, &["apply", "--confirm", "6s", &files.file])?;
    restart(&mut lab, Duration::ZERO)?;
    ensure!(!has_web1(&lab)?, "it went back before its time");
    wait_until_back(&lab)?;
    Files::ensure(&lab, "lb.toml", &files.old)?;
    // Its time is over when it starts.
    says(&lab, &["apply", "--confirm", "2s", &files.file])?;
    restart(&mut lab, Duration::from_secs(3))?;
    ensure!(
        has_web1(&lab)? && site::status(&lab)?.unconfirmed.is_none(),
        "it did not go back"
    );
    Files::ensure(&lab, "lb.toml", &files.old)?;
    Files::ensure(&lab, "lb.toml.rolled-back", &files.new)?;
    let log = site::log(&lab)?;
    ensure!(
        log.contains("was not confirmed in time, the configuration from before is back"),
        "{log}"
    );
    lab.wait_until_all_up(Duration::from_secs(5))?;
    site::assert_split(&lab, 10, 5, 5)?;
    lab.down()
}

fn bad_input_changes_nothing() -> Result<()> {
    let lab = site::up("lb-t-badapply")?;
    let files = Files::of(&lab)?;
    let state = site::running_state(&lab)?;
    let file = lab.file("bad.toml");
    let named = file.display().to_string();
    let cases = [
        ("[[service]]", "[[service", "bad.toml:10"),
        ("port = 443", "port = 0", "bad.toml:13"),
        (
            "max_connections = 100000",
            "max_connections = 100001",
            "daemon.max_connections",
        ),
        ("name = \"www\"", "name = \"www\"\ncolour = \"red\"", "colour"),
    ];
    for (from, to, words) in cases {
        ensure!(files.old.contains(from), "{}", files.old);
        fs::write(&file, files.new.replacen(from, to, 1))?;
        for arguments in [
            &["plan", &*named][..],
            &["apply", &named],
            &["apply", "--confirm", "1h", &named],
        ] {
            refuses(&lab, arguments, 5, words)?;
        }
    }
    fs::write(&file, [0xff, 0xfe])?;
    refuses(&lab, &["apply", &named], 5, "not UTF-8")?;
    refuses(&lab, &["plan", "/nonexistent.toml"], 5, "/nonexistent.toml")?;
    refuses(&lab, &["apply", "--confirm", "0s", &files.file], 2, "1s to 24h")?;

    // A disk that takes nothing: what there is to confirm cannot be written down, or the file cannot be replaced.
    for in_the_way in [
        "state/unconfirmed.json.new",
        "lb.toml.new",
        "lb.toml.previous.new",
    ] {
        let in_the_way = lab.file(in_the_way);
        fs::create_dir_all(&in_the_way)?;
        refuses(
            &lab,
            &["apply", "--confirm", "1h", &files.file],
            1,
            "nothing was changed",
        )?;
        fs::remove_dir(&in_the_way)?;
        nothing_is_left(&lab, &files)?;
    }
    ensure!(
        site::running_state(&lab)? == state,
        "{:?}",
        site::running_state(&lab)?
    );
    site::assert_split(&lab, 10, 5, 5)?;
    lab.down()
}

fn nothing_is_left(lab: &Lab, files: &Files) -> Result<()> {
    Files::ensure(lab, "lb.toml", &files.old)?;
    let left: [&Path; 3] = [
        &lab.file("state/unconfirmed.json"),
        &lab.file("lb.toml.new"),
        &lab.file("lb.toml.rolled-back"),
    ];
    for file in left {
        ensure!(!file.exists(), "{} is left", file.display());
    }
    ensure!(
        site::status(lab)?.unconfirmed.is_none(),
        "there is something to confirm"
    );
    Ok(())
}
