//! Tracing as long as somebody asks for more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::handle::EngineHandle;
use super::{Engine, Request};
use crate::api::Refusal;
use crate::api::trace::{TraceRequest, Traced};
use crate::dataplane::Tracer;
use crate::explain::{self, Site};

/// Packets a second, unless asked otherwise.
const DEFAULT_RATE: u32 = 100;
/// The most that can be asked for: more is not read in time.
const HIGHEST_RATE: u32 = 10_000;
/// How long an answer waits for packets, and how often it looks.
const WAIT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);
/// How long somebody waits for another's answer to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// Packets of one answer: about 2 MiB.
const AT_ONCE: usize = 1000;
/// Whoever has not asked for so long has gone.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// Tracing that goes on, if there is any.
pub(super) type Slot = Arc<Mutex<Option<Tracing>>>;

/// Tracing that goes on.
pub(super) struct Tracing {
    session: u64,
    tracer: Tracer,
    rate: u64,
    /// The second that packets are counted in, and how many there were in it.
    second: (Instant, u64),
    left_out: u64,
    asked: Instant,
}

impl EngineHandle {
    /// Begins tracing, goes on, or ends it.
    pub(super) async fn ask_for_traced(&self, request: TraceRequest) -> Result<Traced, Refusal> {
        let mut slot = timeout(PATIENCE, self.tracing.lock()).await.map_err(|_| busy())?;
        match (&*slot, request.session) {
            (Some(tracing), Some(session)) if tracing.session == session => {}
            (Some(_), _) => return Err(busy()),
            (None, Some(_)) => {
                return Err(Refusal::Unknown(format!(
                    "that tracing is over: nobody asked for {FORGOTTEN:?}"
                )));
            }
            (None, None) => *slot = Some(self.begin(&request).await?),
        }
        let site = self.look(Engine::site).await;
        let answer = match &mut *slot {
            Some(tracing) => match site {
                Ok(site) => tracing.answer(&site, request.end).await,
                Err(error) => Err(error),
            },
            None => Err(Refusal::Failed("it was begun a moment ago".to_owned())),
        };
        if request.end || answer.is_err() {
            *slot = None;
            self.ask(|reply| Request::Trace(None, reply)).await?;
        }
        answer
    }

    async fn begin(&self, request: &TraceRequest) -> Result<Tracing, Refusal> {
        let rate = request.rate.unwrap_or(DEFAULT_RATE);
        if rate == 0 || rate > HIGHEST_RATE {
            return Err(Refusal::Invalid(format!(
                "rate {rate}: 1 to {HIGHEST_RATE} packets a second"
            )));
        }
        let filter = explain::filter(&request.filter, rate)?;
        let blueprint = self.look(Engine::blueprint).await?;
        let failed = |error: String| Refusal::Failed(error);
        let tracer = tokio::task::spawn_blocking(move || Tracer::load(&blueprint, filter))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let first = tracer.first().map_err(|error| failed(error.to_string()))?;
        self.ask(|reply| Request::Trace(Some(first), reply)).await?;
        let session = fastrand::u64(1..);
        self.end_when_forgotten(session);
        tracing::info!(filter = ?request.filter, rate, "tracing begins");
        Ok(Tracing {
            session,
            tracer,
            rate: rate.into(),
            second: (Instant::now(), 0),
            left_out: 0,
            asked: Instant::now(),
        })
    }

    /// Ends tracing that nobody asks about any more.
    fn end_when_forgotten(&self, session: u64) {
        let lbd = self.clone();
        tokio::spawn(async move {
            loop {
                sleep(WAIT).await;
                let mut slot = lbd.tracing.lock().await;
                match &*slot {
                    Some(tracing) if tracing.session != session => return,
                    Some(tracing) if tracing.asked.elapsed() < FORGOTTEN => {}
                    Some(_) => {
                        *slot = None;
                        tracing::info!("tracing ends: nobody asks for more");
                        // Else the daemon is stopping.
                        drop(lbd.ask(|reply| Request::Trace(None, reply)).await);
                        return;
                    }
                    None => return,
                }
            }
        });
    }
}

fn busy() -> Refusal {
    Refusal::Conflict(
        "somebody traces already, and there is one tracing at a time; ask again when that has ended"
            .to_owned(),
    )
}

impl Tracing {
    /// What there is, waiting for something unless it is the end.
    async fn answer(&mut self, site: &Site, end: bool) -> Result<Traced, Refusal> {
        let deadline = Instant::now() + WAIT;
        let mut packets = Vec::new();
        loop {
            let booted = explain::booted();
            while packets.len() < AT_ONCE
                && let Some(notes) = self.tracer.read()
            {
                if self.is_one_too_many() {
                    self.left_out += 1;
                } else {
                    packets.extend(explain::traced(site, &notes, booted));
                }
            }
            if end || !packets.is_empty() || Instant::now() >= deadline {
                break;
            }
            sleep(LOOK).await;
        }
        self.asked = Instant::now();
        let left_out = self
            .tracer
            .left_out()
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(Traced {
            session: self.session,
            packets,
            left_out: left_out + self.left_out,
        })
    }

    /// The program counts for each CPU by itself.
    fn is_one_too_many(&mut self) -> bool {
        if self.second.0.elapsed() >= Duration::from_secs(1) {
            self.second = (Instant::now(), 0);
        }
        self.second.1 += 1;
        self.second.1 > self.rate
    }
}
