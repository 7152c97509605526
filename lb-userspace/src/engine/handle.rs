//! What others hold of the engine: the way to its inbox.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Engine, Reply, Request, traces};
use crate::api::explain::{Answer, Question};
use crate::api::trace::{TraceRequest, Traced};
use crate::api::types::{
    AddBackend, Applied, ApplyRequest, Backend, ChangeBackend, Changed, Confirmed, ConnectionFilter,
    Connections, Counters, PlanRequest, Reloaded, RolledBack, Service, SiteApplied, SiteRender, SiteStatus,
    Status,
};
use crate::api::{Control, Refusal};
use crate::config::Site;
use crate::dataplane::Explainer;
use crate::explain;
use crate::handoff::{self, DrainOutcome, Drainer, Hands, SiteWorker};
use crate::plan::Plan;

/// Asks the engine; cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    requests: mpsc::Sender<Request>,
    /// Held by the hand-off that is going on.
    handing_off: Arc<Mutex<()>>,
    hands: Hands,
    /// The program's second instance: loaded when it is first needed, and kept.
    explainer: Arc<Mutex<Option<Explainer>>>,
    pub(super) tracing: traces::Slot,
}

impl EngineHandle {
    pub(super) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self {
            requests,
            handing_off: Arc::default(),
            hands: Hands::default(),
            explainer: Arc::default(),
            tracing: Arc::default(),
        }
    }

    /// Has hand-offs' scripts run by that process instead of this one.
    #[must_use]
    pub fn with_site_worker(mut self, worker: SiteWorker) -> Self {
        self.hands = Hands::Worker(Arc::new(worker));
        self
    }

    /// Whether the engine answers; it may take as long as what it does just now.
    pub async fn is_alive(&self) -> bool {
        self.look(|_| Ok(())).await.is_ok()
    }

    pub(super) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Refusal::Failed("lbd is stopping".to_owned());
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.ask(|reply| Request::Look(Box::new(move |engine| drop(reply.send(look(engine))))))
            .await
    }

    /// Takes most of a second, in which the engine goes on.
    async fn load_explainer(&self) -> Result<Explainer, Refusal> {
        let blueprint = self.look(Engine::blueprint).await?;
        let loaded = tokio::task::spawn_blocking(move || Explainer::load(&blueprint)).await;
        loaded
            .map_err(|error| Refusal::Failed(error.to_string()))?
            .map_err(|error| Refusal::Failed(error.to_string()))
    }

    async fn site(&self) -> Result<Site, Refusal> {
        self.look(|engine| {
            let none =
                || Refusal::Conflict("the configuration has no [site] to hand to web servers".to_owned());
            engine.file.site.clone().ok_or_else(none)
        })
        .await
    }
}

impl Control for EngineHandle {
    async fn status(&self) -> Result<Status, Refusal> {
        self.look(|engine| Ok(engine.look_at_status())).await
    }

    async fn services(&self) -> Result<Vec<Service>, Refusal> {
        self.look(|engine| Ok(engine.look_at_services())).await
    }

    async fn backends(&self) -> Result<Vec<Backend>, Refusal> {
        let services = self.services().await?;
        Ok(services
            .into_iter()
            .flat_map(|service| service.backends)
            .collect())
    }

    async fn add_backend(&self, request: AddBackend) -> Result<Changed, Refusal> {
        self.ask(|reply| Request::Add(request, reply)).await
    }

    async fn change_backend(&self, request: ChangeBackend) -> Result<Changed, Refusal> {
        self.ask(|reply| Request::Change(request, reply)).await
    }

    async fn connections(&self, filter: ConnectionFilter) -> Result<Connections, Refusal> {
        self.look(move |engine| engine.look_at_connections(&filter)).await
    }

    async fn counters(&self) -> Result<Counters, Refusal> {
        self.look(Engine::look_at_counters).await
    }

    async fn why(&self, question: Question) -> Result<Answer, Refusal> {
        let mut explainer = self.explainer.lock().await;
        if explainer.is_none() {
            *explainer = Some(self.load_explainer().await?);
        }
        let site = self.look(Engine::site).await?;
        match &mut *explainer {
            Some(loaded) => explain::explain(loaded, &site, &question),
            None => Err(Refusal::Failed("it was loaded a moment ago".to_owned())),
        }
    }

    async fn trace(&self, request: TraceRequest) -> Result<Traced, Refusal> {
        self.ask_for_traced(request).await
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.ask(Request::Reload).await
    }

    async fn plan(&self, request: PlanRequest) -> Result<Plan, Refusal> {
        self.look(move |engine| engine.look_ahead(&request)).await
    }

    async fn apply(&self, request: ApplyRequest) -> Result<Applied, Refusal> {
        self.ask(|reply| Request::Apply(request, reply)).await
    }

    async fn confirm(&self) -> Result<Confirmed, Refusal> {
        self.ask(Request::Confirm).await
    }

    async fn rollback(&self) -> Result<RolledBack, Refusal> {
        self.ask(Request::Rollback).await
    }

    async fn site_render(&self) -> Result<SiteRender, Refusal> {
        let site = self.site().await?;
        handoff::render(&site).map_err(|error| Refusal::Configuration(error.to_string()))
    }

    async fn site_apply(&self) -> Result<SiteApplied, Refusal> {
        let busy = || Refusal::Conflict("a hand-off is going on already; wait for it to end".to_owned());
        let _alone = self.handing_off.try_lock().map_err(|_| busy())?;
        let site = self.site().await?;
        Ok(handoff::apply(&site, self, &self.hands).await)
    }

    async fn site_status(&self) -> Result<SiteStatus, Refusal> {
        let site = self.site().await?;
        handoff::status(&site)
            .await
            .map_err(|error| Refusal::Configuration(error.to_string()))
    }
}

impl Drainer for EngineHandle {
    async fn drain(&self, server: &str) -> Result<DrainOutcome, String> {
        let server = server.to_owned();
        self.ask(|reply| Request::DrainForHandoff(server, reply))
            .await
            .map_err(|error| error.to_string())
    }

    async fn connections(&self, server: &str) -> Result<u64, String> {
        let site = self.site().await.map_err(|error| error.to_string())?;
        let services = self.services().await.map_err(|error| error.to_string())?;
        let of_server = |service: &Service| {
            let backends = service.backends.iter().filter(|backend| {
                backend.name == server && site.serves(service.protocol, &service.ports, backend.port)
            });
            backends.map(|backend| backend.traffic.connections).sum::<u64>()
        };
        Ok(services.iter().map(of_server).sum())
    }

    async fn undrain(&self, server: &str) -> Result<(), String> {
        let server = server.to_owned();
        self.ask(|reply| Request::UndrainAfterHandoff(server, Some(reply)))
            .await
            .map_err(|error| error.to_string())
    }

    fn undrain_later(&self, server: &str) {
        let (requests, server) = (self.requests.clone(), server.to_owned());
        tokio::spawn(async move { requests.send(Request::UndrainAfterHandoff(server, None)).await });
    }
}
