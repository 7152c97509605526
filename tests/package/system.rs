//! A Debian system with nothing but its base: the package is installed, started, used, upgraded and removed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lb_tests::debian_root::{System, wait_for};
use lb_tests::harness::report;
use lb_tests::programs;
use lb_tests::rights::{are_the_daemons, are_the_site_workers, mask, only_child};
use xtask::lab::CertificateAuthority;

use crate::site::{self, CONFIGURATION, VETH_PASS, XTASK, assert_balanced, wait_until_up};

/// Where the boot put the package.
const PACKAGE: &str = "root/lbd.deb";

pub(crate) fn installs_starts_balances_and_goes() -> Result<()> {
    let system = System::boot(&[
        (&programs::package()?, PACKAGE),
        (&programs::xtask()?, XTASK),
        (&programs::object("veth_pass")?, VETH_PASS),
    ])?;
    installs(&system)?;
    site::build(&system)?;
    starts_and_balances(&system)?;
    has_nothing_to_complain_of(&system)?;
    may_do_what_is_documented(&system)?;
    lets_in_whom_it_should(&system)?;
    reloads(&system)?;
    hands_over_to_nginx_here(&system)?;
    is_watched(&system)?;
    upgrades(&system)?;
    goes(&system)
}

fn installs(system: &System) -> Result<()> {
    system.output(&format!("dpkg --install /{PACKAGE}"))?;
    // Without a configuration there is nothing to start, and that is no failure.
    let state = system.output("systemctl is-enabled lbd; systemctl is-active lbd || :")?;
    ensure!(state == "enabled\ninactive\n", "{state}");
    let version = system.output("lbd --version; lbctl --version")?;
    let wanted = env!("CARGO_PKG_VERSION");
    ensure!(version == format!("lbd {wanted}\nlbctl {wanted}\n"), "{version}");
    // The unit as systemd reads it, without a word of complaint.
    let complaints = system.output("systemd-analyze verify --man=no lbd.service 2>&1")?;
    ensure!(complaints.is_empty(), "{complaints}");
    Ok(())
}

fn starts_and_balances(system: &System) -> Result<()> {
    fs::write(system.file("/etc/lb/lb.toml"), CONFIGURATION)?;
    // Returns when lbd says that it is ready: the API answers at once.
    system.output("systemctl start lbd; lbctl status > /dev/null")?;
    ensure!(property(system, "ActiveState")? == "active");
    ensure!(property(system, "WatchdogUSec")? == "30s");
    wait_until_up(system)?;
    assert_balanced(system)?;
    let attached = site::status(system)?["interfaces"].clone();
    ensure!(
        attached.to_string().matches("\"mode\":\"native\"").count() == 3,
        "{attached}"
    );
    Ok(())
}

/// What `lbd` may not do by the unit it would complain of; what the host lacks, `lbctl doctor` would.
fn has_nothing_to_complain_of(system: &System) -> Result<()> {
    let log = system.output("journalctl --no-pager --unit lbd --output cat")?;
    ensure!(log.contains("lbd is running"), "{log}");
    let complaint = log
        .lines()
        .find(|line| line.contains("WARN") || line.contains("ERROR"));
    ensure!(complaint.is_none(), "{log}");
    let examined = system.shell("lbctl --json doctor").output()?;
    let examination = String::from_utf8_lossy(&examined.stdout);
    ensure!(examination.contains("\"check\": \"bpffs\""), "{examined:?}");
    ensure!(!examination.contains("\"severity\": \"error\""), "{examination}");
    Ok(())
}

/// Of the running service.
fn property(system: &System, name: &str) -> Result<String> {
    let value = system.output(&format!("systemctl show --value --property {name} lbd"))?;
    Ok(value.trim().to_owned())
}

/// `/proc/PID` of the daemon.
fn process(system: &System) -> Result<PathBuf> {
    Ok(system.file(&format!("/proc/{}", property(system, "MainPID")?)))
}

fn may_do_what_is_documented(system: &System) -> Result<()> {
    let lbd = process(system)?;
    are_the_daemons(&lbd)?;
    // Of what the site worker can make use of, the unit allows what does not lead into namespaces: 0 CHOWN, 1 DAC_OVERRIDE,
    // 3 FOWNER, 5 KILL, 6 SETGID, 7 SETUID, 10 NET_BIND_SERVICE.
    are_the_site_workers(&only_child(&lbd)?, mask(&[0, 1, 3, 5, 6, 7, 10]))?;
    let pid = property(system, "MainPID")?;
    for (place, writable) in [
        ("/etc/lb", true),
        ("/usr/sbin", false),
        ("/root", false),
        ("/proc/sys/net/ipv4", false),
        ("/run/lb", true),
        ("/var/lib/lb", true),
        ("/sys/fs/bpf", true),
    ] {
        let looked = system.output(&format!(
            "nsenter --mount --target {pid} sh -c 'findmnt --noheadings --output OPTIONS --target {place}'"
        ))?;
        let is_writable = looked.trim().split(',').any(|option| option == "rw");
        ensure!(
            is_writable == writable,
            "{place} is mounted for lbd with {looked}"
        );
    }
    let exposure = system.output("systemd-analyze security --no-pager lbd | tail -n 1")?;
    report("lbd.service", exposure.trim().trim_start_matches("→ "));
    Ok(())
}

fn lets_in_whom_it_should(system: &System) -> Result<()> {
    let socket = system.output("stat --format '%a %U %G' /run/lb/lbd.sock")?;
    ensure!(socket == "660 root lb\n", "{socket}");
    let drain =
        "runuser -u keeper -- lbctl backend drain web1; runuser -u keeper -- lbctl backend undrain web1";
    system.output(drain)?;
    let stranger = system.shell("runuser -u stranger -- lbctl status").output()?;
    ensure!(stranger.status.code() == Some(3), "{stranger:?}");
    Ok(())
}

