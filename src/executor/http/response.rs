//! What a reply means, and what is kept of it.

use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER, SET_COOKIE};
use serde_json::{Map, Value, json};

use crate::executor::Failure;

/// As much of the body of a refusal is kept with the task.
const EXCERPT: usize = 4096;
/// Nobody is waited for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// A reply, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether the body was too long, and is missing.
    pub(super) cut: bool,
}

impl Reply {
    /// Forgets what came, but for the status and when to come again.
    pub(super) fn forget_content(&mut self) {
        self.body.clear();
        let kept = [RETRY_AFTER, DATE].map(|name| (self.headers.get(&name).cloned(), name));
        self.headers = kept.into_iter().filter_map(|(value, name)| Some((name, value?))).collect();
    }

    /// The response of the effect, or why there is none; `what` is the request in words.
    pub(super) fn judge(self, what: &str, ok: &[u16], retry: &[u16], most: usize) -> Result<Value, Failure> {
        let status = self.status.as_u16();
        let listed = |list: &[u16]| list.contains(&status);
        if listed(ok) || (self.status.is_success() && !listed(retry)) {
            if self.cut {
                let problem = format!("{what}: {status}, and the response is longer than {most} bytes");
                return Err(Failure::Reject(json!({ "message": problem, "status": status })));
            }
            return Ok(json!({
                "status": status,
                "headers": self.headers(),
                "body": self.body(),
            }));
        }
        let text: String = String::from_utf8_lossy(&self.body).chars().take(EXCERPT).collect();
        let error = json!({
            "message": format!("{what}: {}", self.status),
            "status": status,
            "body": storable(text.into()),
        });
        if listed(retry) || matches!(status, 408 | 425 | 429) || self.status.is_server_error() {
            return Err(Failure::Retry { error, after: retry_after(&self.headers) });
        }
        Err(Failure::Reject(error))
    }

    /// Names in lower case; one that stands several times is joined by commas. Cookies are left out: they are secrets.
    fn headers(&self) -> Value {
        let mut kept = Map::new();
        for name in self.headers.keys().filter(|name| **name != SET_COOKIE) {
            let values: Vec<_> =
                self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            kept.insert(name.as_str().to_owned(), values.join(", ").into());
        }
        Value::Object(kept)
    }

    /// JSON where the content type says so, or says nothing; else text.
    fn body(&self) -> Value {
        let content_type = self.headers.get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or_default());
        let media = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_lowercase());
        let may_be_json = media.is_none_or(|media| media == "application/json" || media.ends_with("+json"));
        if self.body.is_empty() {
            return Value::Null;
        }
        let parsed = if may_be_json { serde_json::from_slice(&self.body).ok() } else { None };
        storable(parsed.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into()))
    }
}

/// jsonb holds no NUL: a response must not become an attempt that cannot be recorded, and so an effect that is repeated.
fn storable(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").into(),
        Value::Array(items) => items.into_iter().map(storable).collect(),
        Value::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key.replace('\0', "\u{fffd}"), storable(value))).collect()
        }
        other => other,
    }
}

/// The pause that the other side asks for: seconds, or a time by its own clock (RFC 9110, section 10.2.3). None when it
/// asks for no time at all: then the definition's pause is right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let pause = match asked.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = httpdate::parse_http_date(text(DATE)?).ok()?;
            httpdate::parse_http_date(asked).ok()?.duration_since(now).ok()?
        }
    };
    Some(pause.min(LONGEST_PAUSE)).filter(|pause| !pause.is_zero())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Reply {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, headers: headers.collect(), body: Bytes::from_static(body), cut: false }
    }

    #[test]
    fn retry_after_is_seconds_or_a_time_by_the_servers_clock() {
        let after = |retry: &'static str, date: Option<&'static str>| {
            let mut headers = vec![("retry-after", retry)];
            headers.extend(date.map(|date| ("date", date)));
            retry_after(&reply(429, &headers, b"").headers)
        };
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(after("120", None), Some(Duration::from_secs(120)));
        assert_eq!(after("Wed, 21 Oct 2015 07:29:30 GMT", date), Some(Duration::from_secs(90)));
        assert_eq!(after("Wed, 21 Oct 2015 07:27:00 GMT", date), None, "it is over");
        assert_eq!(after("Wed, 21 Oct 2015 07:29:30 GMT", None), None, "whose clock?");
        assert_eq!(after("999999999999", None), Some(LONGEST_PAUSE));
        assert_eq!((after("0", None), after("soon", date), after("-1", date)), (None, None, None));
    }

    #[test]
    fn statuses_are_done_worth_another_attempt_or_final() {
        let verdict = |status| match reply(status, &[], b"").judge("GET x", &[404], &[409, 202], 10) {
            Ok(_) => "done",
            Err(Failure::Retry { .. }) => "retry",
            Err(_) => "final",
        };
        assert_eq!([200, 204, 404].map(verdict), ["done"; 3]);
        assert_eq!([202, 408, 409, 425, 429, 500, 503, 599].map(verdict), ["retry"; 8]);
        assert_eq!([301, 304, 400, 401, 403, 422].map(verdict), ["final"; 6]);
    }

    #[test]
    fn a_body_is_json_where_it_says_so_and_text_elsewhere() {
        let body = |kind, bytes| reply(200, &[("content-type", kind)], bytes).body();
        assert_eq!(body("application/json; charset=utf-8", b"{\"a\":1}"), json!({ "a": 1 }));
        assert_eq!(body("application/problem+json", b"[1]"), json!([1]));
        assert_eq!(body("text/plain", b"12"), json!("12"));
        assert_eq!(body("application/json", b"oops"), json!("oops"));
        assert_eq!(reply(200, &[], b"12").body(), json!(12));
        assert_eq!(body("text/plain", b""), Value::Null);
        assert_eq!(body("application/json", b"{\"a\":\"x\\u0000y\"}"), json!({ "a": "x\u{fffd}y" }));
    }

    #[test]
    fn of_a_secret_exchange_the_status_and_the_pause_are_kept() {
        let mut secret = reply(503, &[("retry-after", "7"), ("location", "/users/bob")], b"bob's password");
        secret.forget_content();
        let Err(Failure::Retry { error, after }) = secret.judge("PUT x", &[], &[], 10) else {
            panic!("done")
        };
        assert_eq!(error, json!({ "message": "PUT x: 503 Service Unavailable", "status": 503, "body": "" }));
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn cookies_are_not_kept() {
        let kept = reply(200, &[("set-cookie", "session=1"), ("x-a", "1"), ("x-b", "2")], b"").headers();
        assert_eq!(kept, json!({ "x-a": "1", "x-b": "2" }));
    }
}
