//! The server of the API: routes to `Control`, and every refusal as the same JSON.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{
    FromRequest, Path, Query, Request, State, rejection::PathRejection, rejection::QueryRejection,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, body};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::explain::{Answer, Question};
use super::http::{self, READ_TIME};
pub use super::socket::bind;
use super::trace::{TraceRequest, Traced};
use super::types::{
    AddBackend, Applied, ApplyRequest, ChangeBackend, Changed, ConnectionFilter, Connections, Error,
    PlanRequest, Service,
};
use super::{Control, Refusal};
use crate::plan::Plan;

/// The largest request body but for those that bring a configuration; the largest sensible one is under 1 KiB.
const MAX_BODY: usize = 64 * 1024;

/// The largest one that brings a configuration: a text of 4 MiB, every other character of which has to be escaped.
const MAX_TEXT: usize = 8 << 20;

/// So many of those are read at once.
const TEXTS: usize = 2;

/// Connections served at once; more wait their turn.
const CONNECTIONS: usize = 256;

/// Calls to the daemon at once, those whose client has gone included.
const CALLS: usize = 64;

/// Serves the API until `shutdown`, then lets requests under way finish for at most 5 s. It cannot fail: what goes wrong
/// with one client's connection is logged and ends that connection.
pub async fn serve<C: Control>(listener: UnixListener, control: C, shutdown: impl Future<Output = ()>) {
    http::serve(listener, router(control), CONNECTIONS, shutdown).await;
}

fn router<C: Control>(control: C) -> Router {
    type Lbd<C> = State<Daemon<C>>;
    let status = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.status().await });
    let services = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.services().await });
    let backends = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.backends().await });
    let counters = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.counters().await });
    let confirm = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.confirm().await });
    let rollback = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.rollback().await });
    let reload = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.reload().await });
    let site_render = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.site_render().await });
    let site_apply = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.site_apply().await });
    let site_status = |State(lbd): Lbd<C>| lbd.call(|control| async move { control.site_status().await });
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/services/{name}", get(service::<C>))
        .route("/v1/backends", get(backends).post(add_backend::<C>))
        .route("/v1/backends/change", post(change_backend::<C>))
        .route("/v1/connections", get(connections::<C>))
        .route("/v1/counters", get(counters))
        .route("/v1/why", get(why::<C>))
        .route("/v1/trace", post(trace::<C>))
        .route("/v1/reload", post(reload))
        .route("/v1/plan", post(plan::<C>))
        .route("/v1/apply", post(apply::<C>))
        .route("/v1/confirm", post(confirm))
        .route("/v1/rollback", post(rollback))
        .route("/v1/site/render", get(site_render))
        .route("/v1/site/apply", post(site_apply))
        .route("/v1/site/status", get(site_status))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Daemon {
            control,
            calls: Arc::new(Semaphore::new(CALLS)),
            texts: Arc::new(Semaphore::new(TEXTS)),
        })
}

/// The daemon as the handlers see it.
#[derive(Clone)]
struct Daemon<C> {
    control: C,
    calls: Arc<Semaphore>,
    texts: Arc<Semaphore>,
}

impl<C: Control> Daemon<C> {
    /// Makes a call and sees it through even if the client goes away meanwhile: half a hand-off is worse than one that
    /// nobody waits for.
    async fn call<T, F>(self, call: impl FnOnce(C) -> F) -> Result<Json<T>, Refused>
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let turn = self.calls.acquire_owned().await;
        let call = call(self.control);
        let called = tokio::spawn(async move {
            let answer = call.await;
            drop(turn);
            answer
        });
        match called.await {
            Ok(answer) => Ok(Json(answer?)),
            Err(error) => Err(Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("lbd failed while it answered: {error}; look into its log and report this as a bug"),
            )),
        }
    }
}

