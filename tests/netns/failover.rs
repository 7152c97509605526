//! A web server that fails is left alone within the detection time, and gets its share again when it is back.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::harness::Case;
use xtask::lab::{Lab, Node, run};

use crate::support::lbctl::lbctl;
use crate::support::wrk::Wrk;
use crate::support::{is_full, measured, site};

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("failover/wrk_without_errors", wrk_without_errors),
        Case::new("failover/stopped_server", stopped_server),
        Case::new("failover/hanging_server", hanging_server),
    ]
}

/// fall × (interval + jitter) + timeout, as the lab's `lb.toml` has them for HTTPS.
pub(crate) const DETECTION: Duration = Duration::from_millis(2 * (500 + 50) + 300);
/// For a busy machine: the probe's processes and ours take turns on its CPUs.
pub(crate) const SLACK: Duration = Duration::from_millis(400);
/// Between the starts of two requests.
const PACE: Duration = Duration::from_millis(40);
const REQUESTS: usize = 200;
/// The request before which the server fails.
const FAILS_AT: usize = 50;

fn wrk_without_errors() -> Result<()> {
    let lab = site::up("lb-t-wrk")?;
    let seconds = if is_full() { 10 } else { 4 };
    let figures = Wrk::start(&lab, seconds)?.end_without_errors()?;
    measured(&format!(
        "wrk -t1 -c64 -d{seconds}s: {} requests, {:.0} a second, no error",
        figures.requests, figures.rate
    ));
    for node in Node::WEB {
        ensure!(
            site::answered(&lab, node)? > 100,
            "{node} had next to nothing to do"
        );
    }
    lab.down()
}

fn stopped_server() -> Result<()> {
    let mut lab = site::up("lb-t-down")?;
    let stop = |lab: &mut Lab| lab.stop_nginx(Node::Web1);
    survive(&mut lab, stop, "connection refused")?;
    lab.start_nginx(Node::Web1)?;
    is_back(lab)
}

/// Its packets vanish: nobody says that it is gone.
fn hanging_server() -> Result<()> {
    let mut lab = site::up("lb-t-hang")?;
    let hang = |lab: &mut Lab| {
        let rules = "table inet hang {\nchain in {\ntype filter hook input priority 0; policy drop;\niif lo accept\n}\n}\n";
        run(lab.command(Node::Web1, "nft")?.arg(rules)).map(drop)
    };
    survive(&mut lab, hang, "timed out after 300ms")?;
    run(lab.command(Node::Web1, "nft")?.arg("delete table inet hang"))?;
    is_back(lab)
}

/// One request of many.
struct Attempt {
    started: Instant,
    took: Duration,
    failure: Option<String>,
}

fn survive(lab: &mut Lab, fail: impl Fn(&mut Lab) -> Result<()>, reason: &str) -> Result<()> {
    let mut attempts = attempts(lab, FAILS_AT)?;
    fail(lab)?;
    let failed_at = Instant::now();
    let (after, down) = thread::scope(|scope| {
        let watch = scope.spawn(|| until_down(lab, failed_at));
        let after = self::attempts(lab, REQUESTS - FAILS_AT);
        (after, watch.join())
    });
    let down = down.map_err(|_| anyhow!("the watch panicked"))??;
    attempts.extend(after?);

    let failed: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.failure.is_some())
        .collect();
    let last = failed
        .iter()
        .map(|attempt| attempt.started.saturating_duration_since(failed_at))
        .max();
    let last = last.map_or_else(String::new, |last| {
        format!(", the last began {} ms after it", last.as_millis())
    });
    let slowest = attempts
        .iter()
        .map(|attempt| attempt.took)
        .max()
        .context("no attempts")?;
    measured(&format!(
        "lbd said down after {} ms (bound {} ms); {} of {REQUESTS} requests failed{last}; the slowest took {} ms",
        down.as_millis(),
        DETECTION.as_millis(),
        failed.len(),
        slowest.as_millis(),
    ));
    ensure!(down <= DETECTION + SLACK, "lbd noticed after {down:?} only");
    for attempt in failed {
        let since = attempt.started.saturating_duration_since(failed_at);
        let was_under_way = attempt.started + attempt.took >= failed_at;
        ensure!(
            was_under_way && since <= DETECTION + SLACK,
            "a request that began {since:?} after the failure failed: {:?}",
            attempt.failure
        );
    }
    let page = lbctl(lab, &["status"])?.out;
    ensure!(
        page.contains(reason) && page.contains("1 of 2 backends"),
        "{page}"
    );
    Wrk::start(lab, 2)?.end_without_errors()?;
    site::assert_split(lab, 20, 0, 20)
}

fn is_back(lab: Lab) -> Result<()> {
    lab.wait_until_all_up(Duration::from_secs(5))?;
    site::assert_split(&lab, 100, 50, 50)?;
    lab.down()
}

/// Makes requests at a steady pace, also while others hang.
fn attempts(lab: &Lab, count: usize) -> Result<Vec<Attempt>> {
    let attempts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let begin = Instant::now();
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let due = PACE * u32::try_from(number).unwrap_or(u32::MAX);
                thread::sleep((begin + due).saturating_duration_since(Instant::now()));
                scope.spawn(|| -> Result<()> {
                    let started = Instant::now();
                    let requests = lab.vip_requests(1)?;
                    let attempt = Attempt {
                        started,
                        took: started.elapsed(),
                        failure: requests.failures.into_iter().next(),
                    };
                    attempts
                        .lock()
                        .map_err(|_| anyhow!("a thread panicked"))?
                        .push(attempt);
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let mut attempts = attempts.into_inner()?;
    attempts.sort_by_key(|attempt| attempt.started);
    ensure!(attempts.len() == count, "{} attempts of {count}", attempts.len());
    Ok(attempts)
}

/// How long after `failed_at` `lbd` says that web1's HTTPS is down.
fn until_down(lab: &Lab, failed_at: Instant) -> Result<Duration> {
    let is_down = |backend: &lb::api::types::Backend| backend.state == lb::api::types::BackendState::Down;
    site::wait_for_backend(lab, "www", "web1", Duration::from_secs(10), is_down)?;
    Ok(failed_at.elapsed())
}
