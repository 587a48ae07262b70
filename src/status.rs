//! Status over HTTP: one warp filter, one SQL call an answer.
//!
//! `/live` the process runs (never touches the database) · `/ready` (alias `/health`) every loop works, the schema fits,
//! the database takes writes: 200 or 503 · `/status` everything, as JSON, or as a page for browsers · `/metrics` the same
//! numbers for Prometheus: of these only GET exists. What plugins and operators need besides is handed in as `More`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, Response, StatusCode, Uri, header};
use warp::{Filter, Rejection, Reply};

pub mod metrics;
pub mod page;
pub mod requests;
pub mod snapshot;

use snapshot::Snapshots;

/// An idle connection may not hold a stopping daemon longer than this.
const LINGER: Duration = Duration::from_secs(2);

/// Opens the port.
///
/// # Errors
/// When it is taken, or may not be opened.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// What is served beside the status.
pub struct More {
    /// The endpoints of plugins and the daemon's own paths below /api.
    pub routes: BoxedFilter<(Response<Vec<u8>>,)>,
    /// Where / leads instead of to the status.
    pub root_page: Option<Uri>,
}

/// Answers until `stop`.
pub async fn serve(listener: TcpListener, snapshots: Arc<Snapshots>, more: More, stop: CancellationToken) {
    let stopped = stop.clone();
    let served = warp::serve(routes(snapshots, more))
        .incoming(listener)
        .graceful(async move { stopped.cancelled().await })
        .run();
    tokio::select! {
        () = served => {}
        () = async { stop.cancelled().await; tokio::time::sleep(LINGER).await } => {}
    }
}

fn routes(
    snapshots: Arc<Snapshots>,
    more: More,
) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let shared = warp::any().map(move || Arc::clone(&snapshots));
    let get = || warp::get().or(warp::head()).unify();
    let live = warp::path!("live")
        .and(get())
        .map(|| text(StatusCode::OK, "text/plain; charset=utf-8", "alive\n".into()));
    let ready =
        warp::path!("ready").or(warp::path!("health")).unify().and(get()).and(shared.clone()).then(ready);
    let root_page = more.root_page;
    let root = warp::path::end().and(get()).and_then(move || {
        let page = root_page.clone();
        async move { page.map(warp::redirect::see_other).ok_or_else(warp::reject::not_found) }
    });
    let status = warp::path!("status")
        .or(warp::path::end())
        .unify()
        .and(get())
        .and(warp::header::optional::<String>("accept"))
        .and(shared.clone())
        .then(status);
    let metrics = warp::path!("metrics").and(get()).and(shared).then(metrics);
    live.or(ready).or(root).or(status).or(metrics).or(more.routes).recover(refuse).map(|reply| {
        warp::reply::with_header(reply, "x-content-type-options", HeaderValue::from_static("nosniff"))
    })
}

async fn ready(snapshots: Arc<Snapshots>) -> Response<String> {
    let readiness = snapshots.readiness().await;
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &serde_json::json!(readiness))
}

async fn status(accept: Option<String>, snapshots: Arc<Snapshots>) -> Response<String> {
    let (code, snapshot) = snapshots.status().await;
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        return text(code, "text/html; charset=utf-8", page::render(&snapshot));
    }
    json(code, &snapshot)
}

async fn metrics(snapshots: Arc<Snapshots>) -> Response<String> {
    let (code, snapshot) = snapshots.status().await;
    text(code, "text/plain; version=0.0.4; charset=utf-8", metrics::render(&snapshot, &snapshots.requests))
}

async fn refuse(rejection: Rejection) -> Result<impl Reply, Infallible> {
    let (code, message) = if rejection.is_not_found() {
        (
            StatusCode::NOT_FOUND,
            "there is nothing here: see /status, and /api/openapi.json for the endpoints of plugins",
        )
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here")
    };
    Ok(json(code, &serde_json::json!({ "error": message })))
}

fn json(code: StatusCode, body: &serde_json::Value) -> Response<String> {
    text(code, "application/json", format!("{body:#}\n"))
}

fn text(code: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
