//! `lbd` is killed, at every moment that it knows a name for, and started again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::failpoint::{Failpoint, VARIABLE};
use lb_tests::harness::Case;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::{Lab, Node, SITE, wait_for};

use crate::row::{row, unnoticed};
use crate::support::lbctl::lbctl;
use crate::support::shared::Shared;
use crate::support::wrk::Wrk;
use crate::support::{is_full, site};

/// Where a moment comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// Whenever it starts.
    Starting,
    /// When it starts and the tables are to have another size.
    Resizing,
    /// When it starts for the first time.
    First,
    /// When it reloads its file.
    Reloading,
    /// When it hands the site to the web servers.
    HandingOff,
    /// Likewise, and nginx refuses.
    Refused,
}

/// Every moment has its place here: one that is new does not compile without.
fn comes(point: Failpoint) -> &'static [Comes] {
    use Comes::{First, HandingOff, Refused, Reloading, Resizing, Starting};
    match point {
        Failpoint::SetMade
        | Failpoint::ProgramLoaded
        | Failpoint::ProgramsPinned
        | Failpoint::TablesFilled
        | Failpoint::ConnectionsCopied
        | Failpoint::SetComplete
        | Failpoint::LinksChanged
        | Failpoint::RestCopied
        | Failpoint::OldSetRemoved
        | Failpoint::OldProgramsRemoved
        | Failpoint::VipsSet => &[Resizing, Starting, First],
        Failpoint::LinkChanged => &[Resizing, Starting],
        Failpoint::Migrated => &[Resizing],
        Failpoint::LinkPinned => &[First],
        Failpoint::NotesWritten
        | Failpoint::CopyHalfWritten
        | Failpoint::CopyWritten
        | Failpoint::CopyActive => &[Reloading, Resizing, Starting, First],
        Failpoint::ReloadComputed
        | Failpoint::ReloadVipsSet
        | Failpoint::ReloadSaved
        | Failpoint::ReloadDone => &[Reloading],
        Failpoint::HandoffStaged
        | Failpoint::HandoffTested
        | Failpoint::HandoffDrained
        | Failpoint::HandoffSwapped
        | Failpoint::HandoffReloaded
        | Failpoint::HandoffVerified
        | Failpoint::HandoffUndrained => &[HandingOff],
        Failpoint::HandoffRestored => &[Refused],
    }
}

