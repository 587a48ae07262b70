//! From an effect to a request: below the connection's base URL, without a word about hosts or credentials.

use std::collections::BTreeMap;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::config::HttpConnection;
use crate::executor::template::{self, Escape};
use crate::executor::{Effect, Failure};

/// What belongs to the connection, or to HTTP itself.
const RESERVED: [&str; 11] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// The effect as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) connection: String,
    method: Option<String>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    query: BTreeMap<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    text: Option<String>,
    form: Option<BTreeMap<String, Value>>,
    template: Option<String>,
    data: Option<Value>,
    #[serde(default)]
    pub(super) ok: Vec<u16>,
    #[serde(default)]
    pub(super) retry: Vec<u16>,
    #[serde(default)]
    pub(super) secret: Vec<Side>,
}

/// A side of an exchange.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Request,
    Response,
}

impl Spec {
    pub(super) fn read(effect: &Effect) -> Result<Self, Failure> {
        Self::deserialize(&effect.spec).map_err(|error| Failure::reject(format!("effect of http: {error}")))
    }
}

/// A request that can be sent more than once.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn new(connection: &HttpConnection, spec: &Spec, effect: &Effect) -> Result<Self, Failure> {
        let (content_type, body) = body(spec, effect)?;
        let default = if content_type.is_some() { "POST" } else { "GET" };
        let method = spec.method.as_deref().unwrap_or(default).to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .ok()
            .filter(|method| ![Method::CONNECT, Method::TRACE].contains(method))
            .ok_or_else(|| Failure::reject(format!("effect of http: {method} is no method for it")))?;
        let mut headers = Self::bare_headers();
        for (name, value) in own_headers(connection, &spec.headers)? {
            headers.insert(name, value);
        }
        if let Some(content_type) = content_type {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        }
        let key = HeaderValue::try_from(effect.idempotency_key());
        if let Ok(key) = key {
            headers.entry("idempotency-key").or_insert(key);
        }
        headers.insert("rowbeat-task", effect.task.id.into());
        headers.insert("rowbeat-attempt", effect.task.attempt.into());
        Ok(Self { method, url: url(connection, spec)?, headers, body })
    }

    /// The headers of a request that carries nothing of the connection's or the effect's.
    pub(super) fn bare_headers() -> HeaderMap {
        HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("*/*")),
            (USER_AGENT, HeaderValue::from_static(concat!("rowbeat/", env!("CARGO_PKG_VERSION")))),
        ])
    }

    /// Method and address, without the query, which may say something about people.
    pub(super) fn describe(&self) -> String {
        format!("{} {}{}", self.method, self.url.origin().ascii_serialization(), self.url.path())
    }
}

/// The base URL with path and query appended, and still below it.
fn url(connection: &HttpConnection, spec: &Spec) -> Result<Url, Failure> {
    let base = &connection.base_url;
    let refused = |why: &str| Failure::reject(format!("effect of http: the path {why}"));
    if !spec.path.is_empty() && !spec.path.starts_with('/') {
        return Err(refused("does not begin with /"));
    }
    if spec.path.contains('#') {
        return Err(refused("has a #; write %23"));
    }
    // A base without a path is written with one, which the effect's path brings along.
    let root = base.as_str().trim_end_matches('/');
    let mut url = Url::parse(&format!("{root}{}", spec.path)).map_err(|_| refused("makes no URL"))?;
    let below = base.path().trim_end_matches('/');
    let inside = url.path().strip_prefix(below).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if url.origin() != base.origin() || !inside {
        return Err(refused("leads out of the connection's base_url"));
    }
    let pairs = pairs(&spec.query)?;
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    Ok(url)
}

fn own_headers(
    connection: &HttpConnection,
    headers: &BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let signature = connection.signature.as_ref().map(|signature| &signature.header);
    let checked = headers.iter().map(|(name, value)| {
        let known = HeaderName::try_from(name).ok().zip(HeaderValue::from_str(value).ok());
        let Some((known, value)) = known else {
            return Err(Failure::reject(format!(
                "effect of http: {name} is no header, or its value is none"
            )));
        };
        if RESERVED.contains(&known.as_str()) || Some(&known) == signature {
            let message = format!("effect of http: the header {name} is for the connection to set");
            return Err(Failure::reject(message));
        }
        Ok((known, value))
    });
    checked.collect()
}

/// The body and its content type.
fn body(spec: &Spec, effect: &Effect) -> Result<(Option<&'static str>, Bytes), Failure> {
    const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
    match (&spec.body, &spec.text, &spec.form, &spec.template) {
        (None, None, None, None) => Ok((None, Bytes::new())),
        (Some(json), None, None, None) => Ok((Some("application/json"), json.to_string().into())),
        (None, Some(text), None, None) => Ok((TEXT, text.clone().into())),
        (None, None, Some(form), None) => {
            let encoded = Serializer::new(String::new()).extend_pairs(pairs(form)?).finish();
            Ok((Some("application/x-www-form-urlencoded"), encoded.into()))
        }
        (None, None, None, Some(source)) => {
            let data = spec.data.as_ref().unwrap_or(&effect.task.payload);
            let text = template::render("body", source, data, Escape::Nothing).map_err(Failure::reject)?;
            Ok((TEXT, text.into()))
        }
        _ => Err(Failure::reject("effect of http: body, text, form and template exclude each other")),
    }
}

