//! One hand-off: everything is staged and tested everywhere first; then the servers switch, one by one.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::bundle::Release;
use super::certificate::Material;
use super::drain::{Drain, Drainer};
use super::scripts::{Step, script};
use super::transport;
use super::verify::Serving;
use super::{HandoffError, Hands};
use crate::api::types::{AppliedServer, SiteApplied, SiteStep};
use crate::config::{Site, SiteServer};
use crate::failpoint;
use crate::moment::wall_clock;

/// How many servers are staged, or asked for their status, at a time.
pub(super) const AT_A_TIME: usize = 16;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Each script.
    pub(super) step: Duration,
    /// From the reload until the server serves what it should.
    pub(super) verify: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step: Duration::from_secs(30),
            verify: Duration::from_secs(10),
        }
    }
}

/// [`super::apply`] with limits of its own.
pub(super) async fn apply(site: &Site, drainer: &impl Drainer, hands: &Hands, limits: Limits) -> SiteApplied {
    let mut reports: Vec<Report> = site.servers.iter().map(Report::new).collect();
    match prepare(site, hands, limits) {
        Ok(jobs) => {
            if stage_everywhere(&jobs, &mut reports).await {
                switch_one_by_one(&jobs, drainer, &mut reports).await;
            }
        }
        Err(error) => {
            for report in &mut reports {
                report.not_touched(Step::Stage, error.to_string());
            }
        }
    }
    let servers: Vec<AppliedServer> = reports.into_iter().map(|report| report.0).collect();
    SiteApplied {
        ok: servers.iter().all(|server| server.ok),
        servers,
    }
}

/// Reads the certificate and the key once, for all servers, and renders each server's release.
fn prepare<'a>(site: &'a Site, hands: &'a Hands, limits: Limits) -> Result<Vec<Job<'a>>, HandoffError> {
    let material = Material::read(site)?;
    if let Some(what) = material.validity.refused(wall_clock()) {
        return Err(HandoffError::NotInForce {
            file: site.certificate.clone(),
            what,
        });
    }
    let job = |server| {
        let release = Release::new(site, server, &material)?;
        Ok(Job {
            site,
            server,
            release,
            hands,
            fingerprint: material.fingerprint.clone(),
            limits,
        })
    };
    site.servers.iter().map(job).collect()
}

