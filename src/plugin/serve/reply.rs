//! Answers: what a function gave, or why there is none, as an HTTP response. What went wrong inside is told to the log, not to whoever asks.

use serde_json::{Value, json};
use warp::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::sheet;
use crate::db::query::DbError;
use crate::db::sqlstate;
use crate::executor::template::{self, Escape};

/// A response with its whole body.
pub(super) type Reply = Response<Vec<u8>>;

/// Why a request is not answered as it would like.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The status.
    pub(super) status: StatusCode,
    /// For whoever asks.
    pub(super) message: String,
    /// The document, when it is not `{"error": message}`.
    pub(super) body: Option<Value>,
    /// More headers.
    pub(super) headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    /// A status and what to say.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), body: None, headers: Vec::new() }
    }

    /// The same with a header.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What the database refuses before it calls anything, as `rowbeat.authorise` says.
    pub(super) fn of_status(status: i32, token_shown: bool) -> Self {
        match status {
            401 => {
                let bearer = if token_shown { ", error=\"invalid_token\"" } else { "" };
                Self::new(StatusCode::UNAUTHORIZED, "a token is needed: rowbeat token create")
                    .with(header::WWW_AUTHENTICATE, format!("Bearer realm=\"rowbeat\"{bearer}"))
                    .with(header::WWW_AUTHENTICATE, "Basic realm=\"rowbeat\"")
            }
            403 => Self::new(StatusCode::FORBIDDEN, "this token does not open this"),
            _ => Self::new(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    /// What a function or the database raised. The table is in docs/plugins.md.
    pub(super) fn of_error(error: &DbError) -> Self {
        let raised = match error {
            DbError::Postgres(error) => error.as_db_error(),
            _ => None,
        };
        let Some(raised) = raised else { return Self::busy("the database does not answer") };
        let code = raised.code().code();
        let own = code.strip_prefix("RP").and_then(|number| number.parse::<u16>().ok());
        if let Some(status) = own.filter(|number| (400..500).contains(number)) {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            // A detail that is an object is the body, for those who promise another one.
            let body = raised.detail().and_then(|detail| serde_json::from_str(detail).ok());
            return Self { body: body.filter(Value::is_object), ..Self::new(status, raised.message()) };
        }
        let constraint = raised.constraint().unwrap_or("a rule");
        match code {
            "22023" => Self::new(StatusCode::BAD_REQUEST, raised.message()),
            "23514" => Self::new(StatusCode::BAD_REQUEST, format!("{constraint} is not kept")),
            "22P05" => {
                Self::new(StatusCode::BAD_REQUEST, "there is a character that the database does not take")
            }
            "42501" => Self::new(StatusCode::FORBIDDEN, "this is not allowed"),
            "23505" => Self::new(StatusCode::CONFLICT, format!("it is there already ({constraint})")),
            "57014" => Self::new(StatusCode::GATEWAY_TIMEOUT, "it took too long"),
            "40001" | "40P01" | "55P03" => Self::busy("others were in the way"),
            code if code == sqlstate::COPY_OF_DATABASE.code => Self::busy(raised.message()),
            "25006" => Self::internal(),
            _ if error.is_outage() => Self::busy("the database is away"),
            _ => Self::internal(),
        }
    }

    /// Try again.
    pub(super) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with(header::RETRY_AFTER, "1")
    }

    /// The log says more.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong; the log of rowbeat says what")
    }

    /// As a response: a page for browsers that ask for one, else JSON.
    pub(super) fn reply(self, headers: &HeaderMap) -> Reply {
        let body = self.body.unwrap_or_else(|| json!({ "error": self.message }));
        let mut reply = if wants_page(headers) {
            let source = "<!doctype html><meta charset=utf-8><title>{{ status }}</title><h1>{{ status }}</h1>\
                {% for key, problem in problems | items %}<p>{{ key }}: {{ problem }}</p>{% endfor %}";
            let problems = body.get("errors").unwrap_or(&body);
            let data = json!({ "status": self.status.to_string(), "problems": problems });
            let html = template::render("error", source, &data, Escape::Html).unwrap_or_default();
            respond(self.status, "text/html; charset=utf-8", html.into_bytes())
        } else {
            respond_json(self.status, &body)
        };
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                reply.headers_mut().append(name, value);
            }
        }
        reply
    }
}

/// Whether a browser asks.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// A JSON response.
pub(super) fn respond_json(status: StatusCode, body: &Value) -> Reply {
    respond(status, "application/json", format!("{body}\n").into_bytes())
}

/// A JSON response that is written already; nothing is read into it, so no digit of a long number is lost.
fn respond_text(status: StatusCode, text: &str) -> Result<Reply, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|error| format!("text is no JSON: {error}"))?;
    Ok(respond(status, "application/json", format!("{text}\n").into_bytes()))
}

/// A response that nobody keeps.
pub(super) fn respond(status: StatusCode, content_type: &str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        reply.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    reply
}

/// Templates for an answer.
#[derive(Debug)]
pub(super) struct Pages<'e> {
    /// The endpoint's, for answers that name none.
    pub(super) own: Option<&'e str>,
    /// The text of the answer's and of those that it names, by name.
    pub(super) sources: Value,
}

