//! The endpoints of plugins over HTTP: one filter, one SQL call a request.
//!
//! A request is matched with what plugins declare, its Host and Origin are looked at, its input is read within limits and checked; then the
//! database says who it is, whether he may, and what the answer is, in one transaction. Sessions are a small pool of their own and
//! requests have a limited number of places, so that endpoints cannot starve the daemon's loops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::RecyclingMethod;
use futures_util::{Stream, TryStreamExt};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method, StatusCode, header};
use warp::hyper::body::Bytes;
use warp::path::FullPath;
use warp::{Buf, Filter, Rejection};

pub mod catalogue;

mod call;
mod guard;
mod input;
mod openapi;
mod own;
mod reply;
mod sheet;
mod tasks;

use self::call::{Call, Caller};
use self::catalogue::{Catalogue, Declared, Route};
use self::guard::Guard;
pub use self::guard::digest;
use self::input::Raw;
pub use self::own::Surroundings;
use self::reply::{Pages, Refusal, Reply};
use crate::config::HttpConfig;
use crate::db::connect::Connector;
use crate::db::query::SESSION_SETUP;
use crate::status::snapshot::Snapshots;

/// Requests at a time, those that wait for a session included; more are told to come again.
const PLACES: usize = 64;
/// A body that trickles in holds a place for so long at most.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Everything that answers need.
pub struct Server {
    guard: Guard,
    catalogue: Catalogue,
    caller: Caller,
    connector: Connector,
    places: Semaphore,
    snapshots: Arc<Snapshots>,
    surroundings: Surroundings,
}

/// A request as far as it was read.
struct Request<'r> {
    method: &'r Method,
    path: &'r str,
    query: &'r str,
    headers: &'r HeaderMap,
}

impl Server {
    /// Answers at this address; nobody is connected to before the first request.
    pub fn new(
        config: &HttpConfig,
        listen: std::net::SocketAddr,
        connector: &Connector,
        catalogue: Catalogue,
        snapshots: Arc<Snapshots>,
        surroundings: Surroundings,
    ) -> Self {
        let pool = connector.pool(config.max_connections, RecyclingMethod::Fast, SESSION_SETUP);
        Self {
            guard: Guard { hosts: config.hosts.clone(), listen },
            catalogue,
            caller: Caller::new(pool, config.timeout),
            connector: connector.clone(),
            places: Semaphore::new(PLACES),
            snapshots,
            surroundings,
        }
    }

    /// The filter; what no plugin declares and is not the daemon's own is rejected.
    pub fn routes(self: Arc<Self>) -> BoxedFilter<(Reply,)> {
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        warp::method()
            .and(warp::path::full())
            .and(query)
            .and(warp::header::headers_cloned())
            .and(warp::body::stream())
            .and_then(move |method: Method, path: FullPath, query: String, headers: HeaderMap, body| {
                let server = Arc::clone(&self);
                async move {
                    let request =
                        Request { method: &method, path: path.as_str(), query: &query, headers: &headers };
                    Box::pin(server.answer(&request, body)).await
                }
            })
            .boxed()
    }

    async fn answer<B: Buf>(
        &self,
        request: &Request<'_>,
        body: impl Stream<Item = Result<B, warp::Error>> + Send,
    ) -> Result<Reply, Rejection> {
        if let Some(path) = own::Path::of(request.path) {
            let answered = Box::pin(self.answer_own(request, path)).await;
            return Ok(answered.unwrap_or_else(|refusal| refusal.reply(request.headers)));
        }
        if request.path.trim_end_matches('/') == tasks::PATH {
            let answered = match read_body(request.headers, body, tasks::MOST).await {
                Ok(body) => Box::pin(self.answer_tasks(request, body)).await,
                Err(refusal) => Err(refusal),
            };
            return Ok(answered.unwrap_or_else(|refusal| refusal.reply(request.headers)));
        }
        let method = if request.method == Method::HEAD { "GET" } else { request.method.as_str() };
        let (declared, parameters) = match self.catalogue.route(method, request.path) {
            Route::Found(declared, parameters) => (declared, parameters),
            Route::Nowhere => return Err(warp::reject::not_found()),
            Route::OtherMethods(methods) => {
                return Ok(other_methods(&methods.join(", ")).reply(request.headers));
            }
            Route::Unknown => {
                return Ok(Refusal::busy("waiting for the database").reply(request.headers));
            }
        };
        let begun = Instant::now();
        let answered = self.call(request, &declared, &parameters, body).await;
        let reply = answered.unwrap_or_else(|refusal| refusal.reply(request.headers));
        let endpoint = declared.endpoint;
        let kind = (declared.plugin, endpoint.method, endpoint.path, reply.status().as_u16());
        self.snapshots.requests.count(kind, begun.elapsed());
        Ok(reply)
    }