/// The rows.
pub(crate) fn cases(lab: &Shared) -> Vec<Case> {
    let mut cases = vec![
        unnoticed(lab, "lbd stopped (SIGTERM), started 2 s later", |lab| {
            ensure!(lab.stop_lbd()?, "lbd was not running");
            std::thread::sleep(Duration::from_secs(2));
            lab.start_lbd()
        }),
        unnoticed(lab, "lbd killed (SIGKILL), started 2 s later", |lab| {
            ensure!(lab.kill_process("lbd")?, "lbd was not running");
            std::thread::sleep(Duration::from_secs(2));
            lab.start_lbd()
        }),
        unnoticed(lab, "nginx refuses its configuration in a hand-off", |lab| {
            with_refusing_nginx(lab, |lab| {
                let said = lbctl(lab, &["site", "apply"])?;
                ensure!(said.code == 1 && said.out.contains("restore"), "{said:?}");
                Ok(())
            })
        }),
        unnoticed(lab, "nginx dies in a hand-off", |lab| {
            lab.stop_nginx(Node::Web2)?;
            let said = lbctl(lab, &["site", "apply"])?;
            let started = lab.start_nginx(Node::Web2);
            ensure!(said.code == 1 && said.err.contains("web2"), "{said:?}");
            started?;
            lab.wait_until_all_up(Duration::from_secs(10))?;
            lab.apply_site()
        }),
        unnoticed(lab, "nginx hangs in a hand-off", |lab| {
            lab.authority()?.issue("site", &[SITE])?;
            // Its workers go on serving, but nobody hears that they shall be replaced.
            let master = lab.process("web2-nginx").context("nginx does not run")?;
            kill(Pid::from_raw(master), Signal::SIGSTOP)?;
            let said = lbctl(lab, &["site", "apply"]);
            kill(Pid::from_raw(master), Signal::SIGCONT)?;
            let said = said?;
            ensure!(said.code == 1 && said.out.contains("restore"), "{said:?}");
            lab.wait_until_all_up(Duration::from_secs(10))?;
            lab.apply_site()
        }),
        unnoticed(lab, "tables made larger and smaller by restarts", |lab| {
            for (from, to) in [(400_000, 800_000), (800_000, 400_000)] {
                resize(lab, from, to)?;
                lab.stop_lbd()?;
                lab.start_lbd()?;
            }
            Ok(())
        }),
    ];
    cases.push(row(
        lab,
        "killed in a migration, and not started for 7 s",
        alone_in_a_migration,
        |verdict| {
            ensure!(
                verdict.downloads.failures.is_empty(),
                "{:?}",
                verdict.downloads.failures
            );
            ensure!(verdict.idle.failures.is_empty(), "{:?}", verdict.idle.failures);
            // Each client that was begun in the five seconds, and gave up within them; the next ones are served.
            let requests = &verdict.requests;
            ensure!(
                requests.failures.len() <= 8 && requests.count > 200,
                "{:?} of {}",
                requests.failures,
                requests.count
            );
            Ok("new connections waited until the migration was given up (5 s), old ones went on".to_owned())
        },
    ));
    for point in Failpoint::ALL.iter().copied() {
        let all = comes(point);
        // Where a moment comes by in several ways, the first one is for every day.
        let usual = if is_full() { all.len() } else { 1 };
        for comes in &all[..usual] {
            let (name, when) = (point.name(), comes);
            let title = format!("killed at {name}, {}", format!("{when:?}").to_lowercase());
            cases.push(match comes {
                Comes::Starting => unnoticed(lab, title, move |lab| starting(lab, point)),
                Comes::Resizing => unnoticed(lab, title, move |lab| resizing(lab, point)),
                Comes::Reloading => unnoticed(lab, title, move |lab| reloading(lab, point)),
                Comes::HandingOff => unnoticed(lab, title, move |lab| handing_off(lab, point)),
                Comes::Refused => unnoticed(lab, title, move |lab| {
                    with_refusing_nginx(lab, |lab| killed_in_hand_off(lab, point))
                }),
                Comes::First => first(lab, title, point),
            });
        }
    }
    cases
}

fn starting(lab: &mut Lab, point: Failpoint) -> Result<()> {
    ensure!(lab.stop_lbd()?, "lbd was not running");
    dies_at(lab, point)?;
    lab.start_lbd()
}

fn alone_in_a_migration(lab: &mut Lab) -> Result<()> {
    ensure!(lab.stop_lbd()?, "lbd was not running");
    resize(lab, 400_000, 600_000)?;
    dies_at(lab, Failpoint::LinksChanged)?;
    std::thread::sleep(Duration::from_secs(7));
    lab.start_lbd()?;
    lab.stop_lbd()?;
    resize(lab, 600_000, 400_000)?;
    lab.start_lbd()
}

/// The tables are to have another size when it dies; then the new size, or, every other time, the old one again.
fn resizing(lab: &mut Lab, point: Failpoint) -> Result<()> {
    ensure!(lab.stop_lbd()?, "lbd was not running");
    resize(lab, 400_000, 600_000)?;
    let died = dies_at(lab, point);
    let went_on = lab.start_lbd();
    lab.stop_lbd()?;
    resize(lab, 600_000, 400_000)?;
    died.and(went_on)?;
    // Killed once more on the way back, and not asked for it any more.
    dies_at(lab, point)?;
    lab.start_lbd()?;
    // What was finished at the size that it had been begun with is brought to the right one now.
    lab.stop_lbd()?;
    lab.start_lbd()
}

/// Other weights, there and back, and killed both times.
fn reloading(lab: &mut Lab, point: Failpoint) -> Result<()> {
    const WEB1: &str = "name = \"web1\"\naddress = \"198.18.1.2\"\n";
    let weighted = format!("{WEB1}weight = 3\n");
    for (from, to) in [(WEB1, &*weighted), (&*weighted, WEB1)] {
        ensure!(lab.stop_lbd()?, "lbd was not running");
        start(lab)?;
        lab.wait_until_all_up(Duration::from_secs(10))?;
        site::edit(lab, from, to)?;
        let lbd = lab.process("lbd").context("lbd does not run")?;
        arm(lab, point)?;
        kill(Pid::from_raw(lbd), Signal::SIGHUP)?;
        wait_for_death(lab, point)?;
        lab.start_lbd()?;
    }
    Ok(())
}

