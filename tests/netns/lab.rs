//! The lab itself, without a balancer: what every other test here stands on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::{harness::Case, programs};
use xtask::lab::{Lab, LabOptions, Node};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("lab/client_reaches_web_servers", client_reaches_web_servers),
        Case::new("lab/stopped_server_refuses", stopped_server_refuses),
        Case::new("lab/prefix_is_used_once", prefix_is_used_once),
        Case::new("lab/leftovers_are_removed", leftovers_are_removed),
        Case::new("lab/killed_run_is_cleared_away", killed_run_is_cleared_away),
    ]
}

fn without_balancer(prefix: &str) -> Result<LabOptions> {
    let mut options = LabOptions::new(prefix, programs::of_the_lab()?);
    options.balancer = false;
    Ok(options)
}

fn assert_all_answer(lab: &Lab, node: Node) -> Result<()> {
    let requests = lab.https_requests(node.address(), 5)?;
    ensure!(requests.failures.is_empty(), "{:?}", requests.failures);
    ensure!(
        requests.split().get(node.name()) == Some(&5),
        "{:?}",
        requests.split()
    );
    Ok(())
}

fn assert_gone(prefix: &str) -> Result<()> {
    for node in Node::ALL {
        let namespace = format!("/run/netns/{prefix}-{node}");
        ensure!(!Path::new(&namespace).exists(), "{namespace} is still there");
    }
    for path in [format!("/run/{prefix}"), format!("/run/{prefix}.lock")] {
        ensure!(!Path::new(&path).exists(), "{path} is still there");
    }
    Ok(())
}

fn client_reaches_web_servers() -> Result<()> {
    let lab = Lab::up(without_balancer("lb-t-reach")?)?;
    for node in Node::WEB {
        assert_all_answer(&lab, node)?;
        ensure!(
            lab.app_stats(node)?.requests == 5,
            "{node} counted other requests than the client made"
        );
    }
    // Nobody has the VIP, and curl's verdict is believed.
    let requests = lab.vip_requests(1)?;
    ensure!(
        requests.answers.is_empty(),
        "a VIP that nobody has answered: {requests:?}"
    );
    lab.down()?;
    assert_gone("lb-t-reach")
}

fn stopped_server_refuses() -> Result<()> {
    let mut lab = Lab::up(without_balancer("lb-t-stop")?)?;
    lab.stop_web(Node::Web1)?;
    let requests = lab.https_requests(Node::Web1.address(), 1)?;
    let failure = requests.failures.first().context("a stopped server answered")?;
    ensure!(
        failure.contains("refused") || failure.contains("connect"),
        "{failure}"
    );
    assert_all_answer(&lab, Node::Web2)?;
    lab.start_web(Node::Web1)?;
    assert_all_answer(&lab, Node::Web1)?;

    lab.kill_process("web1-nginx")?;
    lab.start_web(Node::Web1)?;
    assert_all_answer(&lab, Node::Web1)?;
    drop(lab);
    assert_gone("lb-t-stop")
}

fn prefix_is_used_once() -> Result<()> {
    let lab = Lab::up(without_balancer("lb-t-once")?)?;
    let refused = Lab::up(without_balancer("lb-t-once")?);
    let error = refused.err().context("two labs under one prefix")?.to_string();
    ensure!(error.contains("is using the lab"), "{error}");
    // The refused one has not harmed the other.
    assert_all_answer(&lab, Node::Web1)?;
    for prefix in ["", "../etc", "lb t", "0", "much-too-long-for-it"] {
        ensure!(
            Lab::up(without_balancer(prefix)?).is_err(),
            "{prefix:?} was accepted"
        );
    }
    lab.down()
}

fn leftovers_are_removed() -> Result<()> {
    let mut options = without_balancer("lb-t-left")?;
    options.keep = true;
    let mut first = Lab::up(options)?;
    let pid = first.process("web1-nginx").context("nginx does not run")?;
    // A shell that somebody forgot, which is in no record.
    let mut forgotten = first.command(Node::Client, "sleep")?.arg("1000").spawn()?;
    drop(first);
    ensure!(
        Path::new(&format!("/proc/{pid}")).exists(),
        "a lab that was to be kept is gone"
    );

    let second = Lab::up(without_balancer("lb-t-left")?)?;
    ensure!(
        !forgotten.wait()?.success(),
        "the forgotten process was not ended"
    );
    assert_all_answer(&second, Node::Web1)?;
    second.down()?;
    assert_gone("lb-t-left")
}

/// `cargo xtask lab up`, killed at several moments of its work, the balancer's daemon included.
fn killed_run_is_cleared_away() -> Result<()> {
    let prefix = "lb-t-killed";
    let binaries = programs::of_the_lab()?;
    for moment in [50, 300, 600, 1000] {
        let mut up = Command::new(&binaries.xtask);
        up.args(["lab", "--prefix", prefix, "up", "--binaries"]);
        up.arg(serde_json::to_string(&binaries)?);
        let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_millis(moment));
        up.kill()?;
        up.wait()?;
    }
    let lab = Lab::up(LabOptions::new(prefix, binaries))?;
    let requests = lab.vip_requests(10)?;
    ensure!(requests.failures.is_empty(), "{:?}", requests.failures);
    let running = |name: &str| format!("/run/{prefix}/processes/{name}.pid");
    for name in ["lbd", "web1-nginx", "web2-nginx"] {
        ensure!(Path::new(&running(name)).exists(), "{name} is not recorded");
    }
    lab.down()?;
    assert_gone(prefix)
}