    fn look_at(&self, request: &Request<'_>) -> Result<(), Refusal> {
        match self.guard.refuse(request.method, request.headers) {
            Some(why) => Err(Refusal::new(StatusCode::FORBIDDEN, why)),
            None => Ok(()),
        }
    }

    async fn call<B: Buf>(
        &self,
        request: &Request<'_>,
        declared: &Declared,
        parameters: &[(String, String)],
        body: impl Stream<Item = Result<B, warp::Error>> + Send,
    ) -> Result<Reply, Refusal> {
        let Declared { plugin, endpoint } = declared;
        self.look_at(request)?;
        let (token, open) = (guard::shown_token(request.headers), self.guard.came_straight(request.headers));
        if endpoint.auth != "none" && token.is_none() && !open {
            return Err(Refusal::of_status(401, false));
        }
        let _place = self.places.try_acquire().map_err(|_| Refusal::busy("too many requests at a time"))?;
        let body = read_body(request.headers, body, endpoint.max_body_bytes).await?;
        let raw = Raw { path: parameters, query: request.query, headers: request.headers, body };
        let input = input::read(endpoint, raw).await?;
        let token_shown = token.is_some();
        let call = Call {
            method: &endpoint.method,
            shape: &endpoint.shape,
            request: json!({ "method": request.method.as_str(), "path": request.path, "input": input.fields,
                "cookies": cookies(request.headers, &endpoint.cookies) }),
            files: input.files,
            token,
            open,
        };
        let internal = |error: &str| {
            tracing::error!(plugin, endpoint.method, endpoint.path, error, "an endpoint failed");
            Refusal::internal()
        };
        let row = self.caller.call(&call).await.map_err(|error| {
            let refusal = Refusal::of_error(&error);
            if refusal.status.is_server_error() {
                tracing::error!(plugin, endpoint.method, endpoint.path, %error, "an endpoint failed");
            }
            refusal
        })?;
        if let Some(status) = row.get::<_, Option<i32>>("refusal") {
            return Err(Refusal::of_status(status, token_shown));
        }
        let answer: Option<Value> = row.get("answer");
        let templates: Option<Value> = row.get("templates");
        let pages = Pages { own: endpoint.template.as_deref(), sources: templates.unwrap_or_default() };
        reply::of_answer(&answer.unwrap_or_default(), &pages).map_err(|error| internal(&error))
    }
}

fn other_methods(allow: &str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("what is answered here: {allow}"))
        .with(header::ALLOW, allow)
}

async fn read_body<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    most: i64,
) -> Result<Bytes, Refusal> {
    let most = usize::try_from(most).unwrap_or_default();
    let too_long =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {most} bytes here"));
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if said.is_some_and(|length: usize| length > most) {
        return Err(too_long());
    }
    let mut body = std::pin::pin!(body);
    let read = async {
        let mut whole = Vec::with_capacity(said.unwrap_or_default());
        let broken = |_| Refusal::new(StatusCode::BAD_REQUEST, "the body broke off");
        while let Some(mut piece) = body.try_next().await.map_err(broken)? {
            if whole.len() + piece.remaining() > most {
                return Err(too_long());
            }
            whole.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        Ok(Bytes::from(whole))
    };
    let late = Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    tokio::time::timeout(BODY_TIME, read).await.unwrap_or(Err(late))
}

/// The cookies that the function gets to see.
fn cookies(headers: &HeaderMap, wanted: &[String]) -> Map<String, Value> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|header| header.to_str().ok());
    all.flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| wanted.iter().any(|wanted| wanted == name))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}
