//! `/status/tasks`, for operators: schedules, which can be paused and edited here, and what the latest tasks came to.

use serde_json::Value;
use warp::http::{HeaderValue, Method, StatusCode, header};
use warp::hyper::body::Bytes;

use super::reply::{Refusal, Reply, respond, respond_json, wants_page};
use super::{Request, Server, other_methods};
use crate::executor::template::{self, Escape};

/// The path.
pub(super) const PATH: &str = "/status/tasks";
/// The longest form.
pub(super) const MOST: i64 = 64 * 1024;

impl Server {
    /// Answers a request to the path.
    pub(super) async fn answer_tasks(&self, request: &Request<'_>, body: Bytes) -> Result<Reply, Refusal> {
        self.look_at(request)?;
        self.admit(request, "operator").await?;
        match *request.method {
            Method::GET | Method::HEAD => self.show_tasks(request).await,
            Method::POST => self.edit_schedule(&body).await,
            _ => Err(other_methods("GET, HEAD, POST")),
        }
    }

    async fn show_tasks(&self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let wanted = field(request.query.as_bytes(), "definition").unwrap_or_default();
        let pattern = format!("{}%", wanted.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
        let row = self.db()?.row("endpoint.ended_tasks", &[&pattern]).await;
        let row = row.map_err(|error| Refusal::of_error(&error))?.ok_or_else(Refusal::internal)?;
        let mut shown: Value = row.get("shown");
        if !wants_page(request.headers) {
            return Ok(respond_json(StatusCode::OK, &shown));
        }
        shown["definition"] = wanted.into();
        let html =
            template::render("tasks", include_str!("tasks.html"), &shown, Escape::Html).map_err(|error| {
                tracing::error!(error, "the page of schedules and tasks failed");
                Refusal::internal()
            })?;
        Ok(respond(StatusCode::OK, "text/html; charset=utf-8", html.into_bytes()))
    }

    /// Pauses, resumes or edits; back to the page.
    async fn edit_schedule(&self, body: &[u8]) -> Result<Reply, Refusal> {
        let wrong = |problem: &str| Refusal::new(StatusCode::BAD_REQUEST, problem);
        let name = field(body, "name").ok_or_else(|| wrong("name: of which schedule?"))?;
        let enabled = match field(body, "enabled").as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(wrong("enabled: true or false")),
        };
        let (spec, zone) = (field(body, "spec"), field(body, "time_zone"));
        let row = self.db()?.row("endpoint.edit_schedule", &[&name, &enabled, &spec, &zone]).await;
        row.map_err(|error| Refusal::of_error(&error))?
            .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no schedule {name}")))?;
        tracing::info!(schedule = name, enabled, spec, zone, "edited over HTTP");
        let mut reply = respond(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Vec::new());
        reply.headers_mut().insert(header::LOCATION, HeaderValue::from_static(PATH));
        Ok(reply)
    }
}

/// A field of a query or an urlencoded form.
fn field(form: &[u8], name: &str) -> Option<String> {
    url::form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
