//! Who a connection says it is: nothing, a fixed header, or a token that is fetched and kept.
//!
//! One request at a time fetches; the others wait for its token. A failure to get one is never the task's fault, so it is
//! worth another attempt.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::request::Request;
use super::response::Reply;
use super::transport::Transport;
use crate::config::{ClientAuth, HttpAuth, OAuth2};

/// The life of a token whose server does not tell.
const UNTOLD_LIFE: Duration = Duration::from_secs(300);
/// A token is not used any more this long before it expires (or a tenth of its life).
const MARGIN: Duration = Duration::from_secs(30);

/// The credentials of one connection.
pub(super) enum Credentials {
    None,
    Fixed(HeaderValue),
    Fetched { config: Box<OAuth2>, kept: Mutex<Option<Token>> },
}

/// A fetched token.
pub(super) struct Token {
    authorization: HeaderValue,
    until: Instant,
}

impl Credentials {
    pub(super) fn new(auth: &HttpAuth) -> Self {
        match auth {
            HttpAuth::None => Self::None,
            HttpAuth::Basic { username, password } => Self::Fixed(basic(username, password.reveal())),
            HttpAuth::Bearer(token) => Self::Fixed(sensitive(&format!("Bearer {}", token.reveal()))),
            HttpAuth::OAuth2(config) => Self::Fetched { config: config.clone(), kept: Mutex::default() },
        }
    }

    /// Whether another look may give other credentials.
    pub(super) fn can_be_renewed(&self) -> bool {
        matches!(self, Self::Fetched { .. })
    }

    /// The Authorization header, another one than `refused`.
    pub(super) async fn authorization(
        &self,
        transport: &Transport,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, String> {
        let (config, kept) = match self {
            Self::None => return Ok(None),
            Self::Fixed(value) => return Ok(Some(value.clone())),
            Self::Fetched { config, kept } => (config, kept),
        };
        let mut kept = kept.lock().await;
        let usable = kept
            .as_ref()
            .filter(|token| token.until > Instant::now() && Some(&token.authorization) != refused);
        if let Some(token) = usable {
            return Ok(Some(token.authorization.clone()));
        }
        let request = token_request(config);
        let fetched = match transport.send(&request).await {
            Ok(reply) => read_token(&reply),
            Err(problem) => Err(problem),
        };
        let token = fetched.map_err(|problem| format!("no token from {}: {problem}", request.describe()))?;
        Ok(Some(kept.insert(token).authorization.clone()))
    }
}

fn token_request(config: &OAuth2) -> Request {
    let mut form = Serializer::new(String::new());
    form.extend_pairs(&config.params);
    let mut headers = Request::bare_headers();
    headers.extend(config.headers.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    match config.client_auth {
        ClientAuth::Basic => {
            // Encoded first: RFC 6749, section 2.3.1.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let value = basic(&encoded(&config.client_id), &encoded(config.client_secret.reveal()));
            headers.insert(AUTHORIZATION, value);
        }
        ClientAuth::Body => {
            form.append_pair("client_id", &config.client_id);
            form.append_pair("client_secret", config.client_secret.reveal());
        }
    }
    Request { method: Method::POST, url: config.token_url.clone(), headers, body: form.finish().into() }
}

/// The token of a reply (RFC 6749, section 5). Neither it nor the rest of the reply is ever part of a message.
fn read_token(reply: &Reply) -> Result<Token, String> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if !reply.status.is_success() {
        let code = body["error"].as_str().unwrap_or("no reason given");
        return Err(format!("{}, {code}", reply.status));
    }
    let token = body["access_token"].as_str().ok_or("the reply has no access_token")?;
    let told = &body["expires_in"];
    let seconds = told.as_u64().or_else(|| told.as_str()?.parse().ok());
    let life = seconds.map_or(UNTOLD_LIFE, Duration::from_secs);
    let now = Instant::now();
    let until = now.checked_add(life - MARGIN.min(life / 10)).unwrap_or(now + UNTOLD_LIFE);
    Ok(Token { authorization: sensitive(&format!("Bearer {token}")), until })
}

fn basic(username: &str, password: &str) -> HeaderValue {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// A token that no header can hold is sent as an empty one: the server says that it does not know it.
fn sensitive(value: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}
