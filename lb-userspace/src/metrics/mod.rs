//! Prometheus metrics: everything that `status` and `counters` know, as text over HTTP.

mod exposition;
mod families;

use std::future::Future;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::api::{Control, http};

/// Scrapes at once; more wait their turn.
const CONNECTIONS: usize = 16;

/// The Prometheus text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves `GET /metrics` until `shutdown`, then lets scrapes under way finish for at most 5 s. It cannot fail: what goes
/// wrong with one connection is logged and ends that connection. Whoever can reach `listener` may read: keep it on an
/// address that only the monitoring reaches.
pub async fn serve<C: Control>(listener: TcpListener, control: C, shutdown: impl Future<Output = ()>) {
    let router = Router::new()
        .route("/metrics", get(metrics::<C>))
        .fallback(|| async { (StatusCode::NOT_FOUND, "the metrics are at /metrics\n") })
        .with_state(control);
    http::serve(listener, router, CONNECTIONS, shutdown).await;
}

async fn metrics<C: Control>(State(control): State<C>) -> Response {
    let answers =
        async { Ok::<_, crate::api::Refusal>((control.status().await?, control.counters().await?)) };
    match answers.await {
        Ok((status, counters)) => (
            [(header::CONTENT_TYPE, CONTENT_TYPE)],
            families::text(&status, &counters),
        )
            .into_response(),
        Err(refusal) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{refusal}\n")).into_response(),
    }
}
