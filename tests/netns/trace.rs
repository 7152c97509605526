//! `lbctl trace` under load: what is told is what becomes of packets, and no request fails over it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb::api::trace::TracedPacket;
use lb::api::types::Counters;
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, VIP};

use crate::support::lbctl::{Said, json, lbctl};
use crate::support::wrk::Wrk;
use crate::support::{connections, measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("trace/under_load", under_load)]
}

const PACKETS: usize = 500;
/// Whoever does not ask for three seconds has gone; it is looked after once a second.
const FORGOTTEN: Duration = Duration::from_secs(20);

fn under_load() -> Result<()> {
    let lab = site::up("lb-t-trace")?;
    let load = Wrk::until_told(&lab)?;
    let outcomes = of_the_load(&lab)?;
    one_at_a_time(&lab)?;
    refusals_only(&lab)?;
    for _ in 0..3 {
        let said = lbctl(&lab, &["trace", "--count", "10"])?;
        ensure!(said.code == 0 && said.out.lines().count() == 10, "{said:?}");
    }
    let figures = load.stop()?;
    ensure!(
        figures.errors.is_empty() && figures.requests > 100,
        "{figures:?}; {}",
        what_else(&lab)?
    );
    measured(&format!(
        "wrk while lbctl trace began and ended six times: {} requests, no error; {PACKETS} packets told of: {outcomes:?}",
        figures.requests
    ));
    lab.down()
}

/// What else may be why a request failed: a backend that was down, since its probes got no processor.
fn what_else(lab: &Lab) -> Result<String> {
    let counters: Counters = json(lab, &["counters"])?;
    let counted = counters.outcomes.iter().filter(|it| it.packets > 0);
    let counted: Vec<_> = counted.map(|it| format!("{} {}", it.name, it.packets)).collect();
    let log = site::log(lab)?;
    let down: Vec<_> = log.lines().filter(|line| line.contains("down")).collect();
    Ok(format!("{}; {}", counted.join(", "), down.join("\n")))
}

/// Packets of the load, in both directions, and who had them.
fn of_the_load(lab: &Lab) -> Result<BTreeMap<String, usize>> {
    let filter = format!("tcp host {} port 443", lab.address(Node::Client));
    let count = PACKETS.to_string();
    // More than fits a pipe.
    let file = lab.file("trace.json");
    let ended = lab
        .lbctl_command()
        .args([
            "--json", "trace", "--filter", &filter, "--count", &count, "--rate", "1000",
        ])
        .stdout(File::create(&file)?)
        .status()?;
    ensure!(ended.success(), "lbctl trace: {ended}");
    let mut outcomes = BTreeMap::new();
    for line in fs::read_to_string(&file)?.lines() {
        let packet: TracedPacket = serde_json::from_str(line)?;
        *outcomes.entry(packet.outcome.clone()).or_default() += 1;
        let backend = packet.backend.as_deref().with_context(|| format!("{packet:?}"))?;
        let connection = packet.decisions.iter().find(|it| it.about == "connection");
        let connection = &connection.context("nothing said of the connection")?.says;
        ensure!(
            connection.contains(backend) || connection == "none",
            "{backend} is not whose connection it is: {packet:?}"
        );
        let by = if packet.outcome == "to_client" {
            &backend[..4]
        } else {
            "uplink"
        };
        ensure!(
            packet.interface == by,
            "came by {}, not {by}: {packet:?}",
            packet.interface
        );
    }
    let of = |outcome: &str| outcomes.get(outcome).copied().unwrap_or(0);
    ensure!(
        of("to_backend") > PACKETS / 10 && of("to_client") > PACKETS / 10,
        "{outcomes:?}"
    );
    ensure!(outcomes.values().sum::<usize>() == PACKETS, "{outcomes:?}");
    Ok(outcomes)
}

/// Another one waits until the first has ended, though it was killed.
fn one_at_a_time(lab: &Lab) -> Result<()> {
    let mut first = lab
        .lbctl_command()
        .args(["trace", "--rate", "1"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(first.stdout.take().context("no output")?).read_line(&mut line)?;
    let refused = lbctl(lab, &["trace", "--count", "1"]);
    first.kill()?;
    first.wait()?;
    ensure!(!line.is_empty(), "the first one shows nothing");
    let refused = refused?;
    ensure!(
        refused.code == 1 && refused.err.contains("somebody traces already"),
        "{refused:?}"
    );
    let said = eventually("the end of the one that was killed", || {
        let said = lbctl(lab, &["trace", "--count", "1"])?;
        Ok((said.code == 0).then_some(said))
    })?;
    ensure!(said.out.lines().count() == 1, "{said:?}");
    Ok(())
}

fn eventually(what: &str, attempt: impl Fn() -> Result<Option<Said>>) -> Result<Said> {
    let deadline = Instant::now() + FORGOTTEN;
    while Instant::now() < deadline {
        if let Some(said) = attempt()? {
            return Ok(said);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("{what}: nothing for {FORGOTTEN:?}")
}

/// Of all that comes, only what is asked for.
fn refusals_only(lab: &Lab) -> Result<()> {
    thread::scope(|scope| {
        let tracing = scope.spawn(|| {
            let filter = "outcome not_ours port 4";
            lbctl(lab, &["trace", "--filter", filter, "--count", "1", "--verbose"])
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        // To a port that no service is on; what else there is goes on.
        while !tracing.is_finished() && Instant::now() < deadline {
            let refused = lab.namespace(Node::Client).run(|| {
                Ok(
                    std::net::TcpStream::connect_timeout(&(VIP, 4).into(), Duration::from_millis(200))
                        .is_err(),
                )
            })?;
            ensure!(refused, "somebody listens on port 4");
            connections::make(lab, 1)?;
        }
        let said = tracing
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        let lines: Vec<_> = said.out.lines().collect();
        let [packet, service] = lines[..] else {
            bail!("{said:?}");
        };
        ensure!(
            packet.contains(&format!("→ {VIP}:4, syn, ")) && packet.ends_with(": not_ours"),
            "{said:?}"
        );
        ensure!(service == "  service: none that has to do with it", "{said:?}");
        Ok(())
    })
}