fn reloads(system: &System) -> Result<()> {
    let file = system.file("/etc/lb/lb.toml");
    let pid = property(system, "MainPID")?;
    fs::write(
        &file,
        CONFIGURATION.replace("[service.health]", "slow_strat = 1\n[service.health]"),
    )?;
    let refused = system.shell("systemctl reload lbd").output()?;
    ensure!(!refused.status.success(), "{refused:?}");
    let told = system.output("journalctl --no-pager --unit lbd --lines 20")?;
    ensure!(told.contains("did you mean \"slow_start\"?"), "{told}");

    let two_to_one = format!("{CONFIGURATION}weight = 3\n");
    fs::write(&file, two_to_one)?;
    system.output("systemctl reload lbd")?;
    let answered = site::requests(system, 20)?;
    ensure!(
        answered == [5, 15],
        "with weights 1 and 3 the servers answered {answered:?}"
    );
    fs::write(&file, CONFIGURATION)?;
    system.output("systemctl reload lbd")?;
    ensure!(property(system, "MainPID")? == pid, "a reload is no restart");
    assert_balanced(system)
}

/// The site worker writes what the unit's drop-in for local web servers lets it, and nothing without.
fn hands_over_to_nginx_here(system: &System) -> Result<()> {
    system.output("mkdir -p /etc/nginx")?;
    CertificateAuthority::create(&system.file("/etc/lb"))?.issue("site", &["www.foobar.com"])?;
    let site = "
[site]
server_names = [\"www.foobar.com\"]
certificate = \"site.pem\"
key = \"site.key\"
upstream = [\"127.0.0.1:8080\"]
[[site.server]]
name = \"here\"
address = \"127.0.0.1:8443\"
nginx = \"false\"
";
    fs::write(system.file("/etc/lb/lb.toml"), format!("{CONFIGURATION}{site}"))?;
    system.output("systemctl reload lbd")?;
    let step = || -> Result<String> {
        let output = system.shell("lbctl --json site apply").output()?;
        let applied: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(applied["servers"][0]["steps"].to_string())
    };
    let steps = step()?;
    ensure!(steps.contains("Read-only file system"), "{steps}");
    system.output(
        "mkdir -p /etc/systemd/system/lbd.service.d
        cp /usr/share/doc/lbd/examples/local-nginx.conf /etc/systemd/system/lbd.service.d/
        systemctl daemon-reload; systemctl restart lbd",
    )?;
    let steps = step()?;
    ensure!(
        steps.contains("\"ok\":true,\"step\":\"stage\"") || steps.contains("\"step\":\"stage\",\"ok\":true"),
        "{steps}"
    );
    let release = system.output("stat --format '%a %U' /etc/nginx/lb/releases/*/key.pem")?;
    ensure!(release == "600 root\n", "{release}");
    wait_until_up(system)
}

/// A daemon that hangs is replaced; one that works is left alone.
fn is_watched(system: &System) -> Result<()> {
    let drop_in = "[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n";
    let directory = system.file("/etc/systemd/system/lbd.service.d");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("watchdog.conf"), drop_in)?;
    system.output("systemctl daemon-reload; systemctl restart lbd")?;
    let pid = property(system, "MainPID")?;
    wait_until_up(system)?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    ensure!(property(system, "MainPID")? == pid, "systemd took it for hung");
    system.output(&format!("kill -STOP {pid}"))?;
    wait_for("a new process", || {
        let now = property(system, "MainPID")?;
        ensure!(now != pid && now != "0", "process {now}");
        Ok(())
    })?;
    wait_for("the new process to be ready", || {
        ensure!(property(system, "ActiveState")? == "active");
        Ok(())
    })?;
    wait_until_up(system)?;
    assert_balanced(system)
}

fn upgrades(system: &System) -> Result<()> {
    let pid = property(system, "MainPID")?;
    system.output(&format!("dpkg --install /{PACKAGE}"))?;
    ensure!(property(system, "ActiveState")? == "active");
    ensure!(
        property(system, "MainPID")? != pid,
        "the new program was not started"
    );
    wait_until_up(system)?;
    assert_balanced(system)
}

fn goes(system: &System) -> Result<()> {
    let left = "for file in /usr/sbin/lbd /usr/bin/lbctl /usr/lib/systemd/system/lbd.service /etc/lb/lb.toml /var/lib/lb \
                /etc/systemd/system/multi-user.target.wants/lbd.service; do
        if [ -e $file ]; then echo $file; fi
    done";
    system.output("systemctl stop lbd")?;
    assert_balanced(system)?;
    system.output("systemctl start lbd; dpkg --remove lbd")?;
    let there = system.output(left)?;
    ensure!(
        there == "/etc/lb/lb.toml\n/var/lib/lb\n",
        "left by a removal: {there}"
    );
    let running = system.output("cat /proc/[0-9]*/comm | grep --line-regexp lbd || :")?;
    ensure!(running.is_empty(), "still running: {running}");
    let pinned = system.output(
        "ls -d /sys/fs/bpf/lb 2> /dev/null || :; ip -details link show dev clients | grep prog/xdp || :",
    )?;
    ensure!(pinned.is_empty(), "in the kernel there is still {pinned}");
    system.output("dpkg --purge lbd")?;
    let there = system.output(left)?;
    ensure!(there == "/etc/lb/lb.toml\n", "left by a purge: {there}");
    let addresses = system.output("ip -o address show dev clients")?;
    ensure!(!addresses.contains("203.0.113.10"), "{addresses}");
    Ok(())
}