async fn service<C: Control>(
    State(lbd): State<Daemon<C>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Service>, Refused> {
    let Path(name) = name.map_err(|rejection| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("the service's name: {rejection}"),
        )
    })?;
    let Json(services) = lbd
        .call(|control| async move { control.services().await })
        .await?;
    let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
    let found = services.into_iter().find(|service| service.name == name);
    found.map(Json).ok_or_else(|| {
        let there = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        Refusal::Unknown(format!("there is no service {name:?}; services: {there}")).into()
    })
}

async fn connections<C: Control>(
    State(lbd): State<Daemon<C>>,
    filter: Result<Query<ConnectionFilter>, QueryRejection>,
) -> Result<Json<Connections>, Refused> {
    let Query(filter) = filter.map_err(|rejection| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!(
                "{}; allowed are service, backend, client, state and limit",
                rejection.body_text()
            ),
        )
    })?;
    lbd.call(|control| async move { control.connections(filter).await })
        .await
}

async fn why<C: Control>(
    State(lbd): State<Daemon<C>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Answer>, Refused> {
    let Query(question) = question.map_err(|rejection| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!(
                "{}; wanted are protocol (tcp or udp), client and vip (each ADDRESS:PORT), allowed are flags, from_backend, \
                 backend, interface and length",
                rejection.body_text()
            ),
        )
    })?;
    lbd.call(|control| async move { control.why(question).await })
        .await
}

async fn trace<C: Control>(
    State(lbd): State<Daemon<C>>,
    Body(request): Body<TraceRequest>,
) -> Result<Json<Traced>, Refused> {
    lbd.call(|control| async move { control.trace(request).await })
        .await
}

async fn add_backend<C: Control>(
    State(lbd): State<Daemon<C>>,
    Body(request): Body<AddBackend>,
) -> Result<Json<Changed>, Refused> {
    lbd.call(|control| async move { control.add_backend(request).await })
        .await
}

async fn change_backend<C: Control>(
    State(lbd): State<Daemon<C>>,
    Body(request): Body<ChangeBackend>,
) -> Result<Json<Changed>, Refused> {
    lbd.call(|control| async move { control.change_backend(request).await })
        .await
}

async fn plan<C: Control>(State(lbd): State<Daemon<C>>, request: Request) -> Result<Json<Plan>, Refused> {
    let request: PlanRequest = text(&lbd, request).await?;
    lbd.call(|control| async move { control.plan(request).await })
        .await
}

async fn apply<C: Control>(State(lbd): State<Daemon<C>>, request: Request) -> Result<Json<Applied>, Refused> {
    let request: ApplyRequest = text(&lbd, request).await?;
    lbd.call(|control| async move { control.apply(request).await })
        .await
}

/// A request body that may bring a configuration.
async fn text<C, T: DeserializeOwned>(lbd: &Daemon<C>, request: Request) -> Result<T, Refused> {
    let _turn = lbd.texts.acquire().await;
    read(request, MAX_TEXT).await
}

async fn unknown_route(uri: Uri) -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        format!("there is no {}; the API begins with /v1/status", uri.path()),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Refused {
    Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{} does not take {method}; what reads is GET, what changes something is POST",
            uri.path()
        ),
    )
}

/// A JSON request body, whatever its content type: at most 64 KiB, arriving within 5 s.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        read(request, MAX_BODY).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Refused> {
    let bytes = timeout(READ_TIME, body::to_bytes(request.into_body(), most))
        .await
        .map_err(|_| {
            Refused::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the request's body did not arrive within {READ_TIME:?}"),
            )
        })?
        .map_err(|error| {
            Refused::new(
                StatusCode::BAD_REQUEST,
                format!("the request's body cannot be read: {error}; at most {most} bytes are allowed"),
            )
        })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("the request's body is not the JSON that is wanted: {error}"),
        )
    })
}

/// An answer other than 2xx.
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, message: String) -> Self {
        Self { status, message }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Configuration(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, refusal.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Error { error: self.message })).into_response()
    }
}