/// Names and values: a list repeats its name, null leaves it out.
fn pairs(values: &BTreeMap<String, Value>) -> Result<Vec<(&str, String)>, Failure> {
    let mut pairs = Vec::new();
    for (name, value) in values {
        let several = std::slice::from_ref(value);
        for value in value.as_array().map_or(several, Vec::as_slice) {
            match value {
                Value::Null => {}
                Value::String(text) => pairs.push((name.as_str(), text.clone())),
                Value::Bool(_) | Value::Number(_) => pairs.push((name.as_str(), value.to_string())),
                Value::Array(_) | Value::Object(_) => {
                    return Err(Failure::reject(format!("effect of http: {name} is no plain value")));
                }
            }
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Config, Environment};

    fn connection(base: &str) -> HttpConnection {
        let text = format!("[connections.x]\ntype = \"http\"\nbase_url = \"{base}\"");
        let environment = Environment::from_variables([("USER", "me")]);
        let config = Config::from_text(&text, std::path::Path::new("x.toml"), &environment).unwrap();
        config.connections.http["x"].clone()
    }

    fn request(base: &str, mut spec: Value) -> Result<Request, String> {
        spec["connection"] = json!("x");
        let effect = Effect::for_test(spec, Value::Null);
        let made = Spec::read(&effect).and_then(|spec| Request::new(&connection(base), &spec, &effect));
        made.map_err(|failure| format!("{failure:?}"))
    }

    fn url(base: &str, spec: Value) -> Result<String, String> {
        request(base, spec).map(|request| request.url.to_string())
    }

    #[test]
    fn a_path_is_appended_to_the_base_and_stays_below_it() {
        let base = "https://a.example/v1/";
        assert_eq!(url(base, json!({})).unwrap(), "https://a.example/v1");
        assert_eq!(url(base, json!({ "path": "/x/é?y=1" })).unwrap(), "https://a.example/v1/x/%C3%A9?y=1");
        assert_eq!(
            url("https://a.example", json!({ "path": "//evil.example" })).unwrap(),
            "https://a.example//evil.example"
        );
        let query = json!({ "path": "/x?y=1", "query": { "a": [1, "b c"], "n": null, "t": true } });
        assert_eq!(url(base, query).unwrap(), "https://a.example/v1/x?y=1&a=1&a=b+c&t=true");
        for path in ["x", "@evil.example", ".evil.example", "/..", "/../v2", "/%2e%2e/v2", "/..\\v2", "/a#b"]
        {
            assert!(url(base, json!({ "path": path })).is_err(), "{path}");
        }
        assert!(url(base, json!({ "query": { "a": {} } })).is_err());
    }

    #[test]
    fn a_request_carries_its_key_and_one_kind_of_body() {
        let made =
            request("https://a.example", json!({ "body": { "a": 1 }, "headers": { "X-A": "1" } })).unwrap();
        let header = |name: &str| made.headers[name].to_str().unwrap().to_owned();
        assert_eq!((made.method.as_str(), &made.body[..]), ("POST", &b"{\"a\":1}"[..]));
        assert_eq!([header("content-type"), header("x-a")], ["application/json", "1"]);
        assert_eq!(
            [header("idempotency-key"), header("rowbeat-task"), header("rowbeat-attempt")],
            ["rowbeat-7-3", "7", "2"]
        );
        let own = request("https://a.example", json!({ "headers": { "Idempotency-Key": "sms-9" } })).unwrap();
        assert_eq!((own.method.as_str(), own.headers["idempotency-key"].as_bytes()), ("GET", &b"sms-9"[..]));
        let form =
            request("https://a.example", json!({ "method": "put", "form": { "b": "ä&", "a": 1 } })).unwrap();
        assert_eq!((form.method.as_str(), &form.body[..]), ("PUT", &b"a=1&b=%C3%A4%26"[..]));
    }

    #[test]
    fn an_effect_sets_no_credentials_and_nothing_unknown() {
        for spec in [
            json!({ "headers": { "Authorization": "x" } }),
            json!({ "headers": { "host": "evil.example" } }),
            json!({ "headers": { "x-a": "1\r\nx-b: 2" } }),
            json!({ "headers": { "x a": "1" } }),
            json!({ "method": "CONNECT" }),
            json!({ "method": "GET /x HTTP/1.1\r\n" }),
            json!({ "text": "a", "form": {} }),
            json!({ "url": "http://evil.example" }),
        ] {
            assert!(request("https://a.example", spec.clone()).is_err(), "{spec}");
        }
    }
}
