//! The HTTP server under the API and the metrics. Every client is bounded: one request a connection, so many
//! connections at once, and so much time for each part of it. A client that sends garbage, half a request or a thousand
//! requests, or that does not read its answer, costs a slot for a few seconds and nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::debug;

/// From accepting a connection to the end of its request's header, and once more to the end of its body.
pub(crate) const READ_TIME: Duration = Duration::from_secs(5);

/// From the first byte of an answer to the last.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// How long a shutdown waits for requests under way.
const SHUTDOWN_TIME: Duration = Duration::from_secs(5);

/// Serves `router` until `shutdown`, then lets requests under way finish for at most 5 s. Connections beyond `at_once`
/// wait in the listener's backlog. Failing to accept is logged and tried again, so nothing ends this but `shutdown`.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    at_once: usize,
    shutdown: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(at_once));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await.0)
        };
        let (slot, stream) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let connection = connection(stream, router.clone(), graceful.watcher());
        tokio::spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    if timeout(SHUTDOWN_TIME, graceful.shutdown()).await.is_err() {
        debug!("requests were still under way {SHUTDOWN_TIME:?} after the shutdown began");
    }
}

/// Answers one request and closes the connection.
async fn connection<S>(stream: S, router: Router, watcher: Watcher)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let answering = Arc::new(Notify::new());
    let service = {
        let answering = Arc::clone(&answering);
        let router = TowerToHyperService::new(router);
        service_fn(move |request: hyper::Request<Incoming>| {
            let answering = Arc::clone(&answering);
            let response = router.call(request);
            async move {
                let response = response.await;
                answering.notify_one();
                response as Result<_, Infallible>
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let not_read = async {
        answering.notified().await;
        sleep(WRITE_TIME).await;
    };
    tokio::select! {
        result = watcher.watch(connection) => {
            if let Err(error) = result {
                debug!("a client's connection failed: {error}");
            }
        }
        () = not_read => debug!("a client did not read its answer within {WRITE_TIME:?}"),
    }
}