/// The response that a function's answer stands for.
///
/// # Errors
/// What is wrong with the answer, for the log.
pub(super) fn of_answer(answer: &Value, pages: &Pages<'_>) -> Result<Reply, String> {
    if !answer.is_object() {
        return Err("the answer is no object".to_owned());
    }
    let kind = answer["kind"].as_str().unwrap_or("json");
    let status = match &answer["status"] {
        Value::Null if kind == "redirect" => StatusCode::SEE_OTHER,
        Value::Null => StatusCode::OK,
        number => (number.as_u64().and_then(|number| u16::try_from(number).ok()))
            .filter(|number| (200..600).contains(number))
            .and_then(|number| StatusCode::from_u16(number).ok())
            .ok_or_else(|| format!("{number} is no status"))?,
    };
    let body = &answer["body"];
    let mut reply = match kind {
        "json" => match answer["text"].as_str() {
            Some(text) => respond_text(status, text)?,
            None => respond_json(status, body),
        },
        "html" => respond(status, "text/html; charset=utf-8", html(answer, pages)?.into_bytes()),
        "csv" => respond(status, "text/csv; charset=utf-8", sheet::csv(body)?),
        "xlsx" => {
            // A million cells take about a second: not on a thread that others wait for.
            let workbook = tokio::task::block_in_place(|| sheet::workbook(body))?;
            respond(status, sheet::XLSX, workbook)
        }
        "redirect" => {
            let location = answer["location"].as_str().ok_or("a redirect has no location")?;
            let mut reply = respond(status, "text/plain; charset=utf-8", Vec::new());
            let value = HeaderValue::from_str(location).map_err(|_| "the location is no header")?;
            reply.headers_mut().insert(header::LOCATION, value);
            reply
        }
        other => return Err(format!("there is no kind {other}: json, html, csv, xlsx, redirect")),
    };
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        let header = HeaderName::try_from(name).ok().zip(value.as_str().and_then(|it| it.parse().ok()));
        let (name, value) = header.ok_or_else(|| format!("{name} is no header"))?;
        reply.headers_mut().insert(name, value);
    }
    for (name, cookie) in answer["cookies"].as_object().into_iter().flatten() {
        let cookie = set_cookie(name, cookie)?;
        reply.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(reply)
}

fn html(answer: &Value, pages: &Pages<'_>) -> Result<String, String> {
    let named = answer["template"].as_str();
    match (named.or(pages.own), answer["body"].as_str()) {
        (Some(name), _) if named.is_some() && pages.sources[name].is_null() => {
            Err(format!("there is no templates/{name}"))
        }
        (_, Some(body)) => Ok(body.to_owned()),
        (Some(name), None) => {
            let texts = pages.sources.as_object().into_iter().flatten();
            let sources: Vec<_> =
                texts.filter_map(|(name, text)| Some((name.as_str(), text.as_str()?))).collect();
            template::render_page(name, &sources, &answer["data"])
        }
        (None, None) => Err("html has neither a template nor a body".to_owned()),
    }
}

/// A cookie: its value, null to take it away, or `{"value", "max_age", "path", "same_site", "secure", "http_only"}`.
fn set_cookie(name: &str, cookie: &Value) -> Result<HeaderValue, String> {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte));
    let option = |key: &str| cookie.get(key).filter(|value| !value.is_null());
    let value = match cookie {
        Value::Object(_) => option("value").and_then(Value::as_str),
        other => other.as_str(),
    };
    let max_age = if value.is_none() { Some(0) } else { option("max_age").and_then(Value::as_i64) };
    let path = option("path").and_then(Value::as_str).unwrap_or("/");
    let same_site = option("same_site").and_then(Value::as_str).unwrap_or("Lax");
    let value = value.unwrap_or_default();
    let known = ["Strict", "Lax", "None"].contains(&same_site);
    if name.is_empty() || name.contains('=') || ![name, value, path].into_iter().all(plain) || !known {
        return Err(format!("cookie {name} cannot be set"));
    }
    let mut text = format!("{name}={value}; Path={path}; SameSite={same_site}");
    if option("http_only") != Some(&Value::Bool(false)) {
        text.push_str("; HttpOnly");
    }
    if option("secure") == Some(&Value::Bool(true)) {
        text.push_str("; Secure");
    }
    if let Some(seconds) = max_age {
        text.push_str(&format!("; Max-Age={seconds}"));
    }
    HeaderValue::from_str(&text).map_err(|_| format!("cookie {name} cannot be set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_careful_unless_told_otherwise() {
        let header = |cookie: Value| set_cookie("sid", &cookie).map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(header(json!("a1")).unwrap(), "sid=a1; Path=/; SameSite=Lax; HttpOnly");
        assert_eq!(header(Value::Null).unwrap(), "sid=; Path=/; SameSite=Lax; HttpOnly; Max-Age=0");
        let loose = json!({ "value": "x", "path": "/shop", "same_site": "Strict", "secure": true, "max_age": 60, "http_only": false });
        assert_eq!(header(loose).unwrap(), "sid=x; Path=/shop; SameSite=Strict; Secure; Max-Age=60");
        assert!(header(json!("a;b")).is_err() && header(json!("a\r\nb")).is_err());
    }
}
