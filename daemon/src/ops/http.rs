//! HTTP on `MetricsListen`: the dashboard, `/metrics`, `/healthz`, `/ready`, `/api/v1/status`, `/api/v1/live` (FAULTS 65).
//!
//! Everything a client can do is bounded: connections, the time for a request head, its size, and the life of a
//! connection. A slow or silent client holds one of [`MAX_CONNECTIONS`] for a while, never the control loop.
//!
//! [`serve`] accepts, [`converse`] carries on one connection over whatever stream it came by, [`Pages`] answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{StreamExt as _, stream};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::live::{Live, LiveEvent};
use super::query::{Ask, NoAnswer};
use super::{metrics, page};

/// Connections served at once; further ones wait in the listener's queue.
pub const MAX_CONNECTIONS: usize = 32;
/// Time for the head of a request, also of the next one on a kept connection.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Life of a connection.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// Largest request head in bytes; hyper asks for 8 KiB at least.
const MAX_HEAD_LEN: usize = 16 * 1024;
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the page waits before it takes up the next stream.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A live stream ends well at three quarters of its connection's life, and its connection with it: a stream that began
/// late on a kept connection would be cut in its midst. The page takes up the next one.
#[derive(Clone, Copy, Debug)]
struct StreamsEnd(Instant);

impl StreamsEnd {
    fn of(limits: Limits) -> Self {
        Self(Instant::now() + limits.connection * 3 / 4)
    }
}

const INDEX: &str = "isatapd\n\n/                the dashboard\n/metrics         Prometheus metrics\n/healthz         200 while the daemon lives\n\
                     /ready           200 when packets can be carried\n/api/v1/status   the status as JSON\n/api/v1/live     the status once a second (text/event-stream)\n";

/// How patient the server is; tests are less so.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Time for a request head.
    pub head: Duration,
    /// Life of a connection.
    pub connection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            head: HEAD_WITHIN,
            connection: CONNECTION_WITHIN,
        }
    }
}

/// What is served: a page for each path. Clones share the live stream.
#[derive(Clone, Debug)]
pub struct Pages(Router);

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, ask: Ask, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let pages = Pages::new(ask);
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("accept on MetricsListen: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let _permit = permit;
            converse(stream, pages, limits).await;
        });
    }
}

/// One connection, until either side has had enough or its time is up. How it ends is the client's business. Must run
/// inside a runtime with a clock.
pub async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Pages, limits: Limits) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD_LEN);
    let pages = pages.0.layer(Extension(StreamsEnd::of(limits)));
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let _ = tokio::time::timeout(limits.connection, served).await;
}

impl Pages {
    /// Pages that ask the control loop.
    pub fn new(ask: Ask) -> Self {
        let router = Router::new()
            .route("/", get(dashboard))
            .route("/healthz", get(async || plain(StatusCode::OK, "ok\n".to_owned())))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics_page))
            .route("/api/v1/status", get(status))
            .fallback(async || plain(StatusCode::NOT_FOUND, format!("not here; this is\n{INDEX}")))
            .with_state(ask.clone())
            .merge(
                Router::new()
                    .route("/api/v1/live", get(live))
                    .with_state(Live::new(ask)),
            );
        Self(router)
    }
}

async fn dashboard() -> Response {
    let mut response = typed(
        StatusCode::OK,
        "text/html; charset=utf-8",
        page::text().to_owned(),
    );
    let policy = HeaderValue::from_static(page::POLICY);
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn live(
    State(live): State<Live>,
    Extension(StreamsEnd(until)): Extension<StreamsEnd>,
    headers: HeaderMap,
) -> Response {
    let after = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let Some((seen, receiver)) = live.watch(after) else {
        let why = "enough viewers already; close a page, or look again later\n";
        return plain(StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
    };
    let send =
        |event: LiveEvent| Ok::<_, Infallible>(Event::default().id(event.id.to_string()).data(&*event.data));
    let first = stream::iter(seen).map(send);
    let rest = stream::unfold(receiver, move |mut receiver| async move {
        loop {
            match tokio::time::timeout_at(until, receiver.recv()).await {
                Ok(Ok(event)) => return Some((send(event), receiver)),
                // It was too slow: go on with what there is.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return None,
            }
        }
    });
    let retry = stream::once(async { Ok(Event::default().retry(RETRY_AFTER)) });
    let mut response = Sse::new(retry.chain(first).chain(rest)).into_response();
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn ready(State(ask): State<Ask>) -> Response {
    match ask.ready().await {
        Ok(Ok(())) => plain(StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(reasons)) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready\n{}\n", reasons.join("\n")),
        ),
        Err(why) => unanswered(why),
    }
}

async fn metrics_page(State(ask): State<Ask>) -> Response {
    match ask.metrics().await {
        Ok(text) => typed(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(why) => unanswered(why),
    }
}

async fn status(State(ask): State<Ask>) -> Response {
    match ask.status().await {
        Ok(status) => match serde_json::to_string_pretty(&status) {
            Ok(text) => typed(StatusCode::OK, "application/json", text + "\n"),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        Err(why) => unanswered(why),
    }
}

fn unanswered(why: NoAnswer) -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

fn plain(status: StatusCode, text: String) -> Response {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (status, headers, text).into_response()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