/// The site goes on being served meanwhile, and the next hand-off comes to its end.
fn handing_off(lab: &mut Lab, point: Failpoint) -> Result<()> {
    let load = Wrk::until_told(lab)?;
    let killed = killed_in_hand_off(lab, point);
    let figures = load.stop_without_errors()?;
    ensure!(figures.requests > 100, "{figures:?}");
    killed?;
    lab.wait_until_all_up(Duration::from_secs(10))?;
    lab.apply_site()
}

fn killed_in_hand_off(lab: &mut Lab, point: Failpoint) -> Result<()> {
    ensure!(lab.stop_lbd()?, "lbd was not running");
    start(lab)?;
    lab.wait_until_all_up(Duration::from_secs(10))?;
    arm(lab, point)?;
    let said = lbctl(lab, &["site", "apply"])?;
    ensure!(said.code != 0, "lbd did not die: {said:?}");
    wait_for_death(lab, point)?;
    lab.start_lbd()
}

/// With a configuration of its own that web2's nginx takes no more.
fn with_refusing_nginx(lab: &mut Lab, work: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let file = lab.web(Node::Web2).handed_over().with_file_name("nginx.conf");
    let whole = fs::read_to_string(&file)?;
    fs::write(&file, format!("{whole}nonsense;\n"))?;
    lab.authority()?.issue("site", &[SITE])?;
    let done = work(lab);
    fs::write(&file, whole)?;
    done?;
    lab.wait_until_all_up(Duration::from_secs(10))?;
    lab.apply_site()
}

/// Killed in its first start on this host: what it has left behind disturbs nobody, and the next start is as good as a first.
fn first(lab: &Shared, title: String, point: Failpoint) -> Case {
    let lab = lab.clone();
    Case::new(title, move || {
        lab.with(|lab| {
            if lab.process("lbd").is_some() {
                lab.stop_lbd()?;
            }
            lab.clean_up()?;
            ensure!(!lab.file("bpf/lb").exists(), "something is left after a clean-up");
            dies_at(lab, point)?;
            lab.start_lbd()?;
            lab.wait_until_all_up(Duration::from_secs(10))?;
            site::assert_split(lab, 10, 5, 5)
        })
    })
}

/// A start that ends at a moment.
fn dies_at(lab: &mut Lab, point: Failpoint) -> Result<()> {
    arm(lab, point)?;
    start(lab)?;
    wait_for_death(lab, point)
}

/// From now on an `lbd` of [`start`] dies when it gets there.
fn arm(lab: &Lab, point: Failpoint) -> Result<()> {
    Ok(fs::write(lab.file("failpoint"), point.name())?)
}

/// Starts an `lbd` that can be killed at a moment, without waiting until it answers.
fn start(lab: &mut Lab) -> Result<()> {
    let mut command = lab.command(Node::Lb, lab.options().binaries.lbd.clone())?;
    command
        .arg("--config")
        .arg(lab.file("lb.toml"))
        .env(VARIABLE, lab.file("failpoint"));
    lab.start_process("lbd", &mut command, "lbd.log").map(drop)
}

fn wait_for_death(lab: &mut Lab, point: Failpoint) -> Result<()> {
    let what = format!("lbd to die at {}", point.name());
    let dead = wait_for(&what, Duration::from_secs(20), || match lab.process("lbd") {
        None => Ok(()),
        Some(pid) => Err(format!("it runs, as {pid}")),
    });
    fs::remove_file(lab.file("failpoint"))?;
    dead
}

/// Another size of the connection table, from the next start on.
fn resize(lab: &Lab, from: u32, to: u32) -> Result<()> {
    site::edit(
        lab,
        &format!("max_connections = {from}"),
        &format!("max_connections = {to}"),
    )
}