/// Stages and tests on all servers; returns whether all passed, so that the first may be switched.
async fn stage_everywhere(jobs: &[Job<'_>], reports: &mut [Report]) -> bool {
    let work: Vec<_> = jobs
        .iter()
        .zip(reports.iter_mut())
        .map(|(job, report)| stage(job, report))
        .collect();
    let passed: Vec<bool> = stream::iter(work).buffered(AT_A_TIME).collect().await;
    let failed: Vec<&str> = jobs
        .iter()
        .zip(&passed)
        .filter(|(_, passed)| !**passed)
        .map(|(job, _)| job.name())
        .collect();
    if failed.is_empty() {
        return true;
    }
    let why = format!("{} failed; nothing was switched on any server", failed.join(", "));
    for (report, _) in reports.iter_mut().zip(&passed).filter(|(_, passed)| **passed) {
        report.not_touched(Step::Swap, why.clone());
    }
    false
}

async fn stage(job: &Job<'_>, report: &mut Report) -> bool {
    report.step("stage", job.run(Step::Stage)).await && report.step("test", job.run(Step::Test)).await
}

/// Stops at the first server that fails: what failed there may fail on the next.
async fn switch_one_by_one(jobs: &[Job<'_>], drainer: &impl Drainer, reports: &mut [Report]) {
    let mut done: Vec<&str> = Vec::new();
    let mut stopped_at: Option<&str> = None;
    for (job, report) in jobs.iter().zip(reports) {
        if let Some(failed) = stopped_at {
            let done = if done.is_empty() {
                "no server".to_owned()
            } else {
                done.join(", ")
            };
            let why = format!("the hand-off stopped at {failed}; the new configuration is served by {done}");
            report.not_touched(Step::Swap, why);
        } else if switch(job, drainer, report).await {
            done.push(job.name());
        } else {
            stopped_at = Some(job.name());
        }
    }
}

/// Switches one server, or puts it back as it was. Returns whether all went well.
async fn switch(job: &Job<'_>, drainer: &impl Drainer, report: &mut Report) -> bool {
    let before = job.observe().await;
    let mut drain = Drain::new(drainer, job.name());
    if report.step("drain", drain.begin(job.site.drain_timeout)).await {
        report.0.ok = report.step("swap", job.run(Step::Swap)).await
            && report.step("reload", job.run(Step::Reload)).await
            && report.step("verify", job.verify()).await;
        if !report.0.ok {
            report.step("restore", job.restore(&before)).await;
        }
    }
    if drain.is_active() {
        report.0.ok &= report.step("undrain", drain.end()).await;
    }
    report.0.ok
}

/// One server's part of a hand-off.
struct Job<'a> {
    site: &'a Site,
    server: &'a SiteServer,
    release: Release,
    hands: &'a Hands,
    fingerprint: String,
    limits: Limits,
}

impl Job<'_> {
    fn name(&self) -> &str {
        &self.server.name
    }

    /// Runs a step's script on the server.
    async fn run(&self, step: Step) -> Result<String, String> {
        let (server, release, limit) = (self.server, &self.release, self.limits.step);
        match self.hands {
            Hands::Worker(worker) => worker.run(step, server, release, limit).await?,
            Hands::Own => {
                let script = script(step, server, &release.id);
                let input = if step == Step::Stage {
                    &release.tar[..]
                } else {
                    &[]
                };
                transport::run(&server.via, &script, input, limit).await?;
            }
        }
        Ok(format!("release {}", self.release.id))
    }

    async fn observe(&self) -> Serving {
        Serving::observe(self.site, self.server, &self.release.name).await
    }

    async fn wait_for(&self, wanted: &Serving) -> Result<Serving, Serving> {
        Serving::wait_for(
            wanted,
            self.site,
            self.server,
            &self.release.name,
            self.limits.verify,
        )
        .await
    }

    /// Waits until the wanted certificate is served, by this very release.
    async fn verify(&self) -> Result<String, String> {
        let wanted = Serving {
            certificate: Ok(self.fingerprint.clone()),
            release: true,
        };
        match self.wait_for(&wanted).await {
            Ok(now) => Ok(format!("{now}, as wanted")),
            Err(now) => Err(format!(
                "not the new configuration with certificate {} after {}: {now}; does its nginx.conf have `include \
                 {}/current/site.conf*;` in http {{}}, and what does nginx's error log say?",
                self.fingerprint,
                humantime::format_duration(self.limits.verify),
                self.server.directory,
            )),
        }
    }

    /// Goes back to what was current before, and checks that this is served again.
    async fn restore(&self, before: &Serving) -> Result<String, String> {
        if before.release {
            return Ok("nothing to take back: this very release was in force before".to_owned());
        }
        let restored = self.run(Step::Restore).await;
        let served = match self.wait_for(before).await {
            Ok(now) => Ok(format!("as before the hand-off: {now}")),
            Err(now) => Err(format!("not as before the hand-off, when {before}: {now}")),
        };
        match (restored, served) {
            (Ok(_), served) => served,
            (Err(error), Ok(served) | Err(served)) => Err(format!("{error}; {served}")),
        }
    }
}

/// What became of one server, as it becomes known.
struct Report(AppliedServer);

impl Report {
    fn new(server: &SiteServer) -> Self {
        Self(AppliedServer {
            server: server.name.clone(),
            ok: false,
            steps: Vec::new(),
        })
    }

    /// Awaits a step and takes down what came of it.
    async fn step(&mut self, step: &str, work: impl Future<Output = Result<String, String>>) -> bool {
        let begun = Instant::now();
        let result = work.await;
        failpoint::reach_step(step);
        let took = begun.elapsed();
        let ok = result.is_ok();
        let detail = result.unwrap_or_else(|error| error);
        let server = &self.0.server;
        if ok {
            tracing::info!(server, step, detail, ?took, "site hand-off");
        } else {
            tracing::warn!(server, step, detail, ?took, "site hand-off");
        }
        self.0.steps.push(SiteStep {
            step: step.to_owned(),
            ok,
            detail,
            took,
        });
        ok
    }

    /// The step was not begun.
    fn not_touched(&mut self, step: Step, why: String) {
        self.0.steps.push(SiteStep {
            step: step.name().to_owned(),
            ok: false,
            detail: format!("not begun: {why}"),
            took: Duration::ZERO,
        });
    }
}
